"""How messages quote what a file holds: on one line, and short."""

import pytest

from convert.errors import ConvertError, as_written, listed, reason, short


def test_messages_are_one_line_of_limited_length():
    assert str(ConvertError("a\nb\x1b é")) == r"a\nb\x1b é"
    assert str(ConvertError("x" * 1800)) == "x" * 1800
    assert str(ConvertError("x" * 1801)) == "x" * 900 + " ... " + "x" * 900
    assert isinstance(ConvertError("x"), ValueError)


@pytest.mark.parametrize(
    "value,quoted",
    [
        ("text", "'text'"),
        (10**60, "1" + "0" * 17 + "..." + "0" * 19),
        ([[[[1]]]], "[[[[...]]]]"),
        ("x" * 100, "'" + "x" * 37 + "..." + "x" * 38 + "'"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({"a": None}, "{'a': None}"),
    ],
)
def test_values_are_shortened(value, quoted):
    assert short(value) == quoted


def test_values_as_a_settings_file_writes_them():
    values = [None, True, False, "hann", 3, 0.5, [1], "it's"]
    assert [as_written(value) for value in values] == [
        *("null", "true", "false", "hann", "3", "0.5", "[1]"),
        '"it\'s"',
    ]


def test_lists_of_problems():
    names = [f"n{i}" for i in range(9)]
    assert listed([]) == "" and listed(names[:8]) == "; ".join(names[:8])
    assert listed(names) == f"{'; '.join(names[:8])}; and 1 more"
    assert listed(names * 2, ", ") == f"{', '.join(names[:8])}, and 10 more"


def test_reasons_of_libraries():
    assert reason(ValueError(" two\n  lines ")) == "two lines" and reason(ValueError()) == "ValueError"
    assert reason(ValueError("x" * 300)) == "x" * 200
