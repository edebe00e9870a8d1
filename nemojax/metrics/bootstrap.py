"""Confidence intervals of error rates, and the significance of a difference, by resampling the utterances.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", 2004.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from nemojax.metrics.error_counts import ErrorCounts, total

DRAWN_AT_ONCE = 1_000_000  # utterances, to bound the memory


class Comparison(NamedTuple):
    """A difference of two rates, the second system's less the first's, with its interval and its p value."""

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_interval(
    counts: Sequence[ErrorCounts],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    blocks: Sequence[Hashable] | None = None,
) -> tuple[float, float]:
    """Returns the confidence interval of the rate of `total(counts)`: percentiles over sets drawn with replacement.

    Args:
      counts: one per utterance.
      confidence: probability of the interval, between 0 and 1.
      resamples: number of sets to draw.
      seed: seed of the draws.
      blocks: for each utterance, the block that it is drawn together with: its speaker, for example, since utterances
        of one speaker are not independent. By default every utterance is its own block.

    Returns:
      Low and high; nan if all references are empty, or there is only one utterance or one block.
    """
    rates = _resampled_rates([counts], resamples, seed, blocks)
    return _interval(rates[:, 0] if rates is not None else None, confidence)


def compare(
    first: Sequence[ErrorCounts],
    second: Sequence[ErrorCounts],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    blocks: Sequence[Hashable] | None = None,
) -> Comparison:
    """Compares two systems on the same utterances with a paired bootstrap: both are scored on each drawn set.

    The p value is two-sided: twice the fraction of sets in which the difference is zero or has the other sign, where
    the original set counts as one of the sets; never above 1. The other arguments are those of `bootstrap_interval`.

    Raises:
      ValueError: the systems were not scored on the same references.
    """
    if [c.reference for c in first] != [c.reference for c in second]:
        raise ValueError("the two systems were not scored on the same utterances: their references differ in size")
    difference = total(second).rate - total(first).rate
    rates = _resampled_rates([first, second], resamples, seed, blocks)
    if rates is None:
        return Comparison(difference, math.nan, math.nan, math.nan)
    differences = rates[:, 1] - rates[:, 0]
    other = min((differences >= 0).sum(), (differences <= 0).sum())
    p_value = float(min(1.0, 2 * (other + 1) / (len(differences) + 1)))
    return Comparison(difference, *_interval(differences, confidence), p_value)


def _resampled_rates(
    systems: Sequence[Sequence[ErrorCounts]], resamples: int, seed: int, blocks: Sequence[Hashable] | None
) -> np.ndarray | None:
    """Returns the rates of the systems on drawn sets, [resamples, systems]; None if there is nothing to draw from."""
    names = list(range(len(systems[0]))) if blocks is None else list(blocks)
    if any(len(counts) != len(names) for counts in systems):
        raise ValueError(f"{len(systems[0])} utterances have {len(names)} blocks")
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    table = np.zeros((len(number), 1 + len(systems)), np.int64)  # per block: reference, errors of each system
    rows = [number[name] for name in names]
    for column, counts in enumerate(systems, 1):
        np.add.at(table[:, column], rows, [c.errors for c in counts])
    np.add.at(table[:, 0], rows, [c.reference for c in systems[0]])
    if len(table) < 2:
        return None
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // len(table))  # resamples
    drawn = [min(at_once, resamples - begin) for begin in range(0, resamples, at_once)]
    sums = np.concatenate([table[rng.integers(len(table), size=(n, len(table)))].sum(1) for n in drawn])
    sums = sums[sums[:, 0] > 0]
    rates: np.ndarray = sums[:, 1:] / sums[:, :1]
    return rates if len(sums) else None


def _interval(rates: np.ndarray | None, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    if rates is None:
        return math.nan, math.nan
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
