"""Scores key words: the share of the spoken ones that is found, and how many are written that were not spoken.

A key word is one word or several, in the form of `plain`. Words of a reference and a transcript are aligned with the
fewest errors. A spoken key word is found where all of its words are aligned with equal ones, side by side. A key word
that is written, and that is not aligned with a spoken one, is a false alarm.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from experiments.accuracy.report import Bootstrap, finite
from experiments.harness.rows import Row
from nemojax.errors import ConfigError
from nemojax.metrics import ErrorCounts, bootstrap_interval, compare, plain, total
from nemojax.text.phrases import DEFAULT_BOOST, Phrase, read_phrases

KeyWord = tuple[str, ...]
PER_WORDS = 1000  # spoken words that false alarms are counted over


class KeyWords(NamedTuple):
    """Phrases with their boosts, as recognizers expect them, and the key words to count."""

    phrases: tuple[tuple[str, float], ...]
    words: frozenset[KeyWord]

    def boosted(self, factor: float) -> list[Phrase]:
        """Returns the phrases with their boosts times a factor."""
        return [(text, boost * factor) for text, boost in self.phrases]


def read_key_words(path: Path) -> KeyWords:
    """Reads a file of phrases, as `nemojax transcribe --phrases` does. Raises ConfigError."""
    pairs = [(each, DEFAULT_BOOST) if isinstance(each, str) else each for each in read_phrases(path)]
    words = frozenset(tuple(plain(text).split()) for text, _ in pairs) - {()}
    if not words:
        raise ConfigError(f"{path}: it has no key words; give one on each line")
    return KeyWords(tuple(pairs), words)


class KeyWordCounts(NamedTuple):
    """Key words of an utterance; `words` are all words of its reference."""

    spoken: int
    found: int
    false_alarms: int
    words: int

    @property
    def missed(self) -> ErrorCounts:
        """Spoken key words that were not found, of the spoken ones."""
        return ErrorCounts(0, self.spoken - self.found, 0, self.spoken)

    @property
    def alarms(self) -> ErrorCounts:
        """False alarms, of all words."""
        return ErrorCounts(0, 0, self.false_alarms, self.words)


def count(reference: str, hypothesis: str, key_words: Iterable[KeyWord]) -> KeyWordCounts:
    """Counts the key words of an utterance. A word may be part of several, each of which counts."""
    expected, recognized = plain(reference).split(), plain(hypothesis).split()
    aligned: dict[int, int] = {}  # positions of words that are right, in the reference and in the transcript
    for block in Levenshtein.opcodes(expected, recognized):
        if block.tag == "equal":
            aligned.update(
                zip(range(block.src_start, block.src_end), range(block.dest_start, block.dest_end), strict=True)
            )
    listed = set(key_words)
    spoken, written = _places(expected, listed), _places(recognized, listed)
    found = sum(
        all(aligned.get(begin + index, -1) == aligned.get(begin, -2) + index for index in range(size))
        for begin, size in spoken
    )
    return KeyWordCounts(len(spoken), found, len(written) - found, len(expected))


def _places(words: Sequence[str], key_words: set[KeyWord]) -> list[tuple[int, int]]:
    """Returns where key words begin, and their lengths in words."""
    return [
        (begin, size)
        for size in sorted({len(key_word) for key_word in key_words})
        for begin in range(len(words) - size + 1)
        if tuple(words[begin : begin + size]) in key_words
    ]


def summary(counts: Sequence[KeyWordCounts], first: Sequence[KeyWordCounts], bootstrap: Bootstrap) -> Row:
    """Returns recall and false alarms with intervals, and whether the recall differs from that of the first condition.

    The recall is a share of the spoken key words; false alarms are counted over 1,000 spoken words. Values that are not
    defined, such as the recall where no key word was spoken, are None.
    """
    missed, alarms = [one.missed for one in counts], [one.alarms for one in counts]
    settings = bootstrap.confidence, bootstrap.resamples, bootstrap.seed
    low, high = bootstrap_interval(missed, *settings)
    alarms_low, alarms_high = bootstrap_interval(alarms, *settings)
    change = compare([one.missed for one in first], missed, *settings)
    rate = total(missed).rate
    return {
        "spoken": total(missed).reference,
        "found": sum(one.found for one in counts),
        "recall": {"rate": finite(1 - rate), "low": finite(1 - high), "high": finite(1 - low)},
        "recall_difference": {
            "rate": finite(0.0 - change.difference),
            "low": finite(0.0 - change.high),
            "high": finite(0.0 - change.low),
        },
        "p_value": finite(change.p_value),
        "false_alarms": {
            "count": sum(one.false_alarms for one in counts),
            "per_1000_words": finite(PER_WORDS * total(alarms).rate),
            "low": finite(PER_WORDS * alarms_low),
            "high": finite(PER_WORDS * alarms_high),
        },
    }
