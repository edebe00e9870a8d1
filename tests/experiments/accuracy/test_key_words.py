import pytest

from experiments.accuracy.key_words import KeyWordCounts, count, read_key_words, summary
from experiments.accuracy.report import Bootstrap
from nemojax.errors import ConfigError

NAMES = [("oslo",), ("new", "york"), ("york",)]
BOOTSTRAP = Bootstrap(0.95, 500, 0)


@pytest.mark.parametrize(
    "reference, hypothesis, expected",  # spoken, found, false alarms, words
    [
        ("We met in Oslo.", "we met in Oslo", (1, 1, 0, 4)),
        ("we met in Oslo", "we met in also", (1, 0, 0, 4)),
        ("we met in a hall", "we met in Oslo", (0, 0, 1, 5)),
        ("Oslo, Oslo and Oslo", "Oslo and Oslo", (3, 2, 0, 4)),
        ("Oslo", "Oslo Oslo Oslo", (1, 1, 2, 1)),
        ("to New York", "to new York", (2, 2, 0, 3)),  # "york" is a key word of its own
        ("to New York", "to york", (2, 1, 0, 3)),
        ("to New York", "to new and york", (2, 1, 0, 3)),  # no longer side by side
        ("to New Jersey", "to New York", (0, 0, 2, 3)),
        ("Oslo is far from here", "it is far from Oslo", (1, 0, 1, 5)),  # written, but not where it was spoken
        ("", "Oslo", (0, 0, 1, 0)),
        ("Oslo", "", (1, 0, 0, 1)),
        ("oslos", "oslos", (0, 0, 0, 1)),
    ],
)
def test_key_words_of_an_utterance_are_counted(reference, hypothesis, expected):
    assert count(reference, hypothesis, NAMES) == expected


def test_recall_and_false_alarms_have_intervals():
    first = [KeyWordCounts(2, 0, 0, 10)] * 10
    counts = [KeyWordCounts(2, 1, 0, 10)] * 5 + [KeyWordCounts(2, 2, 1, 10)] * 5
    found = summary(counts, first, BOOTSTRAP)
    assert (found["spoken"], found["found"], found["false_alarms"]["count"]) == (20, 15, 5)
    assert found["recall"]["rate"] == 0.75 and found["false_alarms"]["per_1000_words"] == 50
    assert 0.5 < found["recall"]["low"] < 0.75 < found["recall"]["high"] < 1
    assert 0 < found["false_alarms"]["low"] < 50 < found["false_alarms"]["high"] < 100
    assert found["recall_difference"]["rate"] == 0.75 and found["p_value"] < 0.01
    assert 0.5 < found["recall_difference"]["low"] < 0.75 < found["recall_difference"]["high"] < 1
    assert summary(first, first, BOOTSTRAP)["p_value"] == 1


def test_what_is_not_defined_is_none():
    none_spoken = summary([KeyWordCounts(0, 0, 1, 4)] * 3, [KeyWordCounts(0, 0, 0, 4)] * 3, BOOTSTRAP)
    assert none_spoken["recall"] == {"rate": None, "low": None, "high": None} and none_spoken["p_value"] is None
    assert none_spoken["false_alarms"]["per_1000_words"] == 250
    single = summary([KeyWordCounts(2, 1, 0, 4)], [KeyWordCounts(2, 1, 0, 4)], BOOTSTRAP)
    assert single["recall"] == {"rate": 0.5, "low": None, "high": None}


def test_a_file_of_key_words_has_boosts(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Oslo\nNew York\t2.5\n\n—\n")
    listed = read_key_words(path)
    assert listed.words == {("oslo",), ("new", "york")}
    assert listed.boosted(2.0)[:2] == [("Oslo", 2.0), ("New York", 5.0)]
    path.write_text("\n—\n")
    with pytest.raises(ConfigError) as caught:
        read_key_words(path)
    assert str(caught.value) == f"{path}: it has no key words; give one on each line"
