"""The labels, times and text of one stream, and what each step adds to them."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from nemojax.config import ModelConfig
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Event, Transcript, Word


# a named tuple, for one or two are made for every chunk of thousands of streams, and a dataclass takes longer
class Update(NamedTuple):
    """What a step adds to a stream's transcript.

    `text` is final: append it to the text before; it is never taken back. `tokens` are its labels; `frames` are their
    encoder frames, `times_s` where those begin in the stream, and `log_probs` the labels' log-probabilities, one for
    each token. `tentative` is text that may still change: it follows the final text and replaces the `tentative` of the
    update before. Greedy search has none. `events` are the labels among `tokens` that mark an event, such as the end of
    an utterance; they are no part of the text. `transcribed_s` is how much of the stream has been transcribed, silence
    included; `Stream` and `LiveStream` fill it in.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    tentative: str = ""
    events: tuple[Event, ...] = ()
    times_s: tuple[float, ...] = ()
    log_probs: tuple[float, ...] = ()
    transcribed_s: float = 0.0

    def at(self, transcribed_s: float) -> "Update":
        """Returns the same update with this much transcribed."""
        return Update(*self[:-1], transcribed_s)

    def __add__(self, later: "Update") -> "Update":  # type: ignore[override]  # not the sum of two tuples
        """Merges this update with the next one."""
        if self is NOTHING or (later is NOTHING and not self.tentative):  # nearly every step of a silent stream
            return later if self is NOTHING else self
        return merged([self, later])


NOTHING = Update()  # shared by all steps that add nothing, which are the majority


def merged(updates: Sequence[Update]) -> Update:
    """Merges consecutive updates, at least one, in a time that is linear in their sizes."""
    if len(updates) == 1:
        return updates[0]
    joined = lambda name: tuple(chain.from_iterable(getattr(update, name) for update in updates))
    return Update(
        "".join(update.text for update in updates),
        joined("tokens"),
        joined("frames"),
        updates[-1].tentative,
        joined("events"),
        joined("times_s"),
        joined("log_probs"),
        updates[-1].transcribed_s,
    )


class Hypothesis:
    """The labels of one stream with their encoder frames and log-probabilities, and their text.

    With `keep` false it forgets what its updates had, so that its size does not grow with the stream.
    """

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, keep: bool = True):
        self.tokens: list[int] = []
        self.frames: list[int] = []
        self.log_probs: list[float] = []
        self.events: list[Event] = []
        self._pieces: list[str] = []  # of the text: adding to one long string would copy it at every step
        self._config, self._tokenizer, self._detokenizer = config, tokenizer, tokenizer.incremental()
        self._frame_ms = config.frame_ms
        self._keep, self._has_events = keep, bool(tokenizer.settings.events)
        self.is_whole = keep  # nothing has been forgotten

    @property
    def text(self) -> str:
        """The final text so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def extend(self, emission: Any, row: int) -> Update:
        """Appends one row of an `Emission` of numpy arrays."""
        length = int(emission.length[row])
        arrays = (emission.labels, emission.frames, emission.log_probs)
        return self.append(*(array[row, :length].tolist() for array in arrays))

    def append(self, tokens: list[int], frames: list[int], log_probs: list[float]) -> Update:
        """Appends labels with their frames and log-probabilities."""
        if not tokens:
            return NOTHING
        events = self._events(tokens, frames) if self._has_events else ()
        if self._keep:
            self.tokens += tokens
            self.frames += frames
            self.log_probs += log_probs
            self.events += events
        text, times_s = self._appended(self._detokenizer.push(tokens)), tuple(map(self._time_s, frames))
        return Update(text, tuple(tokens), tuple(frames), "", events, times_s, tuple(log_probs))

    def finish(self) -> Update:
        """Ends the text: bytes of an incomplete character become replacement characters."""
        text = self._appended(self._detokenizer.finish())
        return Update(text) if text else NOTHING

    def keep(self, first: Update) -> None:
        """Keeps from now on what is added, and `first`, which no caller has seen."""
        if not self._keep:
            self._keep, self.is_whole = True, False
            self._pieces = [first.text]
            self.tokens, self.frames, self.log_probs = list(first.tokens), list(first.frames), list(first.log_probs)
            self.events = list(first.events)

    def _events(self, tokens: list[int], frames: list[int]) -> tuple[Event, ...]:
        named = [(self._tokenizer.event(label), frame) for label, frame in zip(tokens, frames, strict=True)]
        return tuple(Event(name, self._time_s(frame)) for name, frame in named if name is not None)

    def _time_s(self, frame: int) -> float:
        return round(frame * self._frame_ms / 1000, 3)

    def _appended(self, text: str) -> str:
        if text and self._keep:
            self._pieces.append(text)
        return text

    def transcript(self, samples: int, lookahead: int, mode: str, notes: Sequence[str] = ()) -> Transcript:
        """Returns the transcript of a stream of `samples` samples, whose text ends; `mode` is "offline" or "stream".

        Where the hypothesis has forgotten what updates had, the transcript has the rest, and a note.
        """
        self.finish()
        if not self.is_whole:
            notes = [*notes, "the text of earlier updates was not kept"]
        duration_s = samples / self._config.features.sample_rate_hz
        words = tuple(self._word(*word, duration_s) for word in self._tokenizer.words(self.tokens))
        return Transcript(
            self.text,
            tuple(self.tokens),
            tuple(self.frames),
            words,
            duration_s,
            lookahead,
            mode,
            tuple(notes),
            tuple(self.events),
        )

    def _word(self, text: str, first: int, last: int, duration_s: float) -> Word:
        spoken = [i for i in range(first, last + 1) if not self._tokenizer.is_silent(self.tokens[i])]
        return Word(
            text,
            start_s=self._time_s(self.frames[first]),
            end_s=min(self._time_s(self.frames[last] + 1), round(duration_s, 3)),
            confidence=round(math.exp(min(self.log_probs[i] for i in spoken)), 4),
        )
