"""The labels, times and text of one stream, and what each step adds to them."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from nemojax.config import ModelConfig
from nemojax.decoding.confidence import Confidence
from nemojax.recognition.end_of_utterance import EndOfUtterance, Endpointer, Ends
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Event, Transcript, Utterance, Word
from nemojax.text.words import Labels, frame_time_s, timed_words


# a named tuple, for one or two are made for every chunk of thousands of streams, and a dataclass takes longer
class Update(NamedTuple):
    """What a step adds to a stream's transcript.

    `text` is final: append it to the text before; it is never taken back. `tokens` are its labels; `frames` are their
    encoder frames, `times_s` where those begin in the stream, and `log_probs` the labels' log-probabilities, one for
    each token. `tentative` is text that may still change: it follows the final text and replaces the `tentative` of the
    update before. Greedy search has none. `events` are the labels among `tokens` that mark an event, such as the end of
    an utterance; they are no part of the text. `transcribed_s` is how much of the stream has been transcribed, silence
    included; `Stream` and `LiveStream` fill it in. `confidences` are those of the tokens where the search has a
    `Confidence`. Where the ends of utterances are decided, `final` has the utterances that ended, `amended` those that
    had ended and got their punctuation afterwards, and `early` those that may have ended; see `EndOfUtterance`.
    """

    text: str = ""
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    tentative: str = ""
    events: tuple[Event, ...] = ()
    times_s: tuple[float, ...] = ()
    log_probs: tuple[float, ...] = ()
    transcribed_s: float = 0.0
    confidences: tuple[float, ...] = ()
    final: tuple[Utterance, ...] = ()
    amended: tuple[Utterance, ...] = ()
    early: tuple[Utterance, ...] = ()

    def at(self, transcribed_s: float) -> "Update":
        """Returns the same update with this much transcribed."""
        return self._replace(transcribed_s=transcribed_s)

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
        *map(joined, ("confidences", "final", "amended", "early")),
    )


class Hypothesis:
    """The labels of one stream with their encoder frames and log-probabilities, and their text.

    With `keep` false it forgets what its updates had, so that its size does not grow with the stream. A `confidence`,
    that of the search, says how the confidences of labels become those of words.
    """

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        keep: bool = True,
        confidence: Confidence | None = None,
        end_of_utterance: EndOfUtterance | None = None,
    ):
        self.tokens: list[int] = []
        self.frames: list[int] = []
        self.log_probs: list[float] = []
        self.confidences: list[float] = []  # empty where the search has no `Confidence`
        self.utterances: list[Utterance] = []
        self.events: list[Event] = []
        self._pieces: list[str] = []  # of the text: adding to one long string would copy it at every step
        self._config, self._tokenizer, self._detokenizer = config, tokenizer, tokenizer.incremental()
        self._frame_ms = config.frame_ms
        self._keep, self._has_events = keep, bool(tokenizer.settings.events)
        self.is_whole = keep  # nothing has been forgotten
        self._of_word = min if confidence is None else confidence.of_word
        self._endpointer: Endpointer | None = None
        if end_of_utterance is not None:
            self._endpointer = Endpointer(end_of_utterance, tokenizer, config.frame_ms, self._words)
        self._decoded_frames = 0

    @property
    def text(self) -> str:
        """The final text so far."""
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    @property
    def decides_ends(self) -> bool:
        """Whether the ends of utterances are decided, so that frames without labels count too."""
        return self._endpointer is not None

    def extend(self, emission: Any, row: int, decoded_frames: int = 0) -> Update:
        """Appends one row of an `Emission` of numpy arrays.

        Args:
          decoded_frames: encoder frames of the stream so far; they count where the ends of utterances are decided.
        """
        length = int(emission.length[row])
        arrays = (emission.labels, emission.frames, emission.log_probs)
        labels, frames, log_probs = (array[row, :length].tolist() for array in arrays)
        confidences = () if emission.confidences is None else emission.confidences[row, :length].tolist()
        return self.append(labels, frames, log_probs, confidences, decoded_frames)

    def append(
        self,
        tokens: list[int],
        frames: list[int],
        log_probs: list[float],
        confidences: Sequence[float] = (),
        decoded_frames: int = 0,
    ) -> Update:
        """Appends labels with their frames, log-probabilities and, where the search has them, confidences."""
        if not tokens:
            return NOTHING if self._endpointer is None else self._decide([], [], [], [], decoded_frames, NOTHING)
        events = self._events(tokens, frames) if self._has_events else ()
        if self._keep:
            self.tokens += tokens
            self.frames += frames
            self.log_probs += log_probs
            self.confidences += confidences
            self.events += events
        text, times_s = self._appended(self._detokenizer.push(tokens)), tuple(map(self._time_s, frames))
        update = Update(
            text, tuple(tokens), tuple(frames), "", events, times_s, tuple(log_probs), 0.0, tuple(confidences)
        )
        if self._endpointer is None:
            return update
        return self._decide(tokens, frames, log_probs, confidences, decoded_frames, update)

    def _decide(
        self,
        tokens: list[int],
        frames: list[int],
        log_probs: list[float],
        confidences: Sequence[float],
        decoded_frames: int,
        update: Update,
    ) -> Update:
        """Returns an update with the utterances that end with these labels, or with the frames after them."""
        assert self._endpointer is not None
        self._decoded_frames = max(self._decoded_frames, decoded_frames)
        sure = confidences or list(map(math.exp, log_probs))
        return self._with_ends(update, self._endpointer.take(tokens, frames, sure, self._decoded_frames))

    def _with_ends(self, update: Update, ends: Ends) -> Update:
        if not any(ends):
            return update
        if self._keep:
            self.utterances += ends.final
            for utterance in ends.amended:
                place = utterance.index - self.utterances[0].index if self.utterances else -1
                if 0 <= place < len(self.utterances):
                    self.utterances[place] = utterance
        return update._replace(final=ends.final, amended=ends.amended, early=ends.early)

    def decide(self, frames: int) -> Update:
        """Decides the ends of utterances over this many further frames, whose labels have been appended."""
        return self._decide([], [], [], [], self._decoded_frames + frames, NOTHING)

    def finish(self, samples: int | None = None) -> Update:
        """Ends the text: bytes of an incomplete character become replacement characters.

        Args:
          samples: of the whole stream; needed where the ends of utterances are decided, of which this is the last.
        """
        text = self._appended(self._detokenizer.finish())
        update = Update(text) if text else NOTHING
        if self._endpointer is None or samples is None:
            return update
        decided = self._decide([], [], [], [], self._config.encoder_frames(samples), NOTHING)
        last = self._with_ends(NOTHING, self._endpointer.finish(samples / self._config.features.sample_rate_hz))
        return update + (decided + last)

    def keep(self, first: Update) -> None:
        """Keeps from now on what is added, and `first`, which no caller has seen."""
        if not self._keep:
            self._keep, self.is_whole = True, False
            self._pieces = [first.text]
            self.tokens, self.frames, self.log_probs = list(first.tokens), list(first.frames), list(first.log_probs)
            self.events, self.confidences = list(first.events), list(first.confidences)
            self.utterances = list(first.final)

    def _events(self, tokens: list[int], frames: list[int]) -> tuple[Event, ...]:
        named = [(self._tokenizer.event(label), frame) for label, frame in zip(tokens, frames, strict=True)]
        return tuple(Event(name, self._time_s(frame)) for name, frame in named if name is not None)

    def _time_s(self, frame: int) -> float:
        return frame_time_s(frame, self._frame_ms)

    def _appended(self, text: str) -> str:
        if text and self._keep:
            self._pieces.append(text)
        return text

    def transcript(self, samples: int, lookahead: int, mode: str, notes: Sequence[str] = ()) -> Transcript:
        """Returns the transcript of a stream of `samples` samples, whose text ends; `mode` is "offline" or "stream".

        Where the hypothesis has forgotten what updates had, the transcript has the rest, and a note.
        """
        self.finish(samples)
        if not self.is_whole:
            notes = [*notes, "the text of earlier updates was not kept"]
        duration_s = samples / self._config.features.sample_rate_hz
        confidences = self.confidences or list(map(math.exp, self.log_probs))
        words = self._words(Labels(self.tokens, self.frames, confidences), duration_s)
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
            tuple(self.confidences),
            tuple(self.utterances),
            self._config.encoder_frames(samples),
            self._config.max_symbols_per_frame,
        )

    def _words(self, labels: Labels, duration_s: float) -> tuple[Word, ...]:
        return timed_words(self._tokenizer, labels, self._frame_ms, duration_s, self._of_word)
