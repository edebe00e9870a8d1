"""The results of a job in other forms: their lines in order, and a file of its own for each recording."""

import json

import pytest

from nemojax.recognition.bulk import TRANSCRIPTS
from nemojax.recognition.exports import export


@pytest.fixture
def job(tmp_path):
    """Parts of two recordings, the later ones first; a part that begins after 10 s is later than one after 9 s."""
    rows = [(1, "talk.wav", 100.0), (2, "other/talk.flac", 10.5), (3, "a.wav", 0.0), (4, "talk.wav", 9.5)]
    with (tmp_path / TRANSCRIPTS).open("w") as file:
        for line, audio, offset in rows:
            word = {"word": f"word{line}", "start": 0.25, "end": 0.5, "confidence": 1.0}
            fields = {"line": line, "audio": audio, "offset": offset, "text": "said", "pred_text": f"word{line}"}
            file.write(json.dumps({**fields, "words": [word], "duration": 1.0}) + "\n")
    return tmp_path


@pytest.mark.parametrize(("form", "start"), [("ctm", 2), ("stm", 3)])
def test_lines_are_in_the_order_of_recordings_and_times(job, form, start):
    written = export(job, form)
    lines = [line.split(" ") for line in written.read_text().splitlines()]
    assert written.name == f"transcripts.{form}" and [line[0] for line in lines] == ["a", *["talk"] * 3]
    first = 0.25 if form == "ctm" else 0.0
    assert [float(line[start]) for line in lines] == [first + offset for offset in (0.0, 9.5, 10.5, 100.0)]
    assert not list(job.glob("*.partial"))


def test_texts_are_in_the_order_of_lines(job):
    assert export(job, "txt").read_text().splitlines() == [
        "talk.wav: word1",
        "other/talk.flac: word2",
        "a.wav: word3",
        "talk.wav: word4",
    ]
