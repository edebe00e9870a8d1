import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemojax.errors import ConfigError
from nemojax.metrics import (
    ErrorCounts,
    bootstrap_interval,
    case_errors,
    character_errors,
    compare,
    normaliser,
    plain,
    punctuation_errors,
    total,
    word_errors,
)

words = st.lists(st.sampled_from(["a", "b", "c", "the"]), max_size=8).map(" ".join)
sentences = st.text(alphabet="aAbé \u2019'-.,?!1 ", max_size=20)


def distance(reference, hypothesis):
    """Edit distance by its definition."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        before, row = row, [i]
        for j, said in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (expected != said)))
    return row[-1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("bin blue at f two now", "bin blue at f two now", (0, 0, 0, 6)),
        ("bin blue at f two now", "bin blew at two now please", (1, 1, 1, 6)),
        ("  one   two ", "one\ttwo", (0, 0, 0, 2)),
        ("one", "One", (1, 0, 0, 1)),  # as they stand
        ("one two", "", (0, 2, 0, 2)),
        ("", "one two", (0, 0, 2, 0)),
        ("", "", (0, 0, 0, 0)),
    ],
)
def test_words(reference, hypothesis, counts):
    assert word_errors(reference, hypothesis) == ErrorCounts(*counts)


def test_characters():
    assert character_errors("the cat", "the hat") == (1, 0, 0, 7)
    assert character_errors("the cat", "thecats") == (0, 1, 1, 7)  # a space is a character
    assert character_errors(" the   cat ", "the cat") == (0, 0, 0, 7)  # no second one is
    assert character_errors("", "") == (0, 0, 0, 0)


@given(words, words)
def test_the_fewest_errors(reference, hypothesis):
    for count, split in ((word_errors, str.split), (character_errors, list)):
        counts = count(reference, hypothesis)
        assert counts.errors == distance(split(reference), split(hypothesis))
        assert counts.reference == len(split(reference))
        assert counts.insertions - counts.deletions == len(split(hypothesis)) - len(split(reference))


def test_rates_of_sums():
    assert ErrorCounts(1, 2, 3, 12).errors == 6 and ErrorCounts(1, 2, 3, 12).rate == 0.5
    assert ErrorCounts(0, 0, 3, 2).rate == 1.5
    assert math.isnan(ErrorCounts(0, 0, 0, 0).rate) and ErrorCounts(0, 0, 1, 0).rate == math.inf
    summed = total([ErrorCounts(1, 0, 0, 1), ErrorCounts(0, 2, 3, 9)])
    assert summed == ErrorCounts(1, 2, 3, 10) and isinstance(summed, ErrorCounts) and type(summed.errors) is int
    assert total(iter([])) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well-known, isn\u2019t it?", "well known isn't it"),
        ("'Tis  the dogs' o'clock", "tis the dogs o'clock"),
        ("rock 'n' roll... \n(AGAIN)", "rock n roll again"),
        ("He paid $3.50; 100%!", "he paid 3 50 100"),
        ("cafe\u0301 CAFÉ", "café café"),
        ("snake_case", "snake case"),
        ("हिन्दी", "हिन्दी"),  # vowel signs are combining marks
        (" ,.' ", ""),
        ("", ""),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


@given(st.text(max_size=30) | sentences)
def test_plain_of_plain_is_the_same(text):
    once = plain(text)
    assert plain(once) == once == once.lower() and once.split(" ") == (once.split() or [""])


def test_case():
    assert case_errors("The cat, said Ann.", "the Cat said Ann") == (2, 0, 0, 4)
    # a wrong word and one left out have no case; nor does punctuation
    assert case_errors("The cat sat on Ann.", "The bat SAT, Ann") == (1, 0, 0, 3)
    assert case_errors("the cat", "The, big, cat") == (1, 0, 0, 2)
    assert case_errors("McKay went", "Mckay went") == (1, 0, 0, 2)
    assert case_errors("yes", "no") == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("Yes, I go. Now!", "yes, i go. now!", (0, 0, 0, 3)),  # case is not punctuation
        ("Yes, I go. Now!", "yes I go? now.,", (2, 1, 1, 3)),
        ("Yes, I go.", "Yes I, go.", (0, 1, 1, 2)),  # in the wrong place
        ("Yes, I go.", "No, we go.", (0, 0, 0, 2)),  # after a wrong word
        ("a, b c", "x y, c", (0, 1, 1, 1)),  # wrong words hold marks apart too
        ("hello, world.", "hello.", (0, 1, 0, 2)),  # after a word that is left out
        ("hello.", "hello, world.", (0, 0, 1, 1)),
        ("Yes.", "?Yes.", (0, 0, 1, 1)),  # before the first word
        ('"Well-known" (so he said)', "well known, so he said", (0, 0, 1, 0)),  # quotes, brackets and hyphens
        ("It is 3.5, or 10:30.", "It is 3 5, or 10 30.", (0, 0, 0, 2)),  # marks within numbers
        ("Yes,9 times; 9.Yes", "yes 9 times 9 yes", (0, 3, 0, 3)),  # and beside them
        ("one. two?", "", (0, 2, 0, 2)),
        ("", "one. two?", (0, 0, 2, 0)),
        ("no", "marks", (0, 0, 0, 0)),
    ],
)
def test_punctuation(reference, hypothesis, counts):
    assert punctuation_errors(reference, hypothesis) == ErrorCounts(*counts)


@given(sentences, sentences)
def test_what_differs_in_case_and_punctuation_alone_has_no_word_errors(text, other):
    assert case_errors(text, text).errors == punctuation_errors(text, text).errors == 0
    assert case_errors(text, text).reference == len(plain(text).split())
    assert punctuation_errors(text, other).reference == punctuation_errors(text, "").deletions
    there, back = punctuation_errors(text, other), punctuation_errors(other, text)
    assert there.insertions - there.deletions == back.reference - there.reference
    shouted = text.upper()
    assert case_errors(text, shouted).reference == len(plain(text).split())
    assert punctuation_errors(text, shouted).errors == 0 == word_errors(plain(text), plain(shouted)).errors


def test_normalisers(monkeypatch):
    assert normaliser("none")("A, b") == "A, b" and normaliser("plain") is plain
    with pytest.raises(ConfigError, match="'plane' is none of none, plain, whisper"):
        normaliser("plane")
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(ConfigError, match=r'whisper-normalizer: pip install "nemojax\[experiments\]"'):
        normaliser("whisper")


def test_whispers_normaliser():
    pytest.importorskip("whisper_normalizer", reason="whisper-normalizer is in the extra `experiments`")
    assert normaliser("whisper")("Mr. Park's colour: twenty-five") == "mister park is color 25"


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
    # ten speakers, each always right or always wrong: what is known is ten trials, not a thousand
    counts = [ErrorCounts(speaker % 2, 0, 0, 1) for speaker in range(10) for _ in range(100)]
    speakers = [f"speaker {speaker}" for speaker in range(10) for _ in range(100)]
    low, high = bootstrap_interval(counts, blocks=speakers)
    assert low == pytest.approx(0.2, abs=0.1) and high == pytest.approx(0.8, abs=0.1)
    alone = bootstrap_interval(counts)
    assert alone[1] - alone[0] < 0.07
    with pytest.raises(ValueError, match="1000 utterances have 3 blocks"):
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
    # sets without a word are passed over
    assert bootstrap_interval([ErrorCounts(1, 0, 0, 2), ErrorCounts(0, 0, 0, 0)]) == (0.5, 0.5)
    with pytest.raises(ValueError, match=r"confidence must be between 0 and 1, not 95\.0"):
        bootstrap_interval([ErrorCounts(0, 0, 0, 5)] * 20, confidence=95.0)


def test_systems_are_compared_on_the_same_utterances():
    first = coin(0.3, 500, seed=1)
    # a small step, never back: pairing sees what two intervals do not
    better = [c._replace(substitutions=0) if c.errors and i % 8 == 0 else c for i, c in enumerate(first)]
    found = compare(first, better)
    assert found.difference == total(better).rate - total(first).rate < 0
    assert found.low < found.difference < found.high < 0 and found.p_value < 0.01
    assert bootstrap_interval(first)[0] < bootstrap_interval(better)[1]
    assert compare(better, first).difference == -found.difference
    assert compare(better, first).p_value == found.p_value
    same = compare(first, first)
    assert same == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="not scored on the same utterances"):
        compare(first, first[1:])
    with pytest.raises(ValueError, match="not scored on the same utterances"):
        compare(first, [c._replace(reference=2) for c in first])
    assert math.isnan(compare([], []).p_value)


def test_p_values_are_those_of_chance():
    """Where two systems are equally good, a p value below 0.1 comes up one time in ten."""
    values = [compare(coin(0.3, 200, 2 * s), coin(0.3, 200, 2 * s + 1), resamples=200).p_value for s in range(200)]
    assert 0.05 < np.mean(np.asarray(values) < 0.1) < 0.16
    assert 0.35 < np.mean(np.asarray(values) < 0.5) < 0.65
