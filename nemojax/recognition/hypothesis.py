"""The labels, times and text of one stream."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nemojax.config import ModelConfig
from nemojax.decoding.state import Emission
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Transcript, Word


@dataclass
class Hypothesis:
    """The labels of one stream, as they are emitted."""

    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def extend(self, emission: Emission, row: int) -> tuple[list[int], list[int]]:
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


@dataclass(frozen=True)
class Update:
    """What one push brought: text to append to what was shown, and its labels with their frames."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
