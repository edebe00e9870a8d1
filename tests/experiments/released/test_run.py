"""The command: mistakes, an interrupted run, and a whole run on a tiny model."""

import json

import numpy as np
import pytest
import soundfile

from experiments.released import run
from experiments.released.known import RELEASES
from nemojax.errors import ConfigError


def manifest(directory, speech, name="test-clean.jsonl"):
    soundfile.write(directory / "a.wav", np.asarray(speech)[:32_000], 16_000)
    line = json.dumps({"audio_filepath": "a.wav", "text": "one or two words"})
    (directory / name).write_text(2 * f"{line}\n")
    return directory / name


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["model"], "name LibriSpeech's folder, or at least one manifest"),
        (["model", "ami.jsonl", "--stream-limit", "-1"], "--stream-limit must be at least 0, not -1"),
        (["model", "ami.jsonl", "--confidence", "1"], "--confidence must be between 0 and 1, not 1.0"),
        (
            ["no-such", "Librispeech"],
            "Librispeech is neither a folder of LibriSpeech nor a manifest: no such file",
        ),
        (["no-such", "ami.jsonl"], "no-such is neither a file, nor a directory, nor a name on the hub (owner/model)"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ami.jsonl").touch()
    assert run.main(arguments) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"


def test_rows_of_an_interrupted_run_are_not_measured_again(tmp_path, speech, monkeypatch, recognizer):
    path = manifest(tmp_path, speech)
    settings = run.Settings("model", (str(path),), lookaheads=(1, 0), output=tmp_path, stream_limit=0)
    done = {"weights": "w", "set": "librispeech-clean", "lookahead": 1, "entries": 2, "wer": "measured before"}
    (tmp_path / run.ROWS).write_text(json.dumps(done) + "\n" + json.dumps(done | {"weights": "other"}) + '\n{"cut')
    measured = []

    def measure_set(recognizer, evaluation_set, lookahead, settings, report):
        measured.append(lookahead)
        return {"wer": "new"}, []

    class Rows:
        report = None

        def add(self, row):
            return row

    monkeypatch.setattr(run.evaluate, "measure_set", measure_set)
    earlier = run._earlier(tmp_path / run.ROWS)
    assert len(earlier) == 2
    (named,) = run.find_sets(settings.data, tmp_path)
    rows = run.measure_set(recognizer, named, settings, {"weights": "w"}, earlier, Rows())
    assert measured == [0] and [row["wer"] for row in rows] == ["measured before", "new"]


def test_other_weights_are_told_apart(checkpoint_directory):
    assert run.fingerprint(checkpoint_directory, "float32") != run.fingerprint(checkpoint_directory, "int8")


def test_a_model_in_the_place_of_another_is_an_error(tmp_path, checkpoint_directory):
    (tmp_path / "model" / "weights").mkdir(parents=True)
    (tmp_path / "model" / "origin.json").write_text(json.dumps({"files": {"x.nemo": "00"}}))
    (tmp_path / "x.nemo").write_bytes(b"other")
    with pytest.raises(ConfigError, match="was converted from another model"):
        run.obtain(str(tmp_path / "x.nemo"), tmp_path, RELEASES["march"])
    native, checks = run.obtain(str(checkpoint_directory), tmp_path, RELEASES["march"])
    assert native == checkpoint_directory and len(checks) == 1


@pytest.mark.slow
def test_a_whole_run(tmp_path, speech, checkpoint_directory, capsys, monkeypatch):
    pytest.importorskip("whisper_normalizer")
    monkeypatch.chdir(tmp_path)
    path = manifest(tmp_path, speech)
    command = [str(checkpoint_directory), str(path), "--lookaheads", "0", "--stream-limit", "1", "--resamples", "10"]
    assert run.main(command) == 1  # these are not the released weights
    out = capsys.readouterr().out
    assert "Streamed, 1 of 1 recordings have the same text as offline." in out and "open released/report.html" in out
    (row,) = [json.loads(line) for line in (tmp_path / "released" / "rows.jsonl").read_text().splitlines()]
    assert row["set"] == "librispeech-clean" and row["utterances"] == 2 and row["step_ms"]["count"] == 1
    assert (tmp_path / "released" / "report.html").read_text().startswith("<!doctype html>")
    assert run.main(command) == 1 and len((tmp_path / "released" / "rows.jsonl").read_text().splitlines()) == 1
