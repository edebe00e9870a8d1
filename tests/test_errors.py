"""What a message shows of a name or a value."""

import pytest

from nemojax.errors import MAX_SHOWN, AudioError, TranscriptionError, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ünï 日本.wav", "ünï 日本.wav"),
        ("two\nlines\t.wav", "two\\nlines\\t.wav"),
        ("a\0b\x1b[31m", "a\\x00b\\x1b[31m"),
        ("M\udce4dchen", "M\\udce4dchen"),
        ("\u202etxt", "\\u202etxt"),  # would reverse the order of the characters after it
    ],
)
def test_characters_that_can_not_be_printed_are_escaped(text, expected):
    assert shown(text) == expected


def test_a_long_text_loses_its_middle():
    assert shown("x" * MAX_SHOWN) == "x" * MAX_SHOWN
    assert shown("name" + "x" * 5000 + ": the reason", 20) == "namexxxxxx ... the reason"
    assert shown("x" * 1001) == "x" * 500 + " ... " + "x" * 500


def test_errors_of_several_recordings():
    errors = {0: AudioError("a.wav: gone"), 2: AudioError("c.wav: empty")}
    error = TranscriptionError(errors, [None, "text", None])
    assert str(error) == "2 of 3 recordings could not be transcribed:\n  a.wav: gone\n  c.wav: empty"
    assert error.errors is errors and error.transcripts == [None, "text", None] and isinstance(error, AudioError)
