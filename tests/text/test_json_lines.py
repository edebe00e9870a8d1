"""JSON lines in encodings that do not have every character."""

import json

import pytest

from nemojax.text.json_lines import json_line
from nemojax.text.transcript import Transcript


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        ("é.wav", "utf-8", "é.wav"),
        ("é.wav", "ascii", r"\u00e9.wav"),
        ("é.wav", "latin-1", "é.wav"),
        ("M\udce4dchen.wav", "utf-8", r"M\udce4dchen.wav"),
        ("é.wav", "no such encoding", r"\u00e9.wav"),
    ],
)
def test_a_line_can_be_written_and_read_back(name, encoding, shown):
    line = json_line({"audio": name}, encoding)
    assert line == f'{{"audio": "{shown}"}}' and json.loads(line) == {"audio": name}


def test_a_transcript_of_a_name_that_is_not_utf8():
    transcript = Transcript("a", (), (), (), 1.0, 1, "offline")
    line = transcript.to_json("M\udce4dchen.wav")
    assert json.loads(line.encode()) == transcript.to_dict("M\udce4dchen.wav")
