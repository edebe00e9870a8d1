"""Cuts the samples of a live stream into chunks."""

import numpy as np

from nemojax.config import ModelConfig


class Chunker:
    """Collects samples until a chunk is complete.

    A stream's first chunk is shorter than the others by the virtual history that comes before it. `samples` counts the
    samples taken so far.
    """

    def __init__(self, config: ModelConfig, lookahead: int):
        self._chunk_samples = config.chunk_samples(lookahead)
        self._pieces: list[np.ndarray] = []  # of the chunk that is being collected
        self._left = self._chunk_samples - config.history_samples  # samples that it lacks
        self._first, self.samples = True, 0

    def push(self, samples: np.ndarray) -> list[np.ndarray]:
        """Takes samples, float32 [N], and returns the chunks that they complete, in the same memory where it can be."""
        self.samples += len(samples)
        chunks = []
        while len(samples) >= self._left:
            piece, samples = samples[: self._left], samples[self._left :]
            self._pieces.append(piece)
            chunks.append(self._take())
        if len(samples):
            self._pieces.append(samples)
            self._left -= len(samples)
        return chunks

    def rest(self) -> np.ndarray | None:
        """Returns the samples of the last, incomplete chunk; None if all were in complete chunks."""
        return self._take() if self._pieces or self._first else None

    def _take(self) -> np.ndarray:
        pieces, self._pieces, self._first, self._left = self._pieces, [], False, self._chunk_samples
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
