"""Decides frame by frame where the utterances of a stream end, from its labels and their frames alone.

The first label that shows a word begins an utterance. It ends at the first encoder frame at which nothing but blanks,
or a given share of them, has come for `silence_ms`, at an event such as `<EOU>`, or once it is `max_utterance_s` long.
So the decision depends neither on how the audio is cut nor on the look-ahead or the company in a batch, and silence
before the first word ends nothing. Nothing is reset: the labels of a stream are the same without it.

Punctuation that comes first after an end belongs to the utterance before. That one is then in `Update.amended`.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

from nemojax.checks import check_seconds
from nemojax.config import EVENTS
from nemojax.errors import ConfigError
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Utterance, Word
from nemojax.text.words import Labels, frame_time_s, is_closing

SILENCE, LENGTH, END = "silence", "length", "end"
DEFAULT_SILENCE_MS = 800.0
FRAME_MS = 80.0  # of the references' encoders
ROUNDING = 1e-6  # of frames: 0.98 of 50 frames are 49, not 49.000000000000004


@dataclass(frozen=True)
class EndOfUtterance:
    """When an utterance ends.

    Args:
      silence_ms: how long only blanks come; rounded up to whole encoder frames.
      max_utterance_s: an utterance ends after this time in any case, also between two words; None for no limit.
      marks: events that end an utterance, of models that have them.
      silence_share: the share of the last `silence_ms` that must be blank; 1 is all of it.
      early_ms: an earlier, uncertain end, reported once for each pause in `Update.early`; None for none. The utterance
        continues if more labels come.
      early_share: the share of the last `early_ms` that must be blank.
      start_ms, start_share: an utterance begins once this share of the last `start_ms` has labels; None for the first.

    Raises:
      ConfigError: a time is not a positive number, or a share is not more than 0 and at most 1.
    """

    silence_ms: float = DEFAULT_SILENCE_MS
    max_utterance_s: float | None = None
    marks: tuple[str, ...] = EVENTS
    silence_share: float = 1.0
    early_ms: float | None = None
    early_share: float = 1.0
    start_ms: float | None = None
    start_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("silence_ms", "early_ms", "start_ms"):
            if (value := getattr(self, name)) is not None:
                check_milliseconds(name, value)
        if self.max_utterance_s is not None:
            check_seconds("max_utterance_s", self.max_utterance_s, positive=True)
        for name, least in (("silence_share", 0), ("early_share", 0), ("start_share", -1)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least < value <= 1 or value < 0:
                raise ConfigError(f"{name} must be more than 0 and at most 1, not {value!r}")

    @classmethod
    def riva(
        cls,
        start_history: float | None = None,
        start_threshold: float | None = None,
        stop_history: float | None = None,
        stop_threshold: float | None = None,
        stop_history_eou: float | None = None,
        stop_threshold_eou: float | None = None,
    ) -> "EndOfUtterance":
        """Returns the settings of Riva's `EndpointingConfig`: milliseconds and shares.

        What is None, or 0 or less, is the default: 800 ms of blanks, no early end, and a beginning with the first
        label. `stop_threshold` is a share of blanks, as Riva's documentation has it.
        """
        given = lambda value, default=None: default if value is None or value <= 0 else value
        return cls(
            silence_ms=given(stop_history, DEFAULT_SILENCE_MS),
            silence_share=given(stop_threshold, 1.0),
            early_ms=given(stop_history_eou),
            early_share=given(stop_threshold_eou, 1.0),
            start_ms=given(start_history) if given(start_threshold) is not None else None,
            start_share=given(start_threshold, 0.0),
        )

    @classmethod
    def nemo(cls, stop_history_eou: float = DEFAULT_SILENCE_MS, residue_tokens_at_end: int = 2) -> "EndOfUtterance":
        """Returns the settings of NeMo's pipelines: of N + `residue_tokens_at_end` frames, more than N are blank.

        N is `stop_history_eou` in frames of 80 ms, rounded up.

        Raises:
          ConfigError: `stop_history_eou` is not more than 0. NeMo takes 0 for an end at each chunk, and less for none.
        """
        check_milliseconds("stop_history_eou", stop_history_eou)
        blanks = math.ceil(stop_history_eou / FRAME_MS - ROUNDING) + 1
        frames = max(blanks - 1 + residue_tokens_at_end, blanks)
        return cls(silence_ms=frames * FRAME_MS, silence_share=blanks / frames)


def check_milliseconds(name: str, value: Any) -> None:
    """Raises ConfigError for what is not a positive number of milliseconds."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= 1e12:
        raise ConfigError(f"{name} must be a positive number of milliseconds, not {value!r}")


