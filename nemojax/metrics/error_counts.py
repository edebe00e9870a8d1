"""Errors of a hypothesis against a reference transcript: in words, characters, case and punctuation."""

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from nemojax.metrics.normalization import MARKS, tokens, words


class ErrorCounts(NamedTuple):
    """The edits that turn the reference into the hypothesis, and the size of the reference. `total` adds them."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int  # words, characters or marks

    @property
    def errors(self) -> int:
        """Number of edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; above 1 with many insertions.

        Of an empty reference it is nan without errors, as nothing was measured, and infinity with errors.
        """
        if self.reference:
            return self.errors / self.reference
        return math.inf if self.errors else math.nan


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Adds counts, field by field; the sum of none is zeros."""
    summed = np.asarray([*counts, (0, 0, 0, 0)], np.int64).sum(0)
    return ErrorCounts(*summed.tolist())


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts the fewest errors over the words between spaces.

    If several alignments have the fewest errors, rapidfuzz chooses one, always the same; the choice only affects the
    division into substitutions, deletions and insertions.
    """
    return _errors(reference.split(), hypothesis.split())


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts the fewest errors over characters. One space between words is a character; further spaces are ignored."""
    return _errors(" ".join(reference.split()), " ".join(hypothesis.split()))


def case_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts words in the wrong case among the words that are otherwise right.

    The words of `plain` are aligned in lower case, with the fewest errors. Of the pairs that are equal, `reference`
    counts all, and `substitutions` those that differ in the case of any letter; nothing else is counted.
    """
    expected, recognized = words(reference), words(hypothesis)
    pairs = [(expected[i], recognized[j]) for i, j in _aligned_pairs(expected, recognized)]
    equal = [(want, got) for want, got in pairs if want.lower() == got.lower()]
    return ErrorCounts(sum(want != got for want, got in equal), 0, 0, len(equal))


def punctuation_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Counts errors over the punctuation marks in `MARKS`; `reference` counts the marks of the reference.

    The words of `plain` are aligned as in `case_errors`. Marks between two neighboring pairs of aligned words are
    compared with the marks between the same two pairs in the other text, with the fewest errors; so are the marks
    before the first pair and after the last one. A mark between two digits belongs to a number and is not counted.
    """
    texts = list(tokens(reference)), list(tokens(hypothesis))
    word_at = [[i for i, token in enumerate(text) if token not in MARKS] for text in texts]
    pairs = _aligned_pairs(*([text[i] for i in at] for text, at in zip(texts, word_at, strict=True)))
    bounds = [(-1, -1), *((word_at[0][i], word_at[1][j]) for i, j in pairs), (len(texts[0]), len(texts[1]))]

    def marks_between(text: Sequence[str], begin: int, end: int) -> list[str]:
        return [token for token in text[begin + 1 : end] if token in MARKS]

    return total(
        _errors(marks_between(texts[0], a, b), marks_between(texts[1], c, d)) for (a, c), (b, d) in pairwise(bounds)
    )


def _errors(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> ErrorCounts:
    kinds = [operation.tag for operation in Levenshtein.editops(reference, hypothesis)]
    return ErrorCounts(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"), len(reference))


def _aligned_pairs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the positions of the words that are aligned, equal except for case or substituted, in order."""
    lower = [[word.lower() for word in text] for text in (reference, hypothesis)]
    pairs: list[tuple[int, int]] = []
    for block in Levenshtein.opcodes(*lower):
        if block.tag in ("equal", "replace"):
            source, destination = (block.src_start, block.src_end), (block.dest_start, block.dest_end)
            pairs += zip(range(*source), range(*destination), strict=True)
    return pairs
