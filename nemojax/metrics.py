"""How wrong transcripts are: word and character errors, case and punctuation apart, intervals and significance.

Errors are counted per utterance and summed before they are divided, so that a rate is that of the whole set.
Words and characters are counted as they stand: bring both texts to one form first, with `plain` or another
`normaliser`.
"""

import math
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from nemojax.errors import ConfigError

MARKS = ".,?!;:"  # what counts as punctuation; quotes, brackets and dashes do not


class ErrorCounts(NamedTuple):
    """What it takes to make the reference into the hypothesis, and the reference's size. Add with `total`."""

    substitutions: int
    deletions: int
    insertions: int
    reference: int

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of the reference; above 1 where insertions are many.

        Of an empty reference: nan without errors, since nothing was measured, and infinity with some.
        """
        if self.reference:
            return self.errors / self.reference
        return math.inf if self.errors else math.nan


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """The sum of some counts, field by field; of none, zeros."""
    summed = np.asarray([*counts, (0, 0, 0, 0)], np.int64).sum(0)
    return ErrorCounts(*summed.tolist())


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Over the words between spaces: the fewest errors.

    Where several ways have as few, how they divide into substitutions, deletions and insertions is rapidfuzz's
    choice, always the same.
    """
    return _errors(reference.split(), hypothesis.split())


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """As `word_errors`, over characters. One space between words counts as a character; others do not."""
    return _errors(" ".join(reference.split()), " ".join(hypothesis.split()))


def case_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Words in the wrong case, among those that are right but for it.

    The words of `plain` are aligned in lower case, in one of the ways with the fewest errors. Of the pairs that
    are equal, `reference` counts all and `substitutions` those whose case differs in any letter; nothing else
    is counted.
    """
    expected, said = _words(reference), _words(hypothesis)
    pairs = [(expected[i], said[j]) for i, j in _pairs(expected, said) if expected[i].lower() == said[j].lower()]
    return ErrorCounts(sum(want != got for want, got in pairs), 0, 0, len(pairs))


def punctuation_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Over the marks in `MARKS`, each a token after the word that it follows; `reference` counts the reference's.

    The words of `plain` are aligned as in `case_errors`: each is equal to one of the other text, or stands for
    one, or is alone. Marks between two neighbouring pairs are compared with
    those between the same two in the other text, again with the fewest errors; so are those before the first
    pair and after the last. A mark between two digits belongs to a number and is not counted.
    """
    expected, said = list(_tokens(reference)), list(_tokens(hypothesis))
    at = [[i for i, token in enumerate(tokens) if token not in MARKS] for tokens in (expected, said)]
    pairs = _pairs([expected[i] for i in at[0]], [said[i] for i in at[1]])
    bounds = [(-1, -1), *((at[0][i], at[1][j]) for i, j in pairs), (len(expected), len(said))]
    between = lambda tokens, begin, end: [token for token in tokens[begin + 1 : end] if token in MARKS]
    return total(_errors(between(expected, a, b), between(said, c, d)) for (a, c), (b, d) in pairwise(bounds))


# Forms of a text.


def plain(text: str) -> str:
    """Lower case, no punctuation, one space between words: the form in which word errors are usually counted.

    A word is a run of letters, digits and combining marks, with the apostrophes (' or ’) inside it; all other
    characters, hyphens and symbols too, only part words. "Well-known, isn’t it?" is "well known isn't it".
    """
    return " ".join(_words(text)).lower()


def normaliser(name: str) -> Callable[[str], str]:
    """The form of a text by its name: "none" (as it is), "plain", or "whisper" (Whisper's rules for English).

    Raises:
      ConfigError: there is none of this name, or the package that "whisper" needs is not installed.
    """
    if name == "whisper":
        try:
            from whisper_normalizer.english import EnglishTextNormalizer
        except ImportError:
            raise ConfigError(
                'the normaliser "whisper" needs the package whisper-normalizer: pip install "nemojax[experiments]"'
            ) from None
        return EnglishTextNormalizer()
    known: dict[str, Callable[[str], str]] = {"none": lambda text: text, "plain": plain}
    if name not in known:
        raise ConfigError(f"the normaliser {name!r} is none of {', '.join(known)}, whisper")
    return known[name]


