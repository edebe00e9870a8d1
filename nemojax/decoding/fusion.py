"""Shallow fusion: the scores of graphs are added to those of labels, and each stream keeps its place in its graphs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.graphs import COLUMNS, Graphs, advance

RECENT = 64  # labels: what a graph's state depends on, and so the longest phrase
CANDIDATES = 16  # labels that are scored at once, the most probable first


class FusionState(NamedTuple):
    """A stream's places in its graphs, and what places in other graphs follow from."""

    states: Int[Array, "B G"]
    numbers: Int[Array, "B G"]  # of the graphs that these are states of
    recent: Int[Array, "B N"]  # the last labels, the newest last; -1 before the first


class Fused(NamedTuple):
    """The state of a search with graphs."""

    search: object
    fusion: FusionState


class Choice(NamedTuple):
    """A label for each stream, and the states of its graphs after it."""

    label: Int[Array, " B"]
    states: Int[Array, "B G"]


def initial_fusion(batch: int) -> FusionState:
    """Returns the state of streams without graphs and labels."""
    zeros = lambda: jnp.zeros((batch, COLUMNS), jnp.int32)  # two arrays: a step uses them up
    return FusionState(zeros(), zeros(), jnp.full((batch, RECENT), -1, jnp.int32))


def enter(graphs: Graphs, fusion: FusionState, active: Bool[Array, " B"]) -> FusionState:
    """Brings active streams into the graphs of their rows.

    In a graph that is new to a stream, it is where it would be if it had had that graph from its start: the last labels
    lead there.
    """
    changed = (graphs.rows.numbers != fusion.numbers) & active[:, None]

    def walk(fusion: FusionState) -> Int[Array, "B G"]:
        first = jnp.argmax((fusion.recent >= 0).any(axis=0)).astype(jnp.int32)  # before it no stream has a label

        def follow(index: Int[Array, ""], states: Int[Array, "B G"]) -> Int[Array, "B G"]:
            label = fusion.recent[:, index][:, None]
            return jnp.where(label >= 0, advance(graphs.pool, states, label)[1], states)

        states: Int[Array, "B G"] = jax.lax.fori_loop(first, RECENT, follow, graphs.rows.starts)
        return jnp.where(changed, states, fusion.states)

    states = jax.lax.cond(changed.any(), walk, lambda fusion: fusion.states, fusion)
    return fusion._replace(states=states, numbers=jnp.where(changed, graphs.rows.numbers, fusion.numbers))


def added_scores(graphs: Graphs, scores: Float[Array, "B *L G"]) -> Float[Array, "B *L"]:
    """Returns the sum of the scores of a stream's graphs by their weights."""
    weights = graphs.rows.weights.reshape(len(scores), *(1,) * (scores.ndim - 2), COLUMNS)
    return (weights * scores).sum(axis=-1)


class _Best(NamedTuple):
    score: Float[Array, " B"]
    choice: Choice
    last: Float[Array, " B"]  # the least logit of the candidates so far
    last_label: Int[Array, " B"]
    more: Bool[Array, " B"]  # a label that is no candidate yet may be better


def best_label(
    graphs: Graphs,
    fusion: FusionState,
    best: Int[Array, " B"],
    logits: Float[Array, "B V"],
    active: Bool[Array, " B"],
) -> Choice:
    """Returns the label of the highest fused score of each stream; of equal ones the lower.

    `logits` are those of labels, without blank, and `best` are the labels of the highest. What is not `active` may have
    any label. Nothing is looked up where no active stream has a graph.
    """
    has_graph = active & (fusion.numbers != 0).any(axis=1)
    plain = Choice(best, fusion.states)
    scored = lambda: _best_of_all(graphs, fusion.states, logits, active)
    choice: Choice = jax.lax.cond(has_graph.any(), scored, lambda: plain)
    return choice


def _best_of_all(
    graphs: Graphs, states: Int[Array, "B G"], logits: Float[Array, "B V"], active: Bool[Array, " B"]
) -> Choice:
    """Scores the most probable labels first, until no other can have a higher fused score: the result is the same."""
    streams = jnp.arange(len(logits), dtype=jnp.int32)
    count = min(CANDIDATES, logits.shape[1])
    most = added_scores(graphs, graphs.pool.most[states])

    def score(best: _Best, logits: Float[Array, "B V"]) -> _Best:
        values, labels = jax.lax.top_k(logits, count)
        scores, after = advance(graphs.pool, states[:, None], labels[..., None])
        fused = values + added_scores(graphs, scores)
        highest = fused.max(axis=1)
        index = jnp.argmin(jnp.where(fused == highest[:, None], labels, logits.shape[1]), axis=1)
        label = labels[streams, index]
        better = (highest > best.score) | ((highest == best.score) & (label < best.choice.label))
        choice = Choice(
            jnp.where(better, label, best.choice.label),
            jnp.where(better[:, None], after[streams, index], best.choice.states),
        )
        highest = jnp.maximum(highest, best.score)
        last = values[:, -1]
        return _Best(highest, choice, last, labels[:, -1], active & (last + most >= highest) & (last > -jnp.inf))

    def score_next(best: _Best) -> _Best:
        index = jnp.arange(logits.shape[1], dtype=jnp.int32)[None]
        last, last_label = best.last[:, None], best.last_label[:, None]
        left = (logits < last) | ((logits == last) & (index > last_label))
        return score(best, jnp.where(left, logits, -jnp.inf))

    nothing = jnp.full(len(logits), -jnp.inf, logits.dtype)
    none = Choice(jnp.full(len(logits), logits.shape[1], jnp.int32), states)
    best = score(_Best(nothing, none, nothing, none.label, active), logits)
    return jax.lax.while_loop(lambda best: best.more.any(), score_next, best).choice


def follow(fusion: FusionState, choice: Choice, found: Bool[Array, " B"]) -> FusionState:
    """Returns the state after a label, of the streams that have found one."""
    recent = jnp.concatenate([fusion.recent[:, 1:], choice.label[:, None]], axis=1)
    return FusionState(
        jnp.where(found[:, None], choice.states, fusion.states),
        fusion.numbers,
        jnp.where(found[:, None], recent, fusion.recent),
    )
