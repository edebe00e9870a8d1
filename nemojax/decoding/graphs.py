"""Graphs that score labels, such as a language model or a list of phrases: all in one pool of arrays of a fixed size.

A graph's states have arcs, one for a label each. Where a state has no arc for a label, the label is looked up in the
state that it backs off to, at the cost of that; a state that backs off to itself has a score of 0 for such a label, and
keeps the stream. State 0 of the pool is the empty graph: no label costs anything there, and none leads away.

The pool is an argument of the compiled step, and a stream's graphs are numbers in its row. So streams with different
graphs share one step, and adding or dropping a graph compiles nothing. A stream has one graph for each of `COLUMNS`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

LANGUAGE_MODEL, PHRASES = 0, 1  # columns of `Rows`
COLUMNS = 2
PIVOTS = 15
MAX_BACKOFFS = 32  # of a label; the order of a language model is at most this


class Graph(NamedTuple):
    """One graph as numpy arrays, which refer to its own states and arcs. Arcs are in the order of (state, label)."""

    start: int  # the state of a new stream
    begin: np.ndarray  # [S], of each state: its first arc
    end: np.ndarray  # [S], past its last arc
    backoff: np.ndarray  # [S], where a label without an arc is looked up; the state itself: nowhere
    backoff_scores: np.ndarray  # [S]
    most: np.ndarray  # [S], no label has a higher score
    pending: np.ndarray  # [S], the part of the scores so far that is taken back if the stream ends here
    labels: np.ndarray  # [A]
    scores: np.ndarray  # [A]
    targets: np.ndarray  # [A], states


class Pool(NamedTuple):
    """All graphs, one after the other: the arrays of `Graph`."""

    begin: Int[Array, " S"]
    end: Int[Array, " S"]
    backoff: Int[Array, " S"]
    backoff_scores: Float[Array, " S"]
    most: Float[Array, " S"]
    pending: Float[Array, " S"]
    labels: Int[Array, " A"]
    scores: Float[Array, " A"]
    targets: Int[Array, " A"]
    widest: Bool[Array, " W"]  # its length alone counts: one more than a state may have arcs


class Rows(NamedTuple):
    """The graphs of each stream: of each, the state of a new stream, a weight, and a number that is its own.

    The number 0 stands for no graph. A graph's number is never used again, though its place in the pool may be.
    """

    starts: Int[Array, "B G"]
    weights: Float[Array, "B G"]
    numbers: Int[Array, "B G"]


class Graphs(NamedTuple):
    """What a search looks labels up in."""

    pool: Pool
    rows: Rows


class _LookUp(NamedTuple):
    state: Int[Array, "..."]  # where the label was looked up last
    score: Float[Array, "..."]  # of the backoffs so far
    found: Bool[Array, "..."]
    arc: Int[Array, "..."]
    backoffs: Int[Array, ""]


def advance(
    pool: Pool, state: Int[Array, "*#batch"], label: Int[Array, "*#batch"]
) -> tuple[Float[Array, "*batch"], Int[Array, "*batch"]]:
    """Returns the score of a label in a state, and the state after it; states and labels are broadcast.

    Phrases need one backoff at most, language models no more than their order.
    """
    state, label = jnp.broadcast_arrays(state, label)
    first = _LookUp(state, jnp.zeros(state.shape, jnp.float32), *_find(pool, state, label), jnp.int32(0))
    ends = lambda c: c.found | (pool.backoff[c.state] == c.state)

    def back_off(c: _LookUp) -> _LookUp:
        ended = ends(c)
        after = jnp.where(ended, c.state, pool.backoff[c.state])
        score = c.score + jnp.where(ended, 0.0, pool.backoff_scores[c.state])
        return _LookUp(after, score, *_find(pool, after, label), c.backoffs + 1)

    c = jax.lax.while_loop(lambda c: (c.backoffs < MAX_BACKOFFS) & ~ends(c).all(), back_off, first)
    return jnp.where(c.found, c.score + pool.scores[c.arc], c.score), jnp.where(c.found, pool.targets[c.arc], c.state)


def scores(pool: Pool, state: Int[Array, "*#batch"], labels: Int[Array, "*#batch L"]) -> Float[Array, "*batch L"]:
    """Returns the score of each of several labels in a state."""
    return advance(pool, state[..., None], labels)[0]


def _find(
    pool: Pool, state: Int[Array, "*batch"], label: Int[Array, "*batch"]
) -> tuple[Bool[Array, "*batch"], Int[Array, "*batch"]]:
    """Returns whether a state has an arc for a label, and which.

    A search over its arcs, which are in the order of labels. `PIVOTS` of them are compared at once: few operations take
    less time than few comparisons.
    """
    low, end = pool.begin[state], pool.end[state]
    width = pool.widest.shape[0]
    pivots = jnp.arange(1, PIVOTS + 1, dtype=jnp.int32).reshape((1,) * low.ndim + (PIVOTS,))
    while width > 1:  # static: the arcs that may be the first one that is not less
        width = -(-width // (PIVOTS + 1))
        places = low[..., None] + width * pivots
        less = (places <= end[..., None]) & (pool.labels[places - 1] < label[..., None])
        low = low + width * less.sum(axis=-1, dtype=jnp.int32)
    return (low < end) & (pool.labels[low] == label), low
