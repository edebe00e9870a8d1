"""The words of labels, with their times and confidences: the one definition that all results share."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Word

# Punctuation that ends a word, a clause or a sentence. Where it comes late, the sound of the word has long ended.
CLOSING = frozenset(".,?!;:…)]}»”、。，．？！；：।؟،؛")  # noqa: RUF001


class Labels(NamedTuple):
    """Labels of a stream in their order, with one value for each."""

    tokens: list[int]
    frames: list[int]  # encoder frames
    confidences: list[float]  # 0 to 1

    def append(self, token: int, frame: int, confidence: float) -> None:
        """Appends one label."""
        self.tokens.append(token)
        self.frames.append(frame)
        self.confidences.append(confidence)

    def copied(self) -> "Labels":
        """Returns the same labels in lists of their own."""
        return Labels(list(self.tokens), list(self.frames), list(self.confidences))


def is_closing(text: str) -> bool:
    """Returns whether a text is punctuation that belongs to what is before it."""
    shown = text.strip(" ")
    return bool(shown) and CLOSING.issuperset(shown)


def frame_time_s(frame: int, frame_ms: float) -> float:
    """Returns when a frame begins, in seconds."""
    return round(frame * frame_ms / 1000, 3)


def timed_words(
    tokenizer: Tokenizer,
    labels: Labels,
    frame_ms: float,
    duration_s: float,
    of_word: Callable[[Sequence[float]], float] = min,
) -> tuple[Word, ...]:
    """Returns the words of labels.

    A word ends with its last label that is not closing punctuation: a full stop may come seconds later.

    Args:
      duration_s: of the recording, where its last word ends at the latest; infinite if it is not known.
      of_word: gives the confidence of a word from those of its labels, punctuation included.
    """

    longest_s = duration_s if math.isinf(duration_s) else round(duration_s, 3)

    def word(text: str, first: int, last: int) -> Word:
        visible = [i for i in range(first, last + 1) if not tokenizer.is_silent(labels.tokens[i])]
        unpunctuated = [i for i in visible if not is_closing(tokenizer.continuation(labels.tokens[i]) or "")]
        end_s = frame_time_s(labels.frames[max(unpunctuated, default=last)] + 1, frame_ms)
        return Word(
            text,
            start_s=frame_time_s(labels.frames[first], frame_ms),
            end_s=min(end_s, longest_s),
            confidence=round(of_word([labels.confidences[i] for i in visible]), 4),
        )

    return tuple(word(*part) for part in tokenizer.words(labels.tokens))
