"""Inverse text normalization of English: "twenty four percent" becomes "24%", with the times of its words.

wetext has the grammars, which know words in lower case without punctuation. So the words between two marks of
punctuation are normalized together, in lower case; words that no rule changes keep their form, and a mark stays at the
end of what its word became. What several words became has the start of the first and the end of the last one.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from nemojax.errors import ConfigError
from nemojax.text.transcript import Transcript, Utterance, Word
from nemojax.text.words import is_closing

MISSING = 'inverse text normalization needs wetext, which is not installed: pip install "nemojax[itn]"'
PLAIN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")  # what the grammars take: letters and digits  # noqa: RUF001
MAX_WORDS = 30  # normalized together; a text without punctuation is cut there


class InverseNormalizer:
    """Writes numbers, dates, times, amounts of money and the like as people write them.

    Raises:
      ConfigError: wetext is not installed.
    """

    def __init__(self) -> None:
        try:
            from wetext import Normalizer
        except ImportError:
            raise ConfigError(MISSING) from None
        self._normalizer: Any = Normalizer(lang="en", operator="itn")

    def transcript(self, transcript: Transcript) -> Transcript:
        """Returns a transcript with its text, its words and its utterances normalized; its labels stay."""
        words = self.words(transcript.words)
        utterances = tuple(map(self.utterance, transcript.utterances))
        return replace(transcript, text=text_of(words), words=words, utterances=utterances)

    def utterance(self, utterance: Utterance) -> Utterance:
        """Returns an utterance with its text and its words normalized."""
        words = self.words(utterance.words)
        return replace(utterance, text=text_of(words), words=words)

    def words(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """Returns normalized words; one that came of several has the least of their confidences."""
        found: list[Word] = []
        changed = False  # whether the last word of `found` is new
        for run in _runs(words):
            cores = [_parts(word.text)[1] for word in run]
            if not all(cores):  # a mark of punctuation alone, or what the grammars do not take
                if changed and len(run) == 1 and is_closing(run[0].text):
                    found[-1] = replace(found[-1], text=found[-1].text + run[0].text)
                else:
                    found += run
                changed = False
                continue
            for first, end, written in self._spans(cores):
                changed = written is not None
                found += run[first:end] if written is None else _written(run[first:end], written)
        return tuple(found)

    def _spans(self, cores: Sequence[str]) -> Iterator[tuple[int, int, str | None]]:
        """Yields for each span of words its first, its end, and what it becomes; None for words that stay."""
        lower = [core.lower().replace("-", " ") for core in cores]  # "twenty-one" too
        text, begins = " ".join(lower), {0: 0}  # the word that begins at each place in `text`
        for number, core in enumerate(lower, 1):
            begins[max(begins) + len(core) + 1] = number
        place = 0
        same = self._normalizer.normalize(text) == text  # in a tenth of the time that the spans take
        for change in () if same else self._normalizer.normalize_with_mapping(text).mappings:
            first, end = begins.get(change.input_start), begins.get(change.input_end + 1)
            if first is None or end is None:  # a part of a word, as in "two-year-old"
                continue
            if place < first:
                yield place, first, None
            yield first, end, change.output_text
            place = end
        if place < len(cores):
            yield place, len(cores), None


def text_of(words: Sequence[Word]) -> str:
    """Returns the text of words."""
    return " ".join(word.text for word in words)


def _parts(text: str) -> tuple[str, str, str]:
    """Returns a word in three parts: marks before it, what the grammars take, marks after it; no second one if none."""
    match = PLAIN.search(text)
    if match is None or any(char.isalnum() for char in text[match.end() :]):
        return text, "", ""
    return text[: match.start()], match[0], text[match.end() :]


def _runs(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Yields the words that are normalized together: between marks of punctuation; others one by one."""
    run: list[Word] = []
    for word in words:
        before, core, after = _parts(word.text)
        if run and (before or not core or len(run) == MAX_WORDS):
            yield run
            run = []
        run.append(word)
        if after or not core:
            yield run
            run = []
    if run:
        yield run


def _written(words: Sequence[Word], written: str) -> list[Word]:
    """Returns what words become, with the marks of the first and the last one, in the case of the first.

    Where they become several words, such as "2:30 p.m.", these share the time by their characters.
    """
    before, core, _ = _parts(words[0].text)
    after = _parts(words[-1].text)[2]
    written = written.strip().replace(" %", "%")
    if core[:1].isupper() and written[:1].islower():
        written = written[0].upper() + written[1:]
    if after.startswith(".") and written.endswith("."):
        after = after[1:]
    text, confidence = before + written + after, min(word.confidence for word in words)
    start_s, length_s = words[0].start_s, words[-1].end_s - words[0].start_s
    at = lambda place: round(start_s + length_s * place / len(text), 3)
    parts = [(match[0], match.start(), match.end()) for match in re.finditer(r"\S+", text)]
    return [Word(part, at(begin), at(end), confidence) for part, begin, end in parts]
