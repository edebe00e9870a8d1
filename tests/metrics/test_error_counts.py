import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemojax.metrics.error_counts import (
    ErrorCounts,
    case_errors,
    character_errors,
    punctuation_errors,
    total,
    word_errors,
)
from nemojax.metrics.normalization import plain

words = st.lists(st.sampled_from(["a", "b", "c", "the"]), max_size=8).map(" ".join)
sentences = st.text(alphabet="aAbé \u2019'-.,?!1 ", max_size=20)


def distance(reference, hypothesis):
    """Edit distance by its definition."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, 1):
        before, row = row, [i]
        for j, recognized in enumerate(hypothesis, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (expected != recognized)))
    return row[-1]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("bin blue at f two now", "bin blue at f two now", (0, 0, 0, 6)),
        ("bin blue at f two now", "bin blew at two now please", (1, 1, 1, 6)),
        ("  one   two ", "one\ttwo", (0, 0, 0, 2)),
        ("one", "One", (1, 0, 0, 1)),  # compared as they are
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
    assert character_errors(" the   cat ", "the cat") == (0, 0, 0, 7)  # a second space is not
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


def test_case():
    assert case_errors("The cat, says Ann.", "the Cat says Ann") == (2, 0, 0, 4)
    # substituted and missing words have no case; nor has punctuation
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
        ("Yes, I go.", "No, we go.", (0, 0, 0, 2)),  # after a substituted word
        ("a, b c", "x y, c", (0, 1, 1, 1)),  # substituted words separate marks too
        ("hello, world.", "hello.", (0, 1, 0, 2)),  # after a deleted word
        ("hello.", "hello, world.", (0, 0, 1, 1)),
        ("Yes.", "?Yes.", (0, 0, 1, 1)),  # before the first word
        ('"Well-known" (so he says)', "well known, so he says", (0, 0, 1, 0)),  # quotes, brackets and hyphens
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
def test_texts_that_differ_in_case_and_punctuation_alone_have_no_word_errors(text, other):
    assert case_errors(text, text).errors == punctuation_errors(text, text).errors == 0
    assert case_errors(text, text).reference == len(plain(text).split())
    assert punctuation_errors(text, other).reference == punctuation_errors(text, "").deletions
    there, back = punctuation_errors(text, other), punctuation_errors(other, text)
    assert there.insertions - there.deletions == back.reference - there.reference
    shouted = text.upper()
    assert case_errors(text, shouted).reference == len(plain(text).split())
    assert punctuation_errors(text, shouted).errors == 0 == word_errors(plain(text), plain(shouted)).errors
