import json

import pytest
import yaml

from convert.errors import as_written


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
