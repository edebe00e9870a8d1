"""Scores of transcripts:

normalization.py  forms of a text: words and punctuation marks apart
error_counts.py   errors in words, characters, case and punctuation
bootstrap.py      confidence intervals, and the significance of a difference
set_scores.py     word and character error rates of a set, as JSON and as a table

Errors are counted per utterance and added before they are divided, so a rate is that of the whole set. Words and
characters are compared as they are: bring both texts to one form first, with `plain` or another `normalizer`.
"""

from nemojax.metrics.bootstrap import Comparison, bootstrap_interval, compare
from nemojax.metrics.error_counts import (
    ErrorCounts,
    case_errors,
    character_errors,
    punctuation_errors,
    total,
    word_errors,
)
from nemojax.metrics.normalization import MARKS, normalizer, plain, without_events

__all__ = [
    "MARKS",
    "Comparison",
    "ErrorCounts",
    "bootstrap_interval",
    "case_errors",
    "character_errors",
    "compare",
    "normalizer",
    "plain",
    "punctuation_errors",
    "total",
    "without_events",
    "word_errors",
]
