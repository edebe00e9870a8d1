"""How messages quote what a file holds: on one line, and short."""

import json

import pytest
import yaml

from convert.errors import ConvertError, as_written, listed, reason, short


@pytest.mark.parametrize(
    "value", ["8", "-1", "1e3", ".5", "", " a", "a ", "null", "True", "off", "~", 8, -1, None, True]
)
def test_a_value_in_a_message_reads_as_its_type(value):
    assert yaml.safe_load(as_written(value)) == value


@pytest.mark.parametrize(
    "value", ["greedy_batch", "nemo.collections.Class", "/data/lm.bin", "${model.width}", "per feature"]
)
def test_texts_have_no_quotes(value):
    assert as_written(value) == value


def test_long_texts_are_cut():
    assert len(as_written("x" * 10_000)) < 100 and "\n" not in as_written("a\nb")
    assert json.dumps(None) == as_written(None)


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
