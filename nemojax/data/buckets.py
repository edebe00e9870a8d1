"""The shapes of training batches: a few (frames, labels) buckets, one compilation each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError

LABELS_MULTIPLE = 8
LABELS_QUANTILE = 0.98  # of a bucket's utterances fit its labels; the others go to a larger one


class Bucket(NamedTuple):
    """A batch's shape: T encoder frames, U labels, B rows over all hosts."""

    frames: int
    labels: int
    batch: int


def frames_multiple(config: ModelConfig) -> int:
    """What every bucket's frames must be a multiple of, so that each trained look-ahead cuts it into whole chunks."""
    return math.lcm(*(config.chunk_frames(lookahead) for lookahead in config.encoder.lookaheads))


def choose_buckets(
    frames: np.ndarray,
    labels: np.ndarray,
    batch_frames: int,
    *,
    count: int = 12,
    multiple: int = 14,
    rows_multiple: int = 1,
) -> tuple[Bucket, ...]:
    """Buckets that hold all utterances with the least padding, in frames, of any so many.

    Each holds the labels of nearly all utterances of its length, and at least those of the buckets before it;
    the last holds all.

    Args:
      frames, labels: [n] of each utterance.
      batch_frames: encoder frames in a batch, over all hosts; what a step's memory and time go by.
      count: at most so many; fewer where lengths differ little.
      multiple: of every bucket's frames, see `frames_multiple`.
      rows_multiple: of every bucket's rows: the number of devices that share a batch, or of micro-batches, or
        the product of both.
    """
    units = np.maximum(-(-np.asarray(frames) // multiple), 1)
    chosen, at_most, found = _least_padding(np.bincount(units), count), 0, []
    for low, high in zip([0, *chosen], chosen, strict=False):
        inside = np.asarray(labels)[(units > low) & (units <= high)]
        needed = inside.max() if high == chosen[-1] else np.quantile(inside, LABELS_QUANTILE, method="higher")
        needed = max(needed, np.max(labels) if high == chosen[-1] else 1)
        at_most = max(at_most, -(-int(needed) // LABELS_MULTIPLE) * LABELS_MULTIPLE)
        rows = max(batch_frames // (high * multiple) // rows_multiple, 1) * rows_multiple
        found.append(Bucket(high * multiple, at_most, rows))
    return tuple(found)


def _least_padding(histogram: np.ndarray, count: int) -> list[int]:
    """At most `count` sizes, the last the largest there is, so that rounding up to them adds the least."""
    sizes = np.flatnonzero(histogram).tolist()
    total = np.concatenate([[0], np.cumsum(histogram[sizes])])
    # cost[k][j]: of the j smallest sizes in k buckets; where the last of them begins is kept in `begin`
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
    """The buckets in the order in which they are tried. Raises ConfigError, naming the first that does not do."""
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
