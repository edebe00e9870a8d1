"""Before and after fine-tuning, with scores in the place of models."""

import json

import pytest

from experiments.accuracy import evaluate, fine_tuned
from experiments.accuracy.report import measures
from experiments.accuracy.scoring import score_text
from nemojax.metrics import plain
from tests.data.corpora import write_manifest

REFERENCE = "one two three four"
WRONG = {"before": {"new": 3, "old": 0, "same": 1}, "after": {"new": 1, "old": 2, "same": 1}}


@pytest.fixture
def models(monkeypatch):
    """Models that get so many words of four wrong in each recording of a manifest."""

    class Model:
        def __init__(self, path, *_):
            self.path = path
            self.config = type("Config", (), {"encoder": type("Encoder", (), {"lookaheads": (13, 0)})})

        def lookahead(self, value):
            return value

    def measure_set(recognizer, evaluation_set, lookahead, settings, report):
        wrong = WRONG[settings.model.name][evaluation_set.label]
        words = REFERENCE.split()
        hypothesis = " ".join(["x"] * wrong + words[wrong:])
        scored = [
            score_text(i, entry.name, entry.text, hypothesis, 2.0, plain)
            for i, entry in enumerate(evaluation_set.entries)
        ]
        assert settings.model == recognizer.path and settings.confidence == 0.9
        row = {
            "model": str(settings.model),
            "parameters": 1,
            "manifest": str(evaluation_set.path),
            "label": evaluation_set.label,
            "lookahead": lookahead,
            "utterances": len(scored),
            "failed": 0,
            "real_time_factor": 0.1,
            "confidence": settings.confidence,
            **measures(scored, evaluate.bootstrap(settings, evaluation_set)),
        }
        return row, scored

    monkeypatch.setattr("nemojax.recognition.recognizer.load", Model)
    monkeypatch.setattr(evaluate, "measure_set", measure_set)


def test_what_was_learned_and_what_was_forgotten(models, tmp_path, capsys):
    entries = [{"audio_filepath": f"{i}.wav", "duration": 2.0, "text": REFERENCE} for i in range(8)]
    new, old, same = (write_manifest(tmp_path / f"{name}.jsonl", entries) for name in ("new", "old", "same"))
    output = tmp_path / "rows.jsonl"
    given = ["before", "after", "--old", str(old), str(same), "--new", str(new), "--confidence", "0.9"]
    assert fine_tuned.main([*given, "--lookaheads", "13", "--output", str(output)]) == 0
    rows = {row["label"]: row for row in map(json.loads, output.read_text().splitlines())}
    assert {label: row["domain"] for label, row in rows.items()} == {"new": "new", "old": "old", "same": "old"}
    assert rows["new"]["before"]["wer"]["rate"] == 0.75 and rows["new"]["after"]["wer"]["rate"] == 0.25
    assert rows["old"]["wer_difference"] == {"rate": 0.5, "low": 0.5, "high": 0.5}
    assert rows["new"]["model_before"] == "before" and rows["new"]["model_after"] == "after"
    assert "model" not in rows["new"] and "wer" not in rows["new"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| new | new | 13 | 8 | 32 | 75.00 | 25.00 | -50.00 [-50.00, -50.00] | 0.001 | better |"
    assert lines[3].endswith("| 0.00 | 50.00 | +50.00 [+50.00, +50.00] | 0.001 | forgotten |")
    assert lines[4].endswith("| 25.00 | 25.00 | +0.00 [+0.00, +0.00] | 1.000 | no difference beyond chance |")
    assert fine_tuned.main([*given, "--output", str(output)]) == 0  # at both of the model's look-aheads
    assert len(output.read_text().splitlines()) == 3 + 6


def test_new_data_that_became_worse():
    row = {"domain": "new", "wer_difference": {"rate": 0.1, "low": 0.05, "high": 0.2}}
    assert fine_tuned.verdict(row) == "worse" and fine_tuned.verdict(row | {"domain": "old"}) == "forgotten"
    assert fine_tuned.verdict({"domain": "new", "wer_difference": {"rate": 0.1, "low": None, "high": None}}) == (
        "no difference beyond chance"
    )


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "error: name manifests with --new and --old"),
        (["--new", "a.jsonl", "--old", "a.jsonl"], "error: a.jsonl can't be both new and old; name it once"),
        (["--new", "a.jsonl", "--batch-size", "0"], "error: --batch-size must be at least 1, not 0"),
    ],
)
def test_wrong_settings(arguments, message, capsys):
    assert fine_tuned.main(["before", "after", *arguments]) == 2
    assert capsys.readouterr().err.strip() == message
