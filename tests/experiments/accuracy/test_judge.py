"""Several models on one manifest."""

import json

import numpy as np
import pytest
import soundfile

from experiments.accuracy import judge
from experiments.accuracy.contestants import Name, Result, parse
from experiments.harness import checks
from nemojax.errors import AudioError, ConfigError


@pytest.fixture
def manifest(tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000, np.float32), 16_000)
    lines = [{"audio_filepath": "a.wav", "text": "one two"}, {"audio_filepath": "b.wav", "text": "Three."}]
    lines.append({"audio_filepath": "absent.wav", "text": "four"})
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "dev.jsonl"


class Made:
    """A model whose transcripts are given; it hears each recording at second 0.5."""

    lookaheads = (13, 0)

    def __init__(self, *texts):
        self.texts = texts

    def transcribe(self, entries, lookahead, progress):
        for index, entry in enumerate(entries):
            if isinstance(entry, AudioError) or "absent" in entry.name:
                yield index, AudioError("absent.wav: it is not there")
                continue
            text = self.texts[index]
            yield index, Result(text, [(word, 0.5) for word in text.split()], 1.0)


def test_models_are_compared_with_the_first(tmp_path, manifest, monkeypatch, capsys):
    models = [
        (Name("nemojax", "mine"), Made("one two", "three.")),
        (Name("nemo", "it.nemo"), Made("one too", "Three.")),
    ]
    monkeypatch.setattr(judge, "load_all", lambda settings: iter(models))
    out = tmp_path / "judged"
    command = ["mine", str(manifest), "--output", str(out), "--lookaheads", "0", "--resamples", "50"]
    assert judge.main(command) == 1  # a recording is absent
    shown = capsys.readouterr()
    assert shown.err == "error: absent.wav: it is not there\n"
    mine, other = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert (mine["model"], mine["wer"]["errors" if "errors" in mine["wer"] else "rate"]) == ("mine", 0)
    assert mine["case_error"]["substitutions"] == 1 and mine["failed"] == 1 and mine["chunk_ms"] == 80
    assert other["model"] == "nemo:it.nemo" and other["against"] == "mine" and other["wer"]["substitutions"] == 1
    (error,) = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert error["model"] == "nemo:it.nemo" and error["kind"] == "substitution"
    assert error["recognized"] == "too" and error["places"] == [{"audio": "a.wav", "at_s": 0.5}]
    assert (out / "wer.svg").is_file() and "| nemo:it.nemo | dev | 80 |" in shown.out
    assert judge.main(command) == 2  # nothing is overwritten
    assert capsys.readouterr().err == f"error: {out} has results already; name another --output\n"


def test_names_of_models(monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: name == "torch" or None)
    assert parse("runs/model") == Name("nemojax", "runs/model") and str(parse("C:/model")) == "C:/model"
    with pytest.raises(ConfigError, match="transformers is not installed: pip install"):
        parse("transformers:folder")
    with pytest.raises(ConfigError, match="nemo:: name a model after the colon"):
        parse("nemo:")


def test_look_aheads_of_a_peer_alone_must_be_named(monkeypatch):
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: True)
    settings = judge.Settings("nemo:it.nemo", ("dev.jsonl",))
    with pytest.raises(ConfigError, match="because no model of nemojax tells them"):
        next(judge.load_all(settings))


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["model"], "name at least one manifest"),
        (["model", "dev.jsonl", "--limit", "0"], "--limit must be at least 1, not 0"),
        (["model", "dev.jsonl", "--confidence", "2"], "--confidence must be between 0 and 1, not 2.0"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert judge.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
    assert not (tmp_path / "judged").exists()


@pytest.mark.slow
def test_a_model_of_nemojax_streams_too(tmp_path, speech, checkpoint_directory, monkeypatch, read_once):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.asarray(speech)[:32_000], 16_000)
    words = [["one", 0.1, 0.4], ["two", 0.5, 0.9]]
    (tmp_path / "dev.jsonl").write_text(json.dumps({"audio_filepath": "a.wav", "text": "one two", "words": words}))
    assert judge.main([str(checkpoint_directory), "dev.jsonl", "--lookaheads", "0", "--resamples", "10"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "judged" / "rows.jsonl").read_text().splitlines()]
    assert row["streamed"] == row["same_text"] == 1 and row["rtfx"] > 0 and row["step_ms"]["count"] == 1
