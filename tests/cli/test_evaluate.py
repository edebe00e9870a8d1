"""`nemojax evaluate`: of a manifest with a model, and of results without one."""

import json
import re
from types import SimpleNamespace

import pytest

from nemojax import cli
from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.config import TextConfig
from nemojax.errors import AudioError
from nemojax.recognition.bulk import FAILURES, JOB, TRANSCRIPTS
from nemojax.recognition.stream_graphs import NO_GRAPHS
from nemojax.text.transcript import Transcript
from tests.data.corpora import write_manifest


class StubRecognizer:
    """Transcribes every recording as "bin blue"; gone.wav fails."""

    dtype = "float32"
    config = SimpleNamespace(text=TextConfig(events=("<PAUSE>",)))
    graphs = NO_GRAPHS

    def __init__(self):
        self.names = []

    def lookahead(self, lookahead):
        return 6 if lookahead is None else lookahead

    def transcribe_each(self, sources, lookahead, batch_size, progress, raw, channel):
        self.raw, self.channel, self.batch_size = raw, channel, batch_size
        for index, source in enumerate(sources):
            if isinstance(source, AudioError):
                yield index, source
                continue
            self.names.append(source.name)
            failed = source.name == "gone.wav"
            yield (
                index,
                AudioError("gone.wav: gone")
                if failed
                else Transcript("Bin blue.", (), (), (), 1.0, self.lookahead(lookahead), "offline"),
            )


@pytest.fixture
def evaluate(capsys, monkeypatch):
    """Runs the command; returns its exit code, its rows, and its errors. Only `model=` allows it to load a model."""

    def evaluate(*arguments, model=None):
        monkeypatch.setattr(
            "nemojax.recognition.recognizer.load", lambda *_, **__: model or pytest.fail("loaded a model")
        )
        code = cli.main(["evaluate", *map(str, arguments), "--json"])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err.splitlines()

    return evaluate


def test_a_manifest(evaluate, tmp_path):
    entries = [
        {"audio_filepath": "a.wav", "text": "bin blue"},
        {"audio_filepath": "b.wav", "text": "bin red now"},
        {"audio_filepath": "c.wav", "text": "left out", "_skipme": True},
        {"audio_filepath": "gone.wav", "text": "lay"},
        {"audio_filepath": "d.wav"},
        {"audio_filepath": "e.wav", "duration": 10**300},
        {"audio_filepath": "f.wav", "text": ""},  # its two words are insertions
    ]
    manifest, model = write_manifest(tmp_path / "m.jsonl", entries), StubRecognizer()
    code, (row,), (note, *errors) = evaluate(manifest, "--lookahead", 1, model=model)
    assert note == f"note: {SMALL_NOTE}"
    assert code == 1 and row["manifest"] == str(manifest)
    assert (row["utterances"], row["failed"], row["lookahead"], row["normalizer"]) == (3, 3, 1, "plain")
    assert row["words"] == {"substitutions": 1, "deletions": 1, "insertions": 2, "reference": 5} and row["wer"] == 0.8
    assert model.names == ["a.wav", "b.wav", "gone.wav", "f.wav"]  # a recording without a text is not transcribed
    assert errors[0] == "error: gone.wav: gone" and "line 5: it has no text to compare with" in errors[1]
    assert "line 6: its duration is 1000" in errors[2] and len(errors) == 3 and max(map(len, errors)) < 600


def test_marks_of_events_are_no_words(evaluate, tmp_path):
    """In manifests of EOU models, and in NeMo's results; the checkpoint may name others."""
    entries = [{"audio_filepath": "a.wav", "text": "bin<PAUSE> blue<EOU><EOB>"}]
    code, (row,), _ = evaluate(write_manifest(tmp_path / "m.jsonl", entries), model=StubRecognizer())
    assert code == 0 and row["wer"] == 0 and row["cer"] == 0 and row["words"]["reference"] == 2
    results = [{"text": "bin <EOU>", "pred_text": "bin<EOU>"}, {"text": "a <b>", "pred_text": "a <b>"}]
    for normalizer in ("none", "plain"):
        _, (row,), _ = evaluate(write_manifest(tmp_path / "r.jsonl", results), "--normalizer", normalizer)
        assert row["wer"] == 0 and row["words"]["reference"] == 3


def test_choices_of_audio_are_passed_on(evaluate, tmp_path):
    model = StubRecognizer()
    manifest = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "a.raw", "text": "bin blue"}])
    _, (row,), _ = evaluate(manifest, "--raw", "mulaw,8000", "--channel", "1", model=model)
    assert (model.raw.rate_hz, model.channel) == (8000, 1)
    assert {key: row[key] for key in ("raw", "channel", "model", "dtype", "lookahead", "normalizer")} == {
        "raw": "mulaw,8000",
        "channel": "1",
        "model": str(SMALL),
        "dtype": "float32",
        "lookahead": 6,
        "normalizer": "plain",
    }
    assert "reset_prediction_after_s" not in row and model.batch_size == 8
    evaluate(manifest, "--batch-size", 3, model=model)
    assert model.batch_size == 3 and model.raw is model.channel is None


