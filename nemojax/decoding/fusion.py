"""Shallow fusion: the scores of graphs are added to those of labels, and each stream keeps its place in its graphs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.graphs import COLUMNS, Graphs, advance

RECENT = 64  # labels: what a graph's state depends on, and so the longest phrase
CANDIDATES = 16  # labels that are scored at once


class FusionState(NamedTuple):
    """A stream's places in its graphs, and what places in other graphs follow from."""

    states: Int[Array, "B G"]
    numbers: Int[Array, "B G"]  # of the graphs that these are states of
    recent: Int[Array, "B N"]  # the last labels, the newest last; -1 before the first


class Fused(NamedTuple):
    """The state of a search with graphs."""

    search: Any
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
        labels = (fusion.recent >= 0).any(axis=0)
        first = jnp.where(labels.any(), jnp.argmax(labels), RECENT).astype(jnp.int32)  # before it no stream has one

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
    left: Float[Array, "B G L"]  # logits of the labels that are not scored yet
    more: Bool[Array, " B"]  # one of these may be better


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
    scored = lambda: _best_of_all(graphs, fusion.states, best, logits, active)
    choice: Choice = jax.lax.cond(has_graph.any(), scored, lambda: plain)
    return choice


def _best_of_all(
    graphs: Graphs,
    states: Int[Array, "B G"],
    best: Int[Array, " B"],
    logits: Float[Array, "B V"],
    active: Bool[Array, " B"],
) -> Choice:
    """Scores probable labels first, until no other can have a higher fused score: the result is that of scoring all.

    The most probable one is scored alone, for mostly no other can win. Then labels are in `CANDIDATES` groups, and the
    most probable of each group are scored at once: a sort would take longer.
    """
    batch, labels = logits.shape
    streams, each = jnp.arange(batch, dtype=jnp.int32), -(-labels // CANDIDATES)
    first = each * jnp.arange(CANDIDATES, dtype=jnp.int32)[None]
    index = jnp.arange(each, dtype=jnp.int32)[None, None]
    most = added_scores(graphs, graphs.pool.most[states])

    def after(score: Float[Array, " B"], choice: Choice, left: Float[Array, "B G L"]) -> _Best:
        next_one = left.max(axis=(1, 2))
        return _Best(score, choice, left, active & (next_one + most >= score) & (next_one > -jnp.inf))

    def score(best: _Best) -> _Best:
        place = jax.lax.argmax(best.left, 2, jnp.int32)
        candidates, values = first + place, best.left.max(axis=2)
        scores, targets = advance(graphs.pool, states[:, None], candidates[..., None])
        fused = values + added_scores(graphs, scores)
        highest = fused.max(axis=1)
        chosen = jnp.where(fused == highest[:, None], candidates, labels).argmin(axis=1)
        label = candidates[streams, chosen]
        better = (highest > best.score) | ((highest == best.score) & (label < best.choice.label))
        choice = Choice(
            jnp.where(better, label, best.choice.label),
            jnp.where(better[:, None], targets[streams, chosen], best.choice.states),
        )
        left = jnp.where(index == place[..., None], -jnp.inf, best.left)
        return after(jnp.maximum(highest, best.score), choice, left)

    padding = ((0, 0), (0, CANDIDATES * each - labels))
    groups = jnp.pad(logits, padding, constant_values=-jnp.inf).reshape(batch, CANDIDATES, each)
    scores, targets = advance(graphs.pool, states, best[:, None])
    left = jnp.where(first[..., None] + index == best[:, None, None], -jnp.inf, groups)
    alone = after(logits[streams, best] + added_scores(graphs, scores), Choice(best, targets), left)
    return jax.lax.while_loop(lambda best: best.more.any(), score, alone).choice


def follow(fusion: FusionState, choice: Choice, found: Bool[Array, " B"]) -> FusionState:
    """Returns the state after a label, of the streams that have found one."""
    recent = jnp.concatenate([fusion.recent[:, 1:], choice.label[:, None]], axis=1)
    return FusionState(
        jnp.where(found[:, None], choice.states, fusion.states),
        fusion.numbers,
        jnp.where(found[:, None], recent, fusion.recent),
    )
