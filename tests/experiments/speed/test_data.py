"""The rows of the data pipeline's speed."""

import json

import numpy as np
import pytest
import soundfile

from experiments.speed import data
from tests.data.corpora import write_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, speech):
    directory = tmp_path_factory.mktemp("speech")
    texts = ["one two three", "four five six", "seven eight nine ten", "eleven or twelve"]
    for number in range(len(texts)):
        soundfile.write(directory / f"{number}.wav", np.roll(np.asarray(speech), 9000 * number)[:32_000], 16_000)
    entries = [{"audio_filepath": f"{n}.wav", "duration": 2.0, "text": text} for n, text in enumerate(texts)]
    return write_manifest(directory / "speech.jsonl", entries * 4)


def test_a_row_for_each_waveform_and_number_of_workers(manifest, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    arguments = [str(manifest), "--workers", "0", "--seconds", "0.01", "--tokenizer-size", "40"]
    assert data.main([*arguments, "--batch-frames", "60", "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(row["workers"], row["waveform"]) for row in rows] == [(0, "none"), (0, "recipe")]
    for row in rows:
        assert row["audio_hours_per_hour"] > 0 and row["audio_hours_per_core_hour"] > 0 and row["unreadable"] == 0
        assert 0 <= row["share_of_padding"] < 1 and row["seed"] == 0 and row["corpus_hours"] == 0.009
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2


def test_a_wrong_setting_is_an_error(manifest, capsys):
    assert data.main([str(manifest), "--workers", "-1"]) == 2
    assert "--workers must be at least 0, not -1" in capsys.readouterr().err
