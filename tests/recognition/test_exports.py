"""The results of a job in other forms: their lines in order, and a file of its own for each recording."""

import json

import pytest

from nemojax.recognition.bulk import TRANSCRIPTS
from nemojax.recognition.exports import export


def write_job(directory, rows):
    """Writes results of (recording, offset in seconds), of which each has a word."""
    with (directory / TRANSCRIPTS).open("w") as file:
        for line, (audio, offset) in enumerate(rows, 1):
            word = {"word": f"word{line}", "start": 0.25, "end": 0.5, "confidence": 1.0}
            fields = {"line": line, "audio": audio, "offset": offset, "text": "said", "pred_text": f"word{line}"}
            file.write(json.dumps({**fields, "words": [word], "duration": 1.0}) + "\n")
    return directory


@pytest.fixture
def job(tmp_path):
    """Parts of two recordings, the later ones first; a part that begins after 10 s is later than one after 9 s."""
    return write_job(tmp_path, [("talk.wav", 100.0), ("other/talk.flac", 10.5), ("a.wav", 0.0), ("talk.wav", 9.5)])


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


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("txt", "M\\udce4dchen.wav: word1\ntwo\\nlines.wav: word2\n"),
        ("ctm", "M\\udce4dchen 1 0.250 0.250 word1 1.0000\ntwo_lines 1 0.250 0.250 word2 1.0000\n"),
    ],
)
def test_names_that_are_not_text_or_have_two_lines(tmp_path, form, written):
    """Every result is on one line."""
    job = write_job(tmp_path, [("M\udce4dchen.wav", 0.0), ("two\nlines.wav", 0.0)])
    assert export(job, form).read_text() == written