def _tokens(text: str) -> Iterator[str]:
    """Words, in their case, and marks."""
    text = unicodedata.normalize("NFC", text.replace("\u2019", "'"))
    word = ""
    for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False):
        if _spells(character) or (character == "'" and _spells(before) and _spells(after)):
            word += character
            continue
        if word:
            yield word
        word = ""
        if character in MARKS and not (before.isdigit() and after.isdigit()):
            yield character
    if word:
        yield word


def _spells(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _words(text: str) -> list[str]:
    return [token for token in _tokens(text) if token not in MARKS]


# Edit distance.


def _errors(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> ErrorCounts:
    kinds = [operation.tag for operation in Levenshtein.editops(reference, hypothesis)]
    return ErrorCounts(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"), len(reference))


def _pairs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """The positions of words that are equal but for case, or stand for each other, in their order."""
    lower = [[word.lower() for word in words] for words in (reference, hypothesis)]
    pairs: list[tuple[int, int]] = []
    for block in Levenshtein.opcodes(*lower):
        if block.tag in ("equal", "replace"):
            source, destination = (block.src_start, block.src_end), (block.dest_start, block.dest_end)
            pairs += zip(range(*source), range(*destination), strict=True)
    return pairs


# What a rate is worth, from a finite set of utterances (Bisani and Ney, "Bootstrap estimates for confidence
# intervals in ASR performance evaluation", 2004).


class Comparison(NamedTuple):
    """The second system's rate less the first's, its interval, and how likely so large a difference is by chance."""

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
    """The interval of the rate of `total(counts)`: percentiles over sets drawn with replacement.

    Args:
      counts: one per utterance.
      confidence: the interval's probability, between 0 and 1.
      blocks: of each utterance, what it is drawn together with, its speaker for instance: utterances of one
        speaker are not independent. By default utterances are drawn by themselves.

    Returns:
      Low and high; nan where no reference has any unit, or there is one utterance or one block alone, which
      show no spread.
    """
    drawn = _resample([counts], resamples, seed, blocks)
    return _interval(drawn[:, 0] if drawn is not None else None, confidence)


def compare(
    first: Sequence[ErrorCounts],
    second: Sequence[ErrorCounts],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    blocks: Sequence[Hashable] | None = None,
) -> Comparison:
    """Whether two systems differ on the same utterances: a paired bootstrap, both on each set that is drawn.

    The p value is two-sided: twice the share of sets in which the difference is zero or of the other sign, the
    drawn sets and the original counted; never above 1. The other arguments are those of `bootstrap_interval`.

    Raises:
      ValueError: the systems were not scored on the same references.
    """
    if [c.reference for c in first] != [c.reference for c in second]:
        raise ValueError("the two systems were not scored on the same utterances: their references differ in size")
    difference = total(second).rate - total(first).rate
    drawn = _resample([first, second], resamples, seed, blocks)
    if drawn is None:
        return Comparison(difference, math.nan, math.nan, math.nan)
    differences = drawn[:, 1] - drawn[:, 0]
    other = min((differences >= 0).sum(), (differences <= 0).sum())
    return Comparison(
        difference, *_interval(differences, confidence), float(min(1.0, 2 * (other + 1) / (len(differences) + 1)))
    )


def _resample(
    systems: Sequence[Sequence[ErrorCounts]], resamples: int, seed: int, blocks: Sequence[Hashable] | None
) -> np.ndarray | None:
    """Rates of the systems on drawn sets, [resamples, systems]; None where there is nothing to draw from."""
    names = list(range(len(systems[0]))) if blocks is None else list(blocks)
    if any(len(counts) != len(names) for counts in systems):
        raise ValueError(f"{len(systems[0])} utterances have {len(names)} blocks")
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    table = np.zeros((len(number), 1 + len(systems)), np.int64)  # reference, errors of each system
    rows = [number[name] for name in names]
    for column, counts in enumerate(systems, 1):
        np.add.at(table[:, column], rows, [c.errors for c in counts])
    np.add.at(table[:, 0], rows, [c.reference for c in systems[0]])
    if len(table) < 2:
        return None
    rng = np.random.default_rng(seed)
    sums = np.stack([table[rng.integers(len(table), size=len(table))].sum(0) for _ in range(resamples)])
    sums = sums[sums[:, 0] > 0]
    return sums[:, 1:] / sums[:, :1] if len(sums) else None


def _interval(rates: np.ndarray | None, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    if rates is None:
        return math.nan, math.nan
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
