"""The result of recognition: text, labels, and words with their times."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word, timed by the encoder frames that emitted its first and last label."""

    text: str
    start_s: float
    end_s: float
    confidence: float  # probability of its least probable label, 0 to 1


@dataclass(frozen=True)
class Event:
    """A label that marks an event, such as "<EOU>", the end of an utterance; it is no part of the text."""

    name: str  # its piece
    time_s: float  # start of the encoder frame that emitted it


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

    def to_dict(self, audio: str) -> dict[str, Any]:
        """Returns the fields of the JSON form; `audio` names the recording. Times are in seconds."""
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
        }

    def to_json(self, audio: str) -> str:
        """Returns `to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(audio), ensure_ascii=False)
