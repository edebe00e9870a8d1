"""The load generator, with a few streams of a tiny model."""

import json

import numpy as np
import pytest
import soundfile

from experiments.speed import streams
from experiments.speed.streams import search
from tests.data.corpora import write_manifest

THREE = ["--min-streams", "3", "--max-streams", "3"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, speech):
    directory = tmp_path_factory.mktemp("speech")
    for number in range(3):
        soundfile.write(directory / f"{number}.wav", np.roll(np.asarray(speech), 9000 * number)[:24_000], 16_000)
    return write_manifest(
        directory / "speech.jsonl",
        [{"audio_filepath": f"{number}.wav", "duration": 1.5, "text": ""} for number in range(3)],
    )


@pytest.fixture
def patient(monkeypatch):
    """A backlog that no machine fills, however slow."""
    monkeypatch.setattr(streams, "BACKLOG", 1000)


@pytest.mark.parametrize(("limit", "found"), [(0, 0), (3, 3), (8, 8), (100, 100), (37, 37), (10_000, 1000)])
def test_search(limit, found):
    tried = []

    def serves(number):
        tried.append(number)
        return number <= limit

    assert search(serves, 4, 1000, 0.001) == found
    assert len(tried) == len(set(tried)) < 25 and all(1 <= number <= 1000 for number in tried)
    coarse = search(lambda number: number <= limit, 4, 1000, 0.1)
    assert coarse <= found and coarse >= 0.85 * found


def test_streams_are_served_and_distinguished(checkpoint_directory, manifest, tmp_path, capsys, patient):
    arguments = [str(checkpoint_directory), str(manifest), "--lookaheads", "1", *THREE]
    arguments += ["--seconds", "1", "--voices", "3", "--dtype", "float32", "--output", str(tmp_path / "rows.jsonl")]
    assert streams.main([*arguments, "--plot", str(tmp_path / "streams.svg")]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    # 7 chunks of 160 ms begin in the 67.5 ms of history and a second of speech
    assert row["chunks"] == 3 * 7 and row["streams"] == 3 and not row["differing"] and not row["refused"]
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["voices"] == 3 and row["steps"] <= 21
    assert "| 1 | 160 | 3 |" in capsys.readouterr().out and (tmp_path / "streams.svg").exists()


def test_a_text_that_differs_is_found(checkpoint_directory, manifest, tmp_path, monkeypatch, patient):
    from nemojax.recognition.recognizer import Recognizer

    transcribe = Recognizer.transcribe
    monkeypatch.setattr(Recognizer, "transcribe", lambda self, audio, *rest: transcribe(self, audio[::-1], *rest))
    arguments = [str(checkpoint_directory), str(manifest), "--lookaheads", "1", *THREE]
    arguments += ["--seconds", "1", "--voices", "2", "--dtype", "float32", "--output", str(tmp_path / "rows.jsonl")]
    assert streams.main(arguments) == 1
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows[0]["differing"] == 3 and not any(row["served"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}"], "name at least one manifest"),
        (["{model}", "{manifest}", "--seconds", "60"], "60 s are needed"),
        (["{model}", "{manifest}", "--min-streams", "0"], "--min-streams must be at least 1"),
        (["{model}", "{manifest}", "--max-streams", "7"], "--max-streams must be at least 8"),
        (["{model}", "{manifest}", "--plot", "a.gif"], "a.gif"),
        (["nowhere", "{manifest}"], "nowhere"),
    ],
)
def test_mistakes_are_sentences(checkpoint_directory, manifest, capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled = [argument.format(model=checkpoint_directory, manifest=manifest) for argument in arguments]
    assert streams.main(filled) == 2
    assert message in capsys.readouterr().err
