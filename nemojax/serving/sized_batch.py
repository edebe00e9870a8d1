"""A batch that changes its size with the number of streams."""

from collections.abc import Sequence
from itertools import permutations

from nemojax.decoding.state import AnyEmission
from nemojax.recognition.stream_batch import StepInput, StreamBatch

SHRINK_AFTER = 50  # consecutive steps for which a smaller batch would do


class SizedBatch:
    """A batch that has, at each step, the smallest of some sizes that covers the slots in use.

    It grows at once, and shrinks after `SHRINK_AFTER` steps for which a smaller size would do.

    Args:
      batch: of the smallest size; this owns it.
      sizes: in ascending order.
    """

    def __init__(self, batch: StreamBatch, sizes: Sequence[int]):
        self.batch, self.sizes = batch, sizes
        self._spare_steps = 0

    def compile(self) -> None:
        """Compiles the step at every size and every change of size, and allocates what steps will need at first."""
        for size in self.sizes:
            self._resize(size)
            self.batch.step(StepInput.empty(self.batch.config, size, self.batch.chunk_samples))
        for sizes in permutations(self.sizes, 2):
            for size in sizes:
                self._resize(size)
        self._resize(self.sizes[0])
        self.batch.wait()

    def step(self, given: StepInput, slots: int) -> AnyEmission:
        """Takes a step at the size that covers the first `slots` rows of an input."""
        return self.batch.step(given.head(self.fit(slots)))

    def fit(self, slots: int) -> int:
        """Changes the size where the slots need another; returns it."""
        fitting = next(size for size in self.sizes if size >= slots)
        self._spare_steps = self._spare_steps + 1 if fitting < self.batch.size else 0
        if fitting > self.batch.size or self._spare_steps > SHRINK_AFTER:
            self._resize(fitting)
        return self.batch.size

    def _resize(self, size: int) -> None:
        self.batch.resize(size)
        self._spare_steps = 0
