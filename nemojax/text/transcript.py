"""The result of recognition: text, labels, and words with their emission times."""

from dataclasses import dataclass
from typing import Any

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
    end_s: float  # end of the encoder frame that emitted its last label
    confidence: float  # probability of its least probable label, 0 to 1


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
    score: float  # log-probability of all tokens, over all alignments that the search has followed

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
    n_best: tuple[Alternative, ...] = ()  # the best hypotheses, where a `Beam` asks for them; the first is the text

    def to_dict(self, audio: str) -> dict[str, Any]:
        """Returns the fields of the JSON form; `audio` names the recording.

        Times are in seconds; `start`, `end` and `time` are emission times, see `Word`.
        """
        words = [{"word": w.text, "start": w.start_s, "end": w.end_s, "confidence": w.confidence} for w in self.words]
        return {
            "audio": audio,
            "text": self.text,
            "tokens": list(self.tokens),
            "frames": list(self.frames),
            "words": words,
            "events": [{"event": event.name, "time": event.time_s} for event in self.events],
            "duration": self.duration_s,
            "lookahead": self.lookahead,
            "mode": self.mode,
            "notes": list(self.notes),
            **({"n_best": [each.to_dict() for each in self.n_best]} if self.n_best else {}),
        }

    def to_json(self, audio: str) -> str:
        """Returns `to_dict` as one line of JSON."""
        return json_line(self.to_dict(audio))
