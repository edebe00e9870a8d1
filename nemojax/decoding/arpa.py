"""Reads n-gram language models in the ARPA format, as SRILM, KenLM and NeMo write them.

A model is over the pieces of a tokenizer. Its words are pieces as the tokenizer spells them, or labels as NeMo does:
label i is the character 100 + i, or the number i.
"""

import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nemojax.decoding.graphs import MAX_BACKOFFS
from nemojax.errors import LanguageModelError, shown

NEMO_OFFSET = 100  # of the character that stands for label 0
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
LEAST = -99.0  # log10 of a probability of 0, by convention
COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
SECTION = re.compile(r"\\(\d+)-grams:")
ArpaEntry = tuple[tuple[str, ...], float, float]  # words, log10 of their probability, log10 of their backoff


class NGrams(NamedTuple):
    """The n-grams of one order. The label of `<s>` is the number of labels; those with `</s>` or `<unk>` are left out.

    Neither is ever looked up: a stream has no last label before it ends, and every piece has a label.
    """

    labels: np.ndarray  # [M, order]
    scores: np.ndarray  # [M], natural logarithms of probabilities
    backoffs: np.ndarray  # [M], natural logarithms


class NGramModel(NamedTuple):
    """A language model of n-grams, those of order 1 first."""

    orders: list[NGrams]
    unknown: float  # natural logarithm of the probability of all labels together that have none of their own


def read_arpa(path: Path, pieces: Sequence[str]) -> NGramModel:
    """Reads an ARPA file, also gzipped. `pieces` are those of the tokenizer, in the order of labels.

    Raises:
      LanguageModelError: it can't be read or is not a model over these pieces; the message has the line.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        text = (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LanguageModelError(f"{path}: it is not text in UTF-8, as an ARPA file is") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise LanguageModelError(f"{path}: it is a damaged gzip file") from None
    except OSError as error:
        raise LanguageModelError(f"{path}: it can't be read: {error.strerror or error}") from None
    return _Reader(str(path), text, pieces).model()


class _Reader:
    """One pass over the lines of a file, which are counted from 1."""

    def __init__(self, path: str, text: str, pieces: Sequence[str]):
        self._path, self._pieces, self._number = path, pieces, 0
        # only these characters separate lines and words: others are spellings of labels
        self._lines = ((number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), 1))
        self._label: Callable[[str], int | None] = lambda word: None

    def _error(self, message: str) -> LanguageModelError:
        return LanguageModelError(f"{self._path}: line {self._number}: {message}")

    def _next(self) -> str:
        """Returns the next line that is not empty."""
        for number, line in self._lines:
            self._number = number
            if line:
                return line
        raise self._error("the file ends without \\end\\; it is cut short, or not an ARPA file")

    def model(self) -> NGramModel:
        while self._next() != "\\data\\":
            pass
        counts: list[int] = []
        while match := COUNT.fullmatch(line := self._next()):
            order, count = int(match[1]), int(match[2])
            if order != len(counts) + 1 or order > MAX_BACKOFFS:
                raise self._error(f"orders must be 1, 2, ... up to {MAX_BACKOFFS}, not {order} here")
            counts.append(count)
        if not counts:
            raise self._error("a line such as ngram 1=1000 must follow \\data\\")
        orders, unknown = [], LEAST
        for order, count in enumerate(counts, 1):
            section = SECTION.fullmatch(line)
            if section is None or int(section[1]) != order:
                raise self._error(f"\\{order}-grams: must be here, not {shown(line, 60)}")
            entries, line = self._entries(order, order == len(counts))
            if len(entries) != count:
                raise self._error(f"there are {len(entries)} {order}-grams, and \\data\\ says {count}")
            if order == 1:
                self._label = self._spelling([words[0] for _, words, _, _ in entries])
                unknown = next((score for _, words, score, _ in entries if _is_unknown(words[0])), LEAST)
            after = self._number
            orders.append(self._labeled(entries, order))
            self._number = after
        if line != "\\end\\":
            raise self._error(f"\\end\\ must be here, not {shown(line, 60)}")
        return NGramModel(orders, max(unknown, LEAST) * math.log(10))

    def _entries(self, order: int, is_last: bool) -> tuple[list[tuple[int, list[str], float, float]], str]:
        """Returns the n-grams of a section with their lines and numbers, and the line after them."""
        entries = []
        while (line := self._next()) != "\\end\\" and not SECTION.fullmatch(line):
            fields = [field for field in line.replace("\t", " ").split(" ") if field]
            if not order + 1 <= len(fields) <= order + 2:
                raise self._error(
                    f"a {order}-gram has a probability, {order} word{'s' * (order > 1)} and perhaps a backoff, not "
                    f"{len(fields)} columns"
                )
            score, backoff = self._float(fields[0]), self._float(fields[-1]) if len(fields) == order + 2 else 0.0
            if score > 0:
                raise self._error(f"the logarithm of a probability is at most 0, not {fields[0]}")
            entries.append((self._number, fields[1 : order + 1], score, 0.0 if is_last else backoff))
        return entries, line

    def _float(self, field: str) -> float:
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if math.isnan(value) or value == math.inf:
            raise self._error(f"{shown(repr(field), 60)} is no logarithm of a probability or a backoff")
        return max(value, LEAST)

    def _spelling(self, words: list[str]) -> Callable[[str], int | None]:
        """Returns the spelling by which most of the words are labels: a function from a word to its label."""
        count, labels = len(self._pieces), {piece: label for label, piece in enumerate(self._pieces)}
        numbers = {str(label): label for label in range(count)}
        characters = {chr(NEMO_OFFSET + label): label for label in range(count)}
        spellings = [characters.get, labels.get, numbers.get]
        return max(spellings, key=lambda spelling: sum(spelling(word) is not None for word in words))

    def _labeled(self, entries: list[tuple[int, list[str], float, float]], order: int) -> NGrams:
        """Returns n-grams by their labels."""
        begin = len(self._pieces)
        labels: dict[tuple[int, ...], tuple[float, float]] = {}
        for self._number, words, score, backoff in entries:
            if END in words or any(map(_is_unknown, words)):
                continue
            found = tuple(begin if word == BEGIN else self._label(word) for word in words)
            if None in found:
                word = words[found.index(None)]
                raise self._error(
                    f"{shown(repr(word), 60)} is not a piece of the model's tokenizer; estimate the language model "
                    "over its pieces, with nemojax lm"
                )
            key = tuple(label for label in found if label is not None)
            if key in labels:
                raise self._error(f"the {order}-gram {shown(repr(' '.join(words)), 60)} is there twice")
            if begin not in key[1:]:
                labels[key] = score, backoff
        numbers = np.array(list(labels.values()), np.float64).reshape(-1, 2) * math.log(10)
        return NGrams(np.array(list(labels), np.int64).reshape(-1, order), numbers[:, 0], numbers[:, 1])


def _is_unknown(word: str) -> bool:
    return word.lower() == UNKNOWN


def write_arpa(path: Path, orders: Sequence[Sequence[ArpaEntry]]) -> None:
    """Writes an ARPA file of the entries of each order."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(_written(orders))


def _written(orders: Sequence[Sequence[ArpaEntry]]) -> Iterator[str]:
    yield "\\data\\\n"
    for order, entries in enumerate(orders, 1):
        yield f"ngram {order}={len(entries)}\n"
    for order, entries in enumerate(orders, 1):
        yield f"\n\\{order}-grams:\n"
        for words, score, backoff in entries:
            yield f"{score:.7f}\t{' '.join(words)}" + ("\n" if order == len(orders) else f"\t{backoff:.7f}\n")
    yield "\n\\end\\\n"
