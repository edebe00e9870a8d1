"""The result of recognition: text, labels, and words with their emission times."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from nemojax.text.json_lines import json_line


@dataclass(frozen=True)
class Word:
    """A word, and when the model emitted it.

    The times are emission times, not those of the sound: a transducer emits a label once it has enough of the sound,
    so a word begins earlier in the audio than `start_s`: by 0.17 to 0.36 s in nine of ten digits that the small model
    transcribed (`python -m experiments word_times`).
    """

    text: str
    start_s: float  # start of the encoder frame that emitted its first label
    end_s: float  # end of the encoder frame that emitted its last label, punctuation that comes later apart
    confidence: float  # 0 to 1: the probability of its least probable label, or what the search's `Confidence` says

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of the JSON form; times are in seconds."""
        return {"word": self.text, "start": self.start_s, "end": self.end_s, "confidence": self.confidence}


@dataclass(frozen=True)
class Event:
    """A label that marks an event, such as "<EOU>", the end of an utterance; it is no part of the text."""

    name: str  # its piece
    time_s: float  # start of the encoder frame that emitted it: an emission time, see `Word`


@dataclass(frozen=True)
class Alternative:
    """One of the best hypotheses of a beam search."""

    text: str
    tokens: tuple[int, ...]  # labels
    frames: tuple[int, ...]  # encoder frame of each token
    log_probs: tuple[float, ...]  # of each token, given the frame and the tokens before it
    # log-probability of all tokens, over all alignments that the search has followed; with the scores of graphs, if any
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of the JSON form."""
        return {
            "text": self.text,
            "score": round(self.score, 4),
            "tokens": list(self.tokens),
            "frames": list(self.frames),
            "log_probs": [round(value, 4) for value in self.log_probs],
        }


@dataclass(frozen=True)
class Utterance:
    """A part of a stream that has ended; see `EndOfUtterance`."""

    index: int  # from 0 on
    text: str
    words: tuple[Word, ...]
    begin_s: float  # when its first word starts
    end_s: float  # when its last word ends
    decided_s: float  # end of the encoder frame at which it was decided that it has ended
    reason: str  # "silence", "length", the mark of an event such as "<EOU>", or "end", that of the stream

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields of the JSON form; times are in seconds."""
        return {
            "index": self.index,
            "text": self.text,
            "words": [word.to_dict() for word in self.words],
            "begin": self.begin_s,
            "end": self.end_s,
            "decided": self.decided_s,
            "reason": self.reason,
        }


class Aligned(NamedTuple):
    """A label of an alignment, and the encoder frame that emitted it."""

    frame: int
    label: int | None  # None is blank


@dataclass(frozen=True)
class Transcript:
    """The transcript of one recording or stream."""

    text: str
    tokens: tuple[int, ...]  # labels
    frames: tuple[int, ...]  # encoder frame of each token
    words: tuple[Word, ...]
    duration_s: float
    lookahead: int  # encoder frames
    mode: str  # "offline" or "stream"
    notes: tuple[str, ...] = ()  # changes made to the audio: "resampled from 8000 Hz"
    events: tuple[Event, ...] = ()  # of the labels that the checkpoint's settings name as events
    confidences: tuple[float, ...] = ()  # of each token, where the search has a `Confidence`
    utterances: tuple[Utterance, ...] = ()  # where the ends of utterances are decided
    encoder_frames: int = 0  # of the whole recording
    max_symbols_per_frame: int = 10  # labels that a frame emits at most
    n_best: tuple[Alternative, ...] = ()  # the best hypotheses, where a `Beam` asks for them; the first is the text

    def alignment(self) -> list[Aligned]:
        """Returns the labels and blanks that the search chose, in its order.

        Every frame ends with a blank, unless it has emitted as many labels as a frame may.
        """
        aligned, index = [], 0
        for frame in range(max(self.encoder_frames, max(self.frames, default=-1) + 1)):
            first = index
            while index < len(self.frames) and self.frames[index] == frame:
                aligned.append(Aligned(frame, self.tokens[index]))
                index += 1
            if index - first < self.max_symbols_per_frame:
                aligned.append(Aligned(frame, None))
        return aligned

    def to_dict(self, audio: str) -> dict[str, Any]:
        """Returns the fields of the JSON form; `audio` names the recording.

        Times are in seconds; `start`, `end` and `time` are emission times, see `Word`.
        """
        optional: dict[str, Any] = {"confidences": list(self.confidences)} if self.confidences else {}
        if self.utterances:
            optional["utterances"] = [utterance.to_dict() for utterance in self.utterances]
        if self.n_best:
            optional["n_best"] = [alternative.to_dict() for alternative in self.n_best]
        return {
            "audio": audio,
            "text": self.text,
            "tokens": list(self.tokens),
            "frames": list(self.frames),
            "words": [word.to_dict() for word in self.words],
            "events": [{"event": event.name, "time": event.time_s} for event in self.events],
            "duration": self.duration_s,
            "lookahead": self.lookahead,
            "mode": self.mode,
            "notes": list(self.notes),
            **optional,
        }

    def to_json(self, audio: str) -> str:
        """Returns `to_dict` as one line of JSON."""
        return json_line(self.to_dict(audio))
