"""Errors listed by word: what was recognized in place of what, how often, and where it can be listened to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

from experiments.harness.rows import Row
from nemojax.metrics import plain

KINDS = {"replace": "substitution", "delete": "deletion", "insert": "insertion"}
PLACES = 20  # of an error, at most


class Shown(NamedTuple):
    """A recognized word in the form of `plain`, and when its first label was emitted; None where that is not known."""

    word: str
    at_s: float | None


class Edit(NamedTuple):
    """An error: the word of the reference, the recognized one ("" where there is none), and its place."""

    kind: str
    reference: str
    recognized: str
    at_s: float | None


def shown_words(words: Iterable[tuple[str, float | None]]) -> list[Shown]:
    """Returns words and their times in the form of `plain`; a word may become several, or none."""
    return [Shown(part, at_s) for text, at_s in words for part in plain(text).split()]


def edits(reference: str, recognized: Sequence[Shown]) -> Iterator[Edit]:
    """Yields the errors of an utterance, with the fewest errors. A deletion has the time of the word before it."""
    expected = plain(reference).split()
    for block in Levenshtein.opcodes(expected, [one.word for one in recognized]):
        if block.tag == "equal":
            continue
        source, target = range(block.src_start, block.src_end), range(block.dest_start, block.dest_end)
        for place in range(max(len(source), len(target))):
            want = expected[source[place]] if place < len(source) else ""
            got = recognized[target[place]] if place < len(target) else None
            before = recognized[block.dest_start - 1].at_s if block.dest_start else 0.0
            yield Edit(KINDS[block.tag], want, got.word if got else "", got.at_s if got else before)


def by_word(found: Iterable[tuple[str, Edit]]) -> list[Row]:
    """Sums up errors, given with the name of their recording; the most frequent first.

    Each has at most 20 places: the recording, and the seconds from its beginning.
    """
    places: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for name, edit in found:
        at_s = None if edit.at_s is None else round(edit.at_s, 2)
        places[edit.kind, edit.reference, edit.recognized].append({"audio": name, "at_s": at_s})
    ordered = sorted(places.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        {"kind": kind, "reference": want, "recognized": got, "count": len(where), "places": where[:PLACES]}
        for (kind, want, got), where in ordered
    ]
