"""What a contender is: it hears a recording chunk by chunk, or many at once, and says what each step took."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

MAX_SYMBOLS_PER_FRAME = 10


class Step(NamedTuple):
    """Seconds that one chunk took: all of it, its encoder, its decoder; and its labels.

    Peers are given log-mel frames that were computed before the clock was started; nemojax's whole step begins with
    samples and ends with text.
    """

    whole_s: float
    encoder_s: float
    decoder_s: float
    tokens: tuple[int, ...]


class Contender(Protocol):
    """A recogniser, its weights loaded."""

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        """The whole chunks of a recording, one at a time; without `parts` those of a step may be NaN."""

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        """The labels of whole recordings, as fast as it can, features included."""


class GreedySearch:
    """Frame by frame, labels until blank, with no more calls than that needs; it goes on from chunk to chunk.

    A library's own greedy search is made for batches, and at one stream costs more than its layers do: peers are given
    this one, on their layers.

    Args:
      project: frames to what the joint network adds, one for each frame.
      predict: (label, state) to (what the joint network adds, state); a state of None is that before any label.
      best: (projected frame, prediction) to the best label.
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
        """Labels of the next frames."""
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
    """Both parts of each chunk, one after the other: what a peer's step is."""
    for chunk in chunks:
        start = time.perf_counter()
        encoded = encode(chunk)
        middle = time.perf_counter()
        tokens = decode(encoded)
        end = time.perf_counter()
        yield Step(end - start, middle - start, end - middle, tokens)


def in_batches(recordings: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Indices of recordings of like length, so that little is padded: the best that can be done for a peer."""
    order = sorted(range(len(recordings)), key=lambda index: len(recordings[index]))
    for begin in range(0, len(order), batch_size):
        yield order[begin : begin + batch_size]
