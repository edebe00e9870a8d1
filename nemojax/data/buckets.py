"""The shapes of training batches: a few (frames, labels) buckets, one compilation each."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError

IntArray = npt.NDArray[np.integer[Any]]

LABELS_MULTIPLE = 8
LABELS_QUANTILE = 0.98  # share of a bucket's utterances that its labels must hold; the others use a larger bucket


class Bucket(NamedTuple):
    """The shape of a batch: T encoder frames, U labels, B rows over all hosts."""

    frames: int
    labels: int
    batch: int


def frames_multiple(config: ModelConfig) -> int:
    """Returns the number of frames whose multiples are whole chunks at every look-ahead."""
    return math.lcm(*(config.chunk_frames(lookahead) for lookahead in config.encoder.lookaheads))


def choose_buckets(
    frames: IntArray,
    labels: IntArray,
    batch_frames: int,
    *,
    count: int = 12,
    multiple: int = 14,
    rows_multiple: int = 1,
) -> tuple[Bucket, ...]:
    """Returns at most `count` buckets that hold every utterance with minimal total padding, in frames.

    A bucket holds the labels of nearly all utterances of its length, and at least as many labels as the bucket before
    it; the last bucket holds all utterances.

    Args:
      frames, labels: [n] of each utterance.
      batch_frames: encoder frames in a batch, over all hosts; a step's memory and time depend on it.
      count: maximum number of buckets; fewer are returned where lengths differ little.
      multiple: every bucket's frames are a multiple of it, see `frames_multiple`.
      rows_multiple: every bucket's rows are a multiple of it: the number of devices that share a batch, times the
        number of parts that a batch is computed in.
    """
    units = np.maximum(-(-np.asarray(frames) // multiple), 1)
    chosen, capacity, found = _least_padding(np.bincount(units), count), 0, []
    for low, high in zip([0, *chosen], chosen, strict=False):
        inside = np.asarray(labels)[(units > low) & (units <= high)]
        needed = inside.max() if high == chosen[-1] else np.quantile(inside, LABELS_QUANTILE, method="higher")
        needed = max(needed, np.max(labels) if high == chosen[-1] else 1)
        capacity = max(capacity, -(-int(needed) // LABELS_MULTIPLE) * LABELS_MULTIPLE)
        rows = max(batch_frames // (high * multiple) // rows_multiple, 1) * rows_multiple
        found.append(Bucket(high * multiple, capacity, rows))
    return tuple(found)


def _least_padding(histogram: IntArray, count: int) -> list[int]:
    """Returns at most `count` sizes, the largest among them, such that rounding up to a size adds the least in total.

    Args:
      histogram: [size + 1] number of utterances of each size.
    """
    sizes = np.flatnonzero(histogram).tolist()
    total = np.concatenate([[0], np.cumsum(histogram[sizes])])
    # dynamic programming: cost[j] is the cost of the j smallest sizes in k buckets; begins[k][j] is where the last of
    # these buckets begins
    cost = [0.0] + [np.inf] * len(sizes)
    begins = []
    for _ in range(min(count, len(sizes))):
        options = [
            [cost[i] + sizes[j - 1] * float(total[j] - total[i]) for i in range(j)] for j in range(1, len(sizes) + 1)
        ]
        begins.append([0] + [int(np.argmin(option)) for option in options])
        cost = [np.inf] + [min(option) for option in options]
    chosen, end = [], len(sizes)
    for begin in reversed(begins):
        chosen.append(sizes[end - 1])
        end = begin[end]
    return chosen[::-1]


def check_buckets(buckets: Sequence[Bucket], multiple: int, rows_multiple: int = 1) -> tuple[Bucket, ...]:
    """Returns the buckets in the order in which rows try them. Raises ConfigError, naming the first invalid bucket."""
    if not buckets:
        raise ConfigError("there must be at least one bucket of (frames, labels, batch)")
    for bucket in buckets:
        if min(bucket) < 1:
            raise ConfigError(f"{bucket}: frames, labels and batch must be at least 1")
        if bucket.frames % multiple:
            raise ConfigError(f"{bucket}: frames must be a multiple of {multiple}, whole chunks at every look-ahead")
        if bucket.batch % rows_multiple:
            raise ConfigError(f"{bucket}: batch must be a multiple of {rows_multiple}, the hosts or devices sharing it")
    return tuple(sorted(set(buckets)))
