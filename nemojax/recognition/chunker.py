"""Cuts the samples of a live stream into chunks."""

import numpy as np

from nemojax.config import ModelConfig

Chunk = list[np.ndarray]  # float32 samples in pieces, as they came: a chunk is copied once, into the step's input


class Chunker:
    """Collects samples until a chunk is complete.

    A stream's first chunk is shorter than the others by the virtual history that comes before it. `samples` counts the
    samples taken so far.
    """

    def __init__(self, config: ModelConfig, lookahead: int):
        self._chunk_samples = config.chunk_samples(lookahead)
        self._pieces: Chunk = []  # of the chunk that is being collected
        self._left = self._chunk_samples - config.history_samples  # samples that it lacks
        self._first, self.samples = True, 0

    def push(self, samples: np.ndarray) -> list[Chunk]:
        """Takes samples, float32 [N], and returns the chunks that they complete, which share their memory."""
        count, chunks = len(samples), []
        self.samples += count
        while count >= self._left:
            chunks.append([*self._pieces, samples[: self._left]])
            samples, count = samples[self._left :], count - self._left
            self._pieces, self._left, self._first = [], self._chunk_samples, False
        if count:
            self._pieces.append(samples.copy())  # not a view, which would hold all that was pushed with them
            self._left -= count
        return chunks

    def rest(self) -> Chunk | None:
        """Returns the samples of the last, incomplete chunk; None if all were in complete chunks."""
        if not (self._pieces or self._first):
            return None
        pieces, self._pieces, self._first = self._pieces, [], False
        return pieces
