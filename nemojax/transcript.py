"""What a recogniser gives back: text, labels, and words with their times."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nemojax.config import ModelConfig
from nemojax.tokenizer import Tokenizer

if TYPE_CHECKING:  # the command line shows transcripts' help without jax
    from nemojax.decoding.greedy import Emission


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


@dataclass
class Hypothesis:
    """The labels of one stream, as they are emitted."""

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def extend(self, emission: "Emission", row: int) -> tuple[list[int], list[int]]:
        """Takes in one row of an emission (of numpy arrays); returns its new labels and their frames."""
        length = int(emission.length[row])
        tokens, frames = emission.labels[row, :length].tolist(), emission.frames[row, :length].tolist()
        self.tokens += tokens
        self.frames += frames
        self.log_probs += np.asarray(emission.log_probs)[row, :length].tolist()
        return tokens, frames

    def transcript(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        samples: int,
        lookahead: int,
        mode: str,
        notes: Sequence[str] = (),
    ) -> Transcript:
        duration_s = samples / config.features.sample_rate_hz
        frame_s = config.frame_ms / 1000
        words = tuple(
            Word(
                text,
                start_s=round(self.frames[first] * frame_s, 3),
                end_s=round(min((self.frames[last] + 1) * frame_s, duration_s), 3),
                confidence=round(math.exp(min(self.log_probs[first : last + 1])), 4),
            )
            for text, first, last in tokenizer.words(self.tokens)
        )
        return Transcript(
            tokenizer.decode(self.tokens),
            tuple(self.tokens),
            tuple(self.frames),
            words,
            duration_s,
            lookahead,
            mode,
            tuple(notes),
        )
