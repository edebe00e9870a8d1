"""What a recogniser gives back: text, labels, and words with their times."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line shows transcripts' help without jax
    pass


@dataclass(frozen=True)
class Word:
    """A word; times are those of the encoder frames that emitted its first and last label."""

    text: str
    start_s: float
    end_s: float
    confidence: float  # the least probable of its labels: 0 to 1


@dataclass(frozen=True)
class Transcript:
    text: str
    tokens: tuple[int, ...]
    frames: tuple[int, ...]  # encoder frame of each token
    words: tuple[Word, ...]
    duration_s: float
    lookahead: int
    mode: str  # "offline" or "stream"
    notes: tuple[str, ...] = ()  # what was done to the audio: resampled, mixed down

    def to_json(self, audio: str) -> str:
        """One line of JSON; `audio` names the recording. Times and the duration are in seconds."""
        words = [{"word": w.text, "start": w.start_s, "end": w.end_s, "confidence": w.confidence} for w in self.words]
        fields = {
            "audio": audio,
            "text": self.text,
            "tokens": self.tokens,
            "frames": self.frames,
            "words": words,
            "duration": self.duration_s,
            "lookahead": self.lookahead,
            "mode": self.mode,
            "notes": self.notes,
        }
        return json.dumps(fields, ensure_ascii=False)
