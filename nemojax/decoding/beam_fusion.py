"""Shallow fusion in a beam: the scores of graphs are added to those of the labels of every hypothesis.

With s the sum of the scores of a label by their weights, A the weight of the language model alone and b the
log-probability of blank, `lm_weighted_full` scores a label of log-probability lp by lp + A ln(1 - e^b) + s and blank by
(1 + A) b, so that a language model, which scores labels alone, does not favor blank (equation 3 of arXiv 2506.00185).
`no_score` takes lp + s and b.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.fusion import CANDIDATES, RECENT, FusionState, added_scores, enter
from nemojax.decoding.graphs import COLUMNS, LANGUAGE_MODEL, Graphs, Pool, Rows, advance
from nemojax.decoding.largest import largest

BLANK_SCORINGS = ("lm_weighted_full", "no_score")
LEAST_NOT_BLANK = 1e-6  # probability that is left for labels, at least


class BeamFusion(NamedTuple):
    """The places of every hypothesis in the graphs of its stream."""

    states: Int[Array, "B W G"]
    numbers: Int[Array, "B G"]  # of the graphs that these are states of
    recent: Int[Array, "B W N"]  # the last labels, the newest last; -1 before the first
    pending: Float[Array, "B W"]  # the part of the score that is taken back if the stream ends here


class Candidates(NamedTuple):
    """The labels of the highest fused scores, the highest first."""

    value: Float[Array, "B W N"]  # logit and score
    logit: Float[Array, "B W N"]
    score: Float[Array, "B W N"]  # of the graphs
    label: Int[Array, "B W N"]


class _Round(NamedTuple):
    best: Candidates
    last: Float[Array, "B W"]  # the least logit so far
    last_label: Int[Array, "B W"]
    more: Bool[Array, "B W"]  # a label that has not been scored yet may be better


def initial_beam_fusion(batch: int, width: int) -> BeamFusion:
    """Returns the state of streams without graphs and labels."""
    return BeamFusion(
        jnp.zeros((batch, width, COLUMNS), jnp.int32),
        jnp.zeros((batch, COLUMNS), jnp.int32),
        jnp.full((batch, width, RECENT), -1, jnp.int32),
        jnp.zeros((batch, width), jnp.float32),
    )


def no_graphs(batch: int) -> Graphs:
    """Returns the graphs of streams that have none."""
    integers, floats = jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.float32)
    pool = Pool(integers, integers, integers, floats, floats, floats, integers, floats, integers, jnp.zeros(1, bool))
    numbers = jnp.zeros((batch, COLUMNS), jnp.int32)
    return Graphs(pool, Rows(numbers, jnp.zeros((batch, COLUMNS), jnp.float32), numbers))


def label_log_prob(blank: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Returns the log-probability of all labels together from that of blank."""
    return jnp.log1p(-jnp.minimum(jnp.exp(blank), 1 - LEAST_NOT_BLANK))


