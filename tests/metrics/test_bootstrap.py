import math

import numpy as np
import pytest

from nemojax.metrics.bootstrap import bootstrap_interval, compare
from nemojax.metrics.error_counts import ErrorCounts, total
from tests.helpers.messages import whole


def coin(probability, count, seed):
    """One-word utterances, wrong with a probability."""
    wrong = np.random.default_rng(seed).random(count) < probability
    return [ErrorCounts(int(w), 0, 0, 1) for w in wrong]


def test_an_interval_is_as_wide_as_theory_says():
    counts = coin(0.2, 400, seed=1)
    rate = total(counts).rate
    low, high = bootstrap_interval(counts)
    expected = 1.96 * math.sqrt(rate * (1 - rate) / 400)
    assert rate - low == pytest.approx(expected, rel=0.15) and high - rate == pytest.approx(expected, rel=0.15)
    narrow = bootstrap_interval(counts, confidence=0.5)
    assert (narrow[1] - narrow[0]) / (high - low) == pytest.approx(0.6745 / 1.96, rel=0.2)
    assert bootstrap_interval(counts) == (low, high) != bootstrap_interval(counts, seed=1)


def test_an_interval_weighs_utterances_by_their_words():
    counts = [ErrorCounts(0, 0, 0, 1)] * 50 + [ErrorCounts(10, 20, 20, 100)] * 50
    low, high = bootstrap_interval(counts)
    assert 0.49 < low < total(counts).rate < high <= 0.5


def test_utterances_of_one_speaker_are_drawn_together():
    # ten speakers, each always right or always wrong: ten trials, not a thousand
    counts = [ErrorCounts(speaker % 2, 0, 0, 1) for speaker in range(10) for _ in range(100)]
    speakers = [f"speaker {speaker}" for speaker in range(10) for _ in range(100)]
    low, high = bootstrap_interval(counts, blocks=speakers)
    assert low == pytest.approx(0.2, abs=0.1) and high == pytest.approx(0.8, abs=0.1)
    alone = bootstrap_interval(counts)
    assert alone[1] - alone[0] < 0.07
    with pytest.raises(ValueError, match=whole("1000 utterances have 3 blocks")):
        bootstrap_interval(counts, blocks=["a", "b", "a"])


def test_intervals_that_do_not_exist():
    for counts, blocks in (
        ([], None),
        ([ErrorCounts(1, 0, 0, 2)], None),
        ([ErrorCounts(1, 0, 0, 2)] * 3, ["one speaker"] * 3),
        ([ErrorCounts(0, 0, 1, 0)] * 3, None),
    ):
        assert all(map(math.isnan, bootstrap_interval(counts, blocks=blocks)))
    assert bootstrap_interval([ErrorCounts(0, 0, 0, 5)] * 20) == (0, 0)
    # sets without a word are skipped
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 2), ErrorCounts(0, 0, 0, 0)]) == (0.5, 0.5)
    with pytest.raises(ValueError, match=whole("confidence must be between 0 and 1, not 95.0")):
        bootstrap_interval([ErrorCounts(0, 0, 0, 5)] * 20, confidence=95.0)


def test_systems_are_compared_on_the_same_utterances():
    first = coin(0.3, 500, seed=1)
    # a small but consistent improvement: significant when paired, while the two intervals overlap
    better = [c._replace(substitutions=0) if c.errors and i % 8 == 0 else c for i, c in enumerate(first)]
    found = compare(first, better)
    assert found.difference == total(better).rate - total(first).rate < 0
    assert found.low < found.difference < found.high < 0 and found.p_value == 2 / 2001  # only the original set
    assert bootstrap_interval(first)[0] < bootstrap_interval(better)[1]
    assert compare(better, first).difference == -found.difference
    assert compare(better, first).p_value == found.p_value
    same = compare(first, first)
    assert same == (0, 0, 0, 1)
    with pytest.raises(
        ValueError,
        match=whole("the two systems were not scored on the same utterances: their references differ in size"),
    ):
        compare(first, first[1:])
    with pytest.raises(
        ValueError,
        match=whole("the two systems were not scored on the same utterances: their references differ in size"),
    ):
        compare(first, [c._replace(reference=2) for c in first])
    assert math.isnan(compare([], []).p_value)


def test_p_values_are_those_of_chance():
    """Where two systems are equally good, a p value below 0.1 comes up one time in ten."""
    values = [compare(coin(0.3, 200, 2 * s), coin(0.3, 200, 2 * s + 1), resamples=200).p_value for s in range(200)]
    assert 0.05 < np.mean(np.asarray(values) < 0.1) < 0.16
    assert 0.35 < np.mean(np.asarray(values) < 0.5) < 0.65
