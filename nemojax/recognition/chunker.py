"""Cuts the samples of a live stream into chunks."""

from collections.abc import Iterator

import numpy as np

from nemojax.config import ModelConfig


class Chunker:
    """Collects samples until a chunk is complete.

    A stream's first chunk is shorter than the others by the virtual history that comes before it. `samples` counts the
    samples taken so far.
    """

    def __init__(self, config: ModelConfig, lookahead: int):
        self._chunk_samples = config.chunk_samples(lookahead)
        self._buffer = np.empty(self._chunk_samples - config.history_samples, np.float32)
        self._filled, self._first, self.samples = 0, True, 0

    def push(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Takes samples, float32 [N], and yields each chunk that they complete. Read it to its end."""
        self.samples += len(samples)
        while len(samples):
            piece = samples[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            samples = samples[len(piece) :]
            if self._filled == len(self._buffer):
                yield self._take()

    def rest(self) -> np.ndarray | None:
        """Returns the samples of the last, incomplete chunk; None if all were in complete chunks."""
        return self._take() if self._filled or self._first else None

    def _take(self) -> np.ndarray:
        chunk = self._buffer[: self._filled]
        self._buffer = np.empty(self._chunk_samples, np.float32)
        self._filled, self._first = 0, False
        return chunk
