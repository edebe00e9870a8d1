"""An engine whose device costs no time, so that only the engine's own work is measured."""

from typing import Any

import numpy as np

from nemojax.decoding.state import Emission
from nemojax.recognition.recognizer import Recognizer
from nemojax.serving.engine import Engine

BACKLOG = 4  # chunks of a stream that may wait


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


class ZeroCostEngine(Engine):
    """An engine whose steps return one prepared emission, without a device."""

    def __init__(self, recognizer: Recognizer, lookahead: int, emission: Emission, **settings: Any):
        streams = len(emission.length)
        super().__init__(recognizer, lookahead, (1,), backlog=BACKLOG, **settings)
        position: Any = np.zeros(streams, np.int32)
        self.sizes, self._free, self._emission = (streams,), list(range(streams)), emission
        self._state = self._state._replace(position=position)

    def _compile(self) -> None:
        self._allocate()

    def _advance(self, *arrays: np.ndarray) -> Emission:
        return self._emission
