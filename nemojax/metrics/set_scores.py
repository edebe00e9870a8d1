"""Word and character error rates of a set of utterances, as JSON and as a table."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemojax.metrics.bootstrap import bootstrap_interval
from nemojax.metrics.error_counts import ErrorCounts, character_errors, total, word_errors
from nemojax.metrics.normalization import plain

UNKNOWN = "-"  # a rate of empty references
COLUMNS = ("", "utterances", "failed", "words", "WER %", "95 % interval", "sub", "del", "ins", "characters", "CER %")


@dataclass
class SetScores:
    """The error counts of a set, utterance by utterance, and the number of recordings that could not be scored."""

    normalize: Callable[[str], str] = plain
    words: list[ErrorCounts] = field(default_factory=list)
    characters: list[ErrorCounts] = field(default_factory=list)
    failed: int = 0

    def add(self, reference: str, hypothesis: str) -> None:
        """Scores one utterance; both texts are normalized first."""
        texts = self.normalize(reference), self.normalize(hypothesis)
        self.words.append(word_errors(*texts))
        self.characters.append(character_errors(*texts))

    def summary(self) -> dict[str, Any]:
        """Returns the counts and rates of the set. A rate is a fraction, null where the references are empty."""
        words, characters = total(self.words), total(self.characters)
        return {
            "utterances": len(self.words),
            "failed": self.failed,
            "wer": _finite(words.rate),
            "wer_interval": [_finite(bound) for bound in bootstrap_interval(self.words)] if self.words else [None] * 2,
            "words": words._asdict(),
            "cer": _finite(characters.rate),
            "characters": characters._asdict(),
        }


def table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats summaries, by the names of their sets, as aligned columns; rates in percent."""
    rows: list[Sequence[str]] = [COLUMNS]
    for name, summary in summaries.items():
        words, characters = summary["words"], summary["characters"]
        edits = [words[kind] for kind in ("substitutions", "deletions", "insertions")]
        low, high = map(_percent, summary["wer_interval"])
        counts = [summary["utterances"], summary["failed"], words["reference"]]
        rates = [_percent(summary["wer"]), "none" if low == high == UNKNOWN else f"{low} to {high}"]
        rows.append((name, *map(str, [*counts, *rates, *edits, characters["reference"], _percent(summary["cer"])])))
    return "\n".join(_aligned(rows))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows as lines: the first column to the left, the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]


def _percent(rate: float | None) -> str:
    return UNKNOWN if rate is None else f"{100 * rate:.2f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