class Fusing:
    """The graphs of a batch of streams, and how they score labels and blank."""

    def __init__(self, graphs: Graphs, blank_scoring: str):
        self._graphs, self._pool = graphs, graphs.pool
        weight = graphs.rows.weights[:, LANGUAGE_MODEL]
        counts = (graphs.rows.numbers[:, LANGUAGE_MODEL] != 0) & (blank_scoring == BLANK_SCORINGS[0])
        self._alpha = jnp.where(counts, weight, 0.0)

    def enter(self, fusion: BeamFusion, active: Bool[Array, " B"]) -> BeamFusion:
        """Brings active streams into the graphs of their rows; see `fusion.enter`."""
        width = fusion.states.shape[1]
        wide = lambda x: jnp.repeat(x, width, axis=0)
        flat = FusionState(
            fusion.states.reshape(-1, COLUMNS), wide(fusion.numbers), fusion.recent.reshape(-1, fusion.recent.shape[2])
        )
        rows = jax.tree.map(wide, self._graphs.rows)
        entered = enter(Graphs(self._pool, rows), flat, wide(active))
        states = entered.states.reshape(fusion.states.shape)
        return BeamFusion(states, entered.numbers[::width], fusion.recent, self._pending(states))

    def blank(self, log_prob: Float[Array, "B W *F"]) -> Float[Array, "B W *F"]:
        """Returns the scores of blank."""
        return (1 + self._over(log_prob)) * log_prob

    def offset(self, blank: Float[Array, "B W *F"]) -> Float[Array, "B W *F"]:
        """Returns what all labels score more, from the log-probability of blank."""
        return self._over(blank) * label_log_prob(blank)

    def most(self, fusion: BeamFusion) -> Float[Array, "B W"]:
        """Returns the score that no label exceeds."""
        return added_scores(self._graphs, self._pool.most[fusion.states])

    def scores(self, fusion: BeamFusion, labels: Int[Array, "B #W L"]) -> Float[Array, "B W L"]:
        """Returns the score of each of some labels after every hypothesis."""
        scored, _ = advance(self._pool, fusion.states[:, :, None], labels[..., None])
        return added_scores(self._graphs, scored)

    def best(
        self, fusion: BeamFusion, logits: Float[Array, "B W V"], count: int, active: Bool[Array, "B W"]
    ) -> Candidates:
        """Returns the labels of the highest fused scores, at most `count`; `logits` are those of labels without blank.

        The most probable labels are scored first, until no other can be among the best, so the result is that of
        scoring all. What is not `active` may have any labels.
        """
        labels = logits.shape[-1]
        count, size = min(count, labels), min(max(CANDIDATES, count), labels)
        most = self.most(fusion)

        def score(found: Candidates, logits: Float[Array, "B W V"]) -> _Round:
            logit, label = largest(logits, size)
            added = self.scores(fusion, label)
            new = Candidates(logit + added, logit, added, label)
            both = jax.tree.map(lambda x, y: jnp.concatenate([x, y], axis=-1), found, new)
            _, place = largest(both.value, count)
            best = jax.tree.map(lambda x: jnp.take_along_axis(x, place, axis=-1), both)
            last = logit[..., -1]
            more = active & (last + most >= best.value[..., -1]) & (last > -jnp.inf)
            return _Round(best, last, label[..., -1], more)

        def score_next(found: _Round) -> _Round:
            index = jnp.arange(labels, dtype=jnp.int32)[None, None]
            last, last_label = found.last[..., None], found.last_label[..., None]
            left = (logits < last) | ((logits == last) & (index > last_label))
            return score(found.best, jnp.where(left, logits, -jnp.inf))

        empty = jnp.full((*logits.shape[:-1], count), -jnp.inf, jnp.float32)
        zeros = jnp.zeros(empty.shape, jnp.int32)
        first = score(Candidates(empty, empty, jnp.zeros_like(empty), zeros), logits)
        return jax.lax.while_loop(lambda found: found.more.any(), score_next, first).best

    def follow(
        self, fusion: BeamFusion, parent: Int[Array, "B W"], label: Int[Array, "B W"], extended: Bool[Array, "B W"]
    ) -> BeamFusion:
        """Returns the places of hypotheses that come from others, after the labels that some have gained."""
        states, recent = (jnp.take_along_axis(x, parent[..., None], axis=1) for x in (fusion.states, fusion.recent))
        _, after = advance(self._pool, states, jnp.maximum(label, 0)[..., None])
        longer = jnp.concatenate([recent[..., 1:], label[..., None]], axis=-1)
        states = jnp.where(extended[..., None], after, states)
        recent = jnp.where(extended[..., None], longer, recent)
        return BeamFusion(states, fusion.numbers, recent, self._pending(states))

    def _pending(self, states: Int[Array, "B W G"]) -> Float[Array, "B W"]:
        return added_scores(self._graphs, self._pool.pending[states])

    def _over(self, x: Array) -> Array:
        return self._alpha.reshape(-1, *[1] * (x.ndim - 1))