class Window(NamedTuple):
    """The last frames of a stream, and how many of them may have labels."""

    frames: int
    allowed: int

    @classmethod
    def of(cls, milliseconds: float, share: float, frame_ms: float) -> "Window":
        """Returns the window in which a share of the frames must be blank."""
        frames = max(1, math.ceil(milliseconds / frame_ms - ROUNDING))
        return cls(frames, frames - max(1, math.ceil(share * frames - ROUNDING)))

    def due(self, begin: int, labeled: Sequence[int]) -> int:
        """Returns the first frame at which the window after `begin` is blank enough, if no label follows.

        `labeled` are the frames with labels so far, `begin` the first, in ascending order.
        """
        first = begin + self.frames
        return first if len(labeled) <= self.allowed else max(first, labeled[-1 - self.allowed] + self.frames)


class Ends(NamedTuple):
    """What was decided over some frames, in its order."""

    final: tuple[Utterance, ...] = ()  # that have ended
    amended: tuple[Utterance, ...] = ()  # that had ended, with the punctuation that came afterwards
    early: tuple[Utterance, ...] = ()  # that may have ended


NO_ENDS = Ends()


class Endpointer:
    """Decides where the utterances of one stream end.

    Args:
      words_of: makes words of labels that end at the latest after some seconds of the stream.
    """

    def __init__(
        self,
        settings: EndOfUtterance,
        tokenizer: Tokenizer,
        frame_ms: float,
        words_of: Callable[[Labels, float], tuple[Word, ...]],
    ):
        self._tokenizer, self._words_of, self._frame_ms = tokenizer, words_of, frame_ms
        self._marks = frozenset(settings.marks)
        self._silence = Window.of(settings.silence_ms, settings.silence_share, frame_ms)
        self._early = (
            None if settings.early_ms is None else Window.of(settings.early_ms, settings.early_share, frame_ms)
        )
        self._start = 1 if settings.start_ms is None else max(1, math.ceil(settings.start_ms / frame_ms - ROUNDING))
        self._start_labeled = max(1, math.ceil(settings.start_share * self._start - ROUNDING))
        seconds = settings.max_utterance_s
        self._max_frames = None if seconds is None else max(1, math.ceil(1000 * seconds / frame_ms - ROUNDING))
        self._kept = max(self._silence.frames, self._early.frames if self._early else 0, self._start)
        self._labels = Labels([], [], [])  # of the utterance that is open, or of what may begin one
        self._labeled: list[int] = []  # its frames with labels, those that a window may still reach
        self._begin: int | None = None  # its first frame; None while no utterance is open
        self._early_reported = False
        self._count = 0  # of utterances that have ended
        self._before: tuple[Utterance, Labels] | None = None  # the one that ended last, until the next one begins
        self._found: tuple[list[Utterance], list[Utterance], list[Utterance]] = [], [], []

    def take(
        self, tokens: Sequence[int], frames: Sequence[int], confidences: Sequence[float], decoded_frames: int
    ) -> Ends:
        """Takes the labels of some frames, and decides all of the first `decoded_frames` frames of the stream."""
        for token, frame, confidence in zip(tokens, frames, confidences, strict=True):
            self._decide(frame - 1)
            self._take(token, frame, confidence)
        self._decide(decoded_frames - 1)
        return self._result()

    def preview(
        self, tokens: Sequence[int], frames: Sequence[int], confidences: Sequence[float], decoded_frames: int
    ) -> Ends:
        """Returns what `take` would decide, and decides nothing."""
        other = copy(self)
        other._labels, other._labeled, other._found = self._labels.copied(), list(self._labeled), ([], [], [])
        other._before = None if self._before is None else (self._before[0], self._before[1].copied())
        return other.take(tokens, frames, confidences, decoded_frames)

    def finish(self, duration_s: float) -> Ends:
        """Ends the stream, and with it the utterance that is open; every frame has been decided."""
        if self._begin is not None or any(map(self._shows_text, self._labels.tokens)):
            self._end(round(duration_s, 3), END, duration_s)
        return self._result()

    def _result(self) -> Ends:
        if not any(self._found):
            return NO_ENDS
        result = Ends(*map(tuple, self._found))
        self._found = [], [], []
        return result

    def _decide(self, frame: int) -> None:
        """Decides the frames up to and with this one, which has no label that was not taken."""
        if self._begin is None:
            return
        silent = self._silence.due(self._begin, self._labeled)
        long = silent + 1 if self._max_frames is None else self._begin + self._max_frames
        due = min(silent, long)
        if self._early is not None and not self._early_reported:
            early = max(self._early.due(self._begin, self._labeled), self._labeled[-1])
            if early <= frame and early < due:
                self._early_reported = True
                self._found[2].append(self._utterance(self._count, self._labels, self._end_time_s(early), SILENCE))
        if due <= frame:
            self._end(self._end_time_s(due), SILENCE if due == silent else LENGTH)

    def _take(self, token: int, frame: int, confidence: float) -> None:
        if (event := self._tokenizer.event(token)) is not None:
            if event in self._marks and self._begin is not None:
                self._end(self._end_time_s(frame), event)
            return
        text = None if self._tokenizer.is_silent(token) else self._tokenizer.continuation(token)
        if self._begin is not None:
            self._labels.append(token, frame, confidence)
        elif text is not None and is_closing(text) and self._before is not None and not self._speaks():
            self._amend(token, frame, confidence)
            return
        else:
            self._labels.append(token, frame, confidence)
        self._early_reported = False
        if not self._labeled or self._labeled[-1] != frame:
            self._labeled.append(frame)
            while self._labeled[0] <= frame - self._kept:
                del self._labeled[0]
        if self._begin is None:
            self._arm(frame)

    def _speaks(self) -> bool:
        """Returns whether the labels that may begin an utterance show a word."""
        return any(self._shows_word(token) for token in self._labels.tokens)

    def _shows_word(self, token: int) -> bool:
        if self._tokenizer.is_silent(token):
            return False
        text = self._tokenizer.continuation(token)  # None is a byte of a character
        return text is None or (bool(text.strip(" ")) and not is_closing(text))

    def _arm(self, frame: int) -> None:
        """Begins an utterance if the labels so far show a word, and are frequent enough."""
        if not self._speaks():
            del self._labeled[:]
            while len(self._labels.tokens) > 1 and not self._shows_text(self._labels.tokens[0]):
                for values in self._labels:
                    del values[0]
            return
        recent = sum(labeled > frame - self._start for labeled in self._labeled)
        if recent >= self._start_labeled:
            self._begin, self._before = frame, None

    def _shows_text(self, token: int) -> bool:
        return not self._tokenizer.is_silent(token) and (self._tokenizer.continuation(token) or "x").strip(" ") != ""

    def _amend(self, token: int, frame: int, confidence: float) -> None:
        """Adds punctuation, and the space before it, to the utterance that ended last."""
        assert self._before is not None
        utterance, labels = self._before
        for label in zip(*self._labels, strict=True):
            labels.append(*label)
        labels.append(token, frame, confidence)
        self._labels = Labels([], [], [])
        amended = self._utterance(utterance.index, labels, utterance.decided_s, utterance.reason)
        self._before = amended, labels
        self._found[1].append(amended)

    def _end(self, decided_s: float, reason: str, duration_s: float = math.inf) -> None:
        utterance = self._utterance(self._count, self._labels, decided_s, reason, duration_s)
        self._found[0].append(utterance)
        self._before, self._count = (utterance, self._labels), self._count + 1
        self._labels, self._labeled, self._begin, self._early_reported = Labels([], [], []), [], None, False

    def _utterance(
        self, index: int, labels: Labels, decided_s: float, reason: str, duration_s: float = math.inf
    ) -> Utterance:
        words = self._words_of(labels, duration_s)
        begin_s, end_s = (words[0].start_s, words[-1].end_s) if words else (decided_s, decided_s)
        text = self._tokenizer.decode(labels.tokens).strip(" ")
        return Utterance(index, text, words, begin_s, end_s, decided_s, reason)

    def _end_time_s(self, frame: int) -> float:
        return frame_time_s(frame + 1, self._frame_ms)
