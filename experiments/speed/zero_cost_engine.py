"""An engine whose device costs no time, so that only the engine's own work is measured."""

from typing import Any

import numpy as np

from nemojax.decoding.state import Emission
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.serving.engine import Engine

BACKLOG = 2  # chunks of a stream that may wait


def synthetic_emission(
    recognizer: Recognizer, lookahead: int, streams: int, labels_per_frame: float, seed: int
) -> Emission:
    """Makes the emission of a step: random labels at the rate of speech."""
    rng, frames = np.random.default_rng(seed), lookahead + 1
    shape = (streams, frames * recognizer.config.max_symbols_per_frame)
    length = np.minimum(rng.poisson(labels_per_frame * frames, streams), shape[1])
    labels = rng.integers(0, recognizer.config.blank, shape, np.int32)
    # numpy arrays, as the engine has them once they are off the device
    arrays: tuple[Any, ...] = (labels, np.zeros(shape, np.int32), np.zeros(shape, np.float32), length.astype(np.int32))
    return Emission(*arrays)


class ZeroCostBatch(StreamBatch):
    """A batch whose steps return one prepared emission, without a device."""

    def __init__(self, recognizer: Recognizer, lookahead: int | None, emission: Emission):
        self.config, self._emission = recognizer.config, emission
        self.lookahead = recognizer.lookahead(lookahead)
        self.chunk_samples = self.config.chunk_samples(self.lookahead)

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self._emission.length)

    def step(self, given: StepInput) -> Emission:
        """Returns the prepared emission."""
        return self._emission

    def resize(self, size: int) -> None:
        """Does nothing: an engine of one size never needs another."""

    def wait(self) -> None:
        """Does nothing: every step is done."""


class ZeroCostRecognizer(Recognizer):
    """A recognizer whose batches cost no time; everything else is that of a real one."""

    def __init__(self, recognizer: Recognizer, emission: Emission):
        vars(self).update(vars(recognizer))
        self._emission = emission

    def batch(self, size: int, lookahead: int | None = None) -> StreamBatch:
        """Returns a batch as large as the prepared emission."""
        return ZeroCostBatch(self, lookahead, self._emission)


def zero_cost_engine(recognizer: Recognizer, lookahead: int, emission: Emission, **settings: Any) -> Engine:
    """Makes an engine with a slot for each row of the emission, whose steps return it."""
    slots = (len(emission.length),)
    return Engine(ZeroCostRecognizer(recognizer, emission), lookahead, slots, backlog=BACKLOG, **settings)
