"""Estimates n-gram language models from text: interpolated Kneser-Ney with three discounts.

S. F. Chen, J. Goodman, "An empirical study of smoothing techniques for language modeling", 1998, section 3. The form is
that of backing off, which an ARPA file needs: the weight of a backoff is that of the interpolation.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from nemojax.decoding.arpa import BEGIN, END, LEAST, NEMO_OFFSET, ArpaEntry

FALLBACK = (0.5, 1.0, 1.5)  # discounts where there is too little text to estimate them

NGram = tuple[int, ...]
Counts = Counter[NGram]


def estimate(
    sentences: Iterable[Sequence[int]], labels: int, order: int, joined: bool = False
) -> list[list[ArpaEntry]]:
    """Returns the entries of an ARPA file, of each order, for sentences of labels, each below `labels`.

    Every label has a probability, also one that is in no sentence.

    Args:
      joined: a sentence also follows the one before it, as in a recording of several.
    """
    begin, end = labels, labels + 1
    counts = _counts(sentences, begin, end, order, joined)
    probabilities: list[dict[NGram, float]] = []  # of the n-grams of each order
    weights: list[dict[NGram, float]] = []  # of the backoffs of their contexts
    below: dict[NGram, float] = {(): 1 / (labels + 1)}  # every label and the end alike
    for length in range(1, order + 1):
        totals, discounted, left = _discounted(counts[length - 1])
        ngrams: list[NGram] = sorted(counts[length - 1])
        if length == 1:
            ngrams = [(label,) for label in [*range(labels), end]]
        below = {
            ngram: discounted.get(ngram, 0.0) / totals[ngram[:-1]] + left[ngram[:-1]] * below[ngram[1:]]
            for ngram in ngrams
        }
        probabilities.append(below)
        weights.append(left)
    words = [chr(NEMO_OFFSET + label) for label in range(labels)] + [BEGIN, END]
    backoffs = [*weights[1:], {}]
    backoff = lambda length, ngram: math.log10(backoffs[length - 1].get(ngram, 1.0))
    orders = [
        [
            (tuple(words[label] for label in ngram), math.log10(value), backoff(length, ngram))
            for ngram, value in each.items()
        ]
        for length, each in enumerate(probabilities, 1)
    ]
    orders[0].insert(0, ((BEGIN,), LEAST, backoff(1, (begin,))))
    return orders


def _counts(sentences: Iterable[Sequence[int]], begin: int, end: int, order: int, joined: bool) -> list[Counts]:
    """Returns the counts of n-grams of each order.

    Below the highest order it is in how many contexts an n-gram is, but for those at the beginning of a sentence, which
    have no other.
    """
    counts: list[Counts] = [Counter() for _ in range(order)]
    before: NGram = ()
    for sentence in sentences:
        padded = (begin, *sentence, end)
        for length in range(1, order + 1):
            counts[length - 1].update(_windows(padded, length))
            if joined and before and length > 1:
                counts[length - 1].update(_windows(before[1 - length :] + tuple(sentence[: length - 1]), length))
        before = padded[:-1] if len(padded) > 2 else before
    counts[0].pop((begin,), None)
    for length in range(order - 1, 0, -1):
        contexts = Counter(ngram[1:] for ngram in counts[length])
        begins = {ngram: count for ngram, count in counts[length - 1].items() if ngram[0] == begin}
        counts[length - 1] = Counter(contexts | begins)
    return counts


def _windows(labels: NGram, length: int) -> Iterator[NGram]:
    return (labels[first : first + length] for first in range(len(labels) - length + 1))


def _discounted(counts: Counts) -> tuple[dict[NGram, float], dict[NGram, float], dict[NGram, float]]:
    """Returns the sum of counts of each context, the discounted counts, and the weight that each context leaves."""
    discounts = (0.0, *_discounts(Counter(counts.values())))
    totals: dict[NGram, float] = defaultdict(float)
    left: dict[NGram, float] = defaultdict(float)
    discounted = {}
    for ngram, count in counts.items():
        discount = discounts[min(count, 3)]
        totals[ngram[:-1]] += count
        left[ngram[:-1]] += discount
        discounted[ngram] = count - discount
    return totals, discounted, {context: left[context] / total for context, total in totals.items()}


def _discounts(frequencies: Counter[int]) -> tuple[float, float, float]:
    """Returns the discounts of counts of 1, 2 and more, from how many n-grams have a count of 1, 2, 3 and 4."""
    one, two, three, four = (frequencies[count] for count in (1, 2, 3, 4))
    if not (one and two and three and four):
        return FALLBACK
    common = one / (one + 2 * two)
    found = (1 - 2 * common * two / one, 2 - 3 * common * three / two, 3 - 4 * common * four / three)
    return found if all(0 < discount <= count for count, discount in enumerate(found, 1)) else FALLBACK
