"""Phrases that are expected, as people write them: their spellings as labels, and files of them."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import NamedTuple

from nemojax.errors import ConfigError, shown
from nemojax.text.segmentations import Segmentations
from nemojax.text.tokenizer import Tokenizer

Phrase = str | tuple[str, float]
Phrases = Sequence[Phrase] | Mapping[str, float]
DEFAULT_BOOST = 1.0
LEAST_BOOST, MOST_BOOST = 0.1, 5.0  # clients send what was right for other searches, up to 100
MARKS = frozenset("-–—/'’\"“‘([{«¿¡")  # noqa: RUF001  of punctuation that words follow without a space
CLASS = re.compile(r"\$[A-Z][A-Z_]*")  # a class of words, which other recognizers know
WORD_START = "▁"
MAX_LABELS = 63  # of a phrase; a search keeps the last 64, of which one may be a mark before the phrase
NAMED = 3  # phrases in the message of an error


class Spelling(NamedTuple):
    """A phrase as labels, and its boost."""

    labels: tuple[int, ...]
    boost: float
    after_mark: bool  # it does not begin a word as the tokenizer sees it: it counts after a mark of punctuation alone
    own_length: int  # labels of the tokenizer's own segmentation: no other one scores more


def checked(phrases: Phrases) -> tuple[tuple[str, float], ...]:
    """Returns phrases with their boosts, which are limited to 0.1 to 5; without a boost a phrase has 1.

    Empty phrases and classes of words such as `$DATE` are left out.

    Raises:
      ConfigError: something is not a phrase, or a boost is not a number.
    """
    if isinstance(phrases, str | bytes) or not isinstance(phrases, Iterable):
        raise ConfigError(f"phrases must be a list of phrases, not {shown(repr(phrases), 80)}")
    given = phrases.items() if isinstance(phrases, Mapping) else phrases
    return tuple(dict.fromkeys(_checked(each) for each in given if not _is_skipped(each)))


def _is_skipped(phrase: object) -> bool:
    text = phrase[0] if isinstance(phrase, tuple | list) and phrase else phrase
    return isinstance(text, str) and (not text.strip() or CLASS.fullmatch(text.strip()) is not None)


def _checked(phrase: object) -> tuple[str, float]:
    text, boost = (phrase, DEFAULT_BOOST) if isinstance(phrase, str) else _pair(phrase)
    if not isinstance(text, str):
        raise ConfigError(f"a phrase is a text, or a text and its boost, not {shown(repr(phrase), 80)}")
    if isinstance(boost, bool) or not isinstance(boost, Real) or math.isnan(boost):
        raise ConfigError(f"the boost of the phrase {shown(repr(text), 80)} must be a number, not {shown(boost, 80)}")
    return " ".join(text.split()), min(max(float(boost), LEAST_BOOST), MOST_BOOST)


def _pair(phrase: object) -> tuple[object, object]:
    return (phrase[0], phrase[1]) if isinstance(phrase, tuple | list) and len(phrase) == 2 else (None, None)


def marks(tokenizer: Tokenizer) -> dict[int, str]:
    """Returns the labels of marks of punctuation that words follow without a space."""
    pieces = {label: tokenizer.piece(label).removeprefix(WORD_START) for label in range(tokenizer.size)}
    return {label: piece for label, piece in pieces.items() if piece in MARKS}


def spellings(tokenizer: Tokenizer, phrases: Sequence[tuple[str, float]]) -> list[Spelling]:
    """Returns the spellings of phrases: as given, in lower case, with a capital, in capitals, each also after a mark.

    Each is there in the tokenizer's segmentation and in a few others.

    Raises:
      ConfigError: the tokenizer lacks pieces for all spellings of a phrase, or a phrase is too long.
    """
    mark = next(iter(marks(tokenizer).values()), None)
    segmentations = Segmentations(tokenizer)
    found: list[Spelling] = []
    lacking: list[str] = []

    def add(labels: tuple[int, ...], boost: float, after_mark: bool) -> None:
        for segmentation in segmentations.of(labels):
            if len(segmentation) <= MAX_LABELS:
                found.append(Spelling(segmentation, boost, after_mark, len(labels)))

    for text, boost in phrases:
        cases = dict.fromkeys([text, text.lower(), text[:1].upper() + text[1:], text.upper()])
        known = [case for case in cases if not tokenizer.out_of_vocabulary(case)]
        if not known:
            parts = ", ".join(dict.fromkeys(part.strip(WORD_START) for part in tokenizer.out_of_vocabulary(text)))
            lacking.append(f"{shown(repr(text), 80)} ({shown(parts, 40)})")
        for case in known:
            labels = tuple(tokenizer.encode(case))
            if len(labels) > MAX_LABELS:
                raise ConfigError(
                    f"the phrase {shown(repr(text), 80)} has {len(labels)} pieces; a phrase has at most {MAX_LABELS}"
                )
            add(labels, boost, False)
            if mark is not None and (after := _after_mark(tokenizer, mark, case)) is not None:
                add(after, boost, True)
    if lacking:
        others = f" and {len(lacking) - NAMED} others" if len(lacking) > NAMED else ""
        raise ConfigError(
            f"the model's tokenizer has no pieces for parts of the phrases {', '.join(lacking[:NAMED])}{others}; leave "
            "them out, or spell them with other characters"
        )
    return list(dict.fromkeys(found))


def _after_mark(tokenizer: Tokenizer, mark: str, text: str) -> tuple[int, ...] | None:
    """Returns the labels of a text right after a mark; None if the mark is no piece of its own there."""
    labels = tokenizer.encode(mark + text)
    for index, label in enumerate(labels[:2]):
        if tokenizer.piece(label).removeprefix(WORD_START) == mark:
            return tuple(labels[index + 1 :])
    return None


def read_phrases(path: Path) -> list[Phrase]:
    """Reads a file of phrases, one on each line, with a boost after a tab where it has one.

    Raises:
      ConfigError: the file can't be read, or a line is not as it should be; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not text in UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: it can't be read: {error.strerror or error}") from None
    return list(_lines(path, text))


def _lines(path: Path, text: str) -> Iterator[Phrase]:
    for number, line in enumerate(text.split("\n"), 1):
        phrase, *boosts = line.strip().split("\t")
        try:
            if boosts:
                (boost,) = boosts
                yield phrase, float(boost)
            else:
                yield phrase
        except ValueError:
            raise ConfigError(
                f"{path}: line {number}: a phrase and a tab are followed by its boost, a number, not "
                f"{shown(repr(' '.join(boosts)), 60)}"
            ) from None
