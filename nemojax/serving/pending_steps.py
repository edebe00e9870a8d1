"""The chunks that wait for a step, in the memory that the step will read."""

from collections import deque

import numpy as np

from nemojax.config import ModelConfig
from nemojax.recognition.chunker import Chunk
from nemojax.recognition.stream_batch import StepInput


class PendingSteps:
    """The inputs of the next steps. A stream's chunks wait in its row of the first step, of the second, and so on.

    A chunk is copied once, when it arrives: a step that begins finds its input complete. Memory is used again after
    `give_back`; `prepare` allocates and touches what is likely to be needed, for page faults would slow steps down.

    It is not safe among threads, apart from `give_back`.

    Attributes:
      ready: the number of streams that have a chunk in the first step.
    """

    def __init__(self, config: ModelConfig, slots: int, chunk_samples: int):
        self._config, self._shape = config, (slots, chunk_samples)
        self._steps: deque[StepInput] = deque()
        self._spare: list[StepInput] = []
        self.ready = 0

    def prepare(self, count: int) -> None:
        """Allocates the inputs of `count` steps."""
        self._spare += [self._allocate() for _ in range(count)]

    def append(self, slot: int, chunks_before: int, chunk: Chunk, first: bool) -> None:
        """Adds a chunk of a stream that has `chunks_before` others waiting; `first` begins the stream."""
        if chunks_before == len(self._steps):
            self._steps.append(self._spare.pop() if self._spare else self._allocate())
        self._steps[chunks_before].fill_pieces(slot, chunk, first)
        self.ready += chunks_before == 0

    def drop(self, slot: int) -> None:
        """Removes all chunks of a stream."""
        for number, step in enumerate(self._steps):
            self.ready -= number == 0 and bool(step.active[slot])
            step.clear(slot)

    def take(self) -> StepInput:
        """Removes the first step and returns its input."""
        step = self._steps.popleft()
        self.ready = int(np.count_nonzero(self._steps[0].active)) if self._steps else 0
        return step

    def give_back(self, step: StepInput) -> None:
        """Takes back the input of a step that has been computed; from any thread."""
        step.clear()
        self._spare.append(step)

    def _allocate(self) -> StepInput:
        return StepInput(self._config, np.full(self._shape, 0, np.float32))
