"""Error rates of a set: sums of counts, and the table."""

import pytest

from nemojax.metrics import bootstrap_interval, normalizer
from nemojax.metrics.set_scores import SetScores, table


@pytest.fixture
def scores():
    scores = SetScores(failed=2)
    scores.add("Bin blue at S zero now.", "bin blue at s zero now")
    scores.add("lay red", "lay a red bed")
    scores.add("one two three", "one tree")
    return scores


def test_counts_are_added_before_they_are_divided(scores):
    summary = scores.summary()
    assert summary["utterances"] == 3 and summary["failed"] == 2
    assert summary["words"] == {"substitutions": 1, "deletions": 1, "insertions": 2, "reference": 11}
    assert (
        summary["wer"] == 4 / 11
        and summary["cer"]
        == summary["characters"]["substitutions"] / 42
        + sum(summary["characters"][kind] for kind in ("deletions", "insertions")) / 42
    )
    low, high = summary["wer_interval"]
    assert (low, high) == bootstrap_interval(scores.words) != bootstrap_interval(scores.characters)
    assert 0 <= low <= 4 / 11 <= high


def test_texts_are_compared_in_the_chosen_form():
    scores = SetScores(normalizer("none"))
    scores.add("A b.", "a b")
    assert scores.summary()["words"]["substitutions"] == 2


def test_a_rate_of_nothing_is_none():
    empty, inserted = SetScores(), SetScores()
    inserted.add("", "a")
    assert empty.summary()["wer"] is None and empty.summary()["wer_interval"] == [None, None]
    assert inserted.summary()["wer"] is None and inserted.summary()["words"]["insertions"] == 1


def test_the_table(scores):
    header, first, second = table({"a.jsonl": scores.summary(), "longer.jsonl": SetScores().summary()}).splitlines()
    assert header.split()[:3] == ["utterances", "failed", "words"]
    assert first.split()[:5] == ["a.jsonl", "3", "2", "11", "36.36"] and first.split()[8:] == [
        "1",
        "1",
        "2",
        "42",
        "26.19",
    ]
    low, high = scores.summary()["wer_interval"]
    assert first.split()[5:8] == [f"{100 * low:.2f}", "to", f"{100 * high:.2f}"]
    assert second.split() == ["longer.jsonl", "0", "0", "0", "-", "none", "0", "0", "0", "0", "-"]
    assert len({len(line) for line in (header, first, second)}) == 1