def test_shards_are_one_set(evaluate, tmp_path):
    for shard in range(2):
        write_manifest(tmp_path / f"m_{shard}.json", [{"audio_filepath": f"{shard}.wav", "text": "bin red"}])
        write_manifest(tmp_path / f"r_{shard}.json", [{"text": "a b", "pred_text": "a"}])
    for name, model in (("m", StubRecognizer()), ("r", None)):
        code, (row,), _ = evaluate(tmp_path / f"{name}__OP_0..1_CL_.json", model=model)
        assert code == 0 and (row["utterances"], row["wer"]) == (2, 0.5)
    write_manifest(
        tmp_path / "m_1.json", [{"audio_filepath": "a.wav", "text": "bin blue"}, {"audio_filepath": "b.wav"}]
    )
    code, (row,), errors = evaluate(tmp_path / "m__OP_0..1_CL_.json", model=StubRecognizer())
    assert code == 1 and (row["utterances"], row["failed"]) == (2, 1)
    assert errors[1:] == [f"error: {tmp_path / 'm_1.json'}: line 2: it has no text to compare with"]


def test_results_without_a_model(evaluate, tmp_path):
    """Those of NeMo have text and pred_text; in ours `reference` is null where the manifest had no text."""
    rows = [
        {"audio_filepath": "a.wav", "text": "bin blue", "pred_text": "bin blue"},
        {"line": 2, "audio": "b.wav", "text": "bin red", "pred_text": "bin", "reference": "bin red"},
        {"line": 3, "audio": "c.wav", "text": "bin", "pred_text": "bin", "reference": None},
        {"line": 4, "audio": "d.wav", "text": "bin red", "error": "d.wav: gone"},
        {"line": 5, "audio": "e.wav", "text": "bin", "tokens": [1]},  # of an earlier version
    ]
    results = write_manifest(tmp_path / "results.jsonl", rows)
    code, (row,), errors = evaluate(results)
    assert code == 1 and (row["utterances"], row["failed"], row["wer"]) == (2, 3, 0.25)
    assert [error.removeprefix(f"error: {results}: ") for error in errors] == [
        "line 3: it has no text to compare with",
        "error: d.wav: gone",
        "line 5: it has no pred_text; evaluate the manifest instead",
    ]
    assert evaluate(write_manifest(tmp_path / "good.jsonl", rows[:2]), "--normalizer", "none")[0] == 0
    for first in (3, 4):  # no model is loaded for these either
        assert evaluate(write_manifest(tmp_path / "old.jsonl", rows[first:]))[2]
    warned = write_manifest(tmp_path / "warned.jsonl", [{**rows[1], "error": "its tail was lost"}])  # another program's
    assert evaluate(warned)[0] == 0
    code, (row,), errors = evaluate(write_manifest(tmp_path / "silent.jsonl", []), model=StubRecognizer())
    assert (code, row["utterances"], row["failed"]) == (1, 0, 0)  # nothing was evaluated


def test_the_directory_of_a_job(evaluate, tmp_path):
    write_manifest(
        tmp_path / TRANSCRIPTS, [{"line": 1, "audio": "a", "text": "a b", "pred_text": "a", "reference": "a b"}]
    )
    write_manifest(tmp_path / FAILURES, [{"line": 2, "audio": "b", "error": "b: gone"}])
    code, (row,), errors = evaluate(tmp_path)
    assert code == 1 and (row["utterances"], row["failed"], row["wer"]) == (1, 1, 0.5) and errors == ["error: b: gone"]
    (tmp_path / TRANSCRIPTS).unlink()
    assert "is a directory without the results of a job" in evaluate(tmp_path)[2][0]
    (tmp_path / JOB).write_text("{}")
    assert "is not complete; start it again" in evaluate(tmp_path)[2][0]


def test_a_table_of_several_sets(capsys, tmp_path):
    row = {"text": "a b c d", "pred_text": "a b c"}
    names = [write_manifest(tmp_path / name, [row] * 2) for name in ("one.jsonl", "two.json")]
    assert cli.main(["evaluate", *map(str, names)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    interval = ["25.00", "to", "25.00"]
    counts = ["0", "2", "0", "14", "28.57"]
    assert [line.split() for line in lines] == [
        [str(name), "2", "0", "8", "25.00", *interval, *counts] for name in names
    ]
    assert re.split("  +", header.strip()) == [
        *("utterances", "failed", "words", "WER %", "95 % interval", "sub", "del", "ins", "characters", "CER %")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one manifest, or the results of one"),
        (["a.wav"], "a.wav is not a manifest or results (.jsonl, .json, .jsonl.gz, .json.gz), and not a directory"),
        (["nowhere.jsonl"], "nowhere.jsonl: the manifest can't be read (No such file or directory)"),
        (["m.jsonl", "--batch-size", "0"], "--batch-size must be a whole number of at least 1, not 0"),
    ],
)
def test_mistakes_are_one_sentence(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *arguments]) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")
