"""The interface of a contender: it transcribes a recording chunk by chunk, or many at once, and times each step."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

MAX_SYMBOLS_PER_FRAME = 10


class Step(NamedTuple):
    """Seconds of one chunk's step: the whole, its encoder, its decoder; and its labels.

    A peer's step begins with log-mel frames, which were computed before the clock starts; nemojax's whole step begins
    with samples and ends with text.
    """

    whole_s: float
    encoder_s: float
    decoder_s: float
    tokens: tuple[int, ...]


class Contender(Protocol):
    """A recognizer with its weights loaded."""

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        """Steps through the whole chunks of a recording; without `parts`, encoder and decoder times may be NaN."""

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        """Returns the labels of whole recordings, features included, in the contender's fastest way."""


class GreedySearch:
    """Greedy search of one stream: frame by frame, labels until blank. Its state continues from chunk to chunk.

    The peers' own greedy searches are made for batches; for one stream they cost more than the layers. This one makes
    only the calls that are needed, on the peer's layers.

    Args:
      project: frames to their projections for the joint network, one for each frame.
      predict: (label, state) to (projected prediction, state); the state before any label is None.
      best: (projected frame, projected prediction) to the best label.
    """

    def __init__(
        self,
        blank: int,
        project: Callable[[Any], Sequence[Any]],
        predict: Callable[[int, Any], tuple[Any, Any]],
        best: Callable[[Any, Any], int],
    ):
        self._blank, self._project, self._predict, self._best = blank, project, predict, best
        self._prediction, self._state = predict(blank, None)

    def __call__(self, encoded: Any) -> tuple[int, ...]:
        """Returns the labels of the next frames."""
        tokens: list[int] = []
        for frame in self._project(encoded):
            for _ in range(MAX_SYMBOLS_PER_FRAME):
                label = self._best(frame, self._prediction)
                if label == self._blank:
                    break
                tokens.append(label)
                self._prediction, self._state = self._predict(label, self._state)
        return tuple(tokens)


def timed_steps(chunks: Sequence[Any], encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> Iterator[Step]:
    """Times a peer's steps, which are encoder and decoder of each chunk, one after the other."""
    for chunk in chunks:
        start = time.perf_counter()
        encoded = encode(chunk)
        middle = time.perf_counter()
        tokens = decode(encoded)
        end = time.perf_counter()
        yield Step(end - start, middle - start, end - middle, tokens)


def in_batches(recordings: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Yields the indices of recordings of similar length, which is a peer's fastest order: it pads least."""
    order = sorted(range(len(recordings)), key=lambda index: len(recordings[index]))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]
