"""Frame-synchronous beam search: modified adaptive expansion (MAES), as one bounded while-loop for all streams.

At each frame, every hypothesis is extended by its best labels, up to `expansions` times, and the `width` best remain
(Kim et al. 2020, arXiv 2201.05420, as NeMo has it, without its faults). Nothing waits between frames, so what is
carried from chunk to chunk is the beam alone, and the result does not depend on how a recording is cut.

All scores but the chosen ones of a frame are sums in one order, row by row: a stream's result does not depend on the
batch either.
"""

import math
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from nemojax.checks import check_count
from nemojax.decoding.beam_fusion import BLANK_SCORINGS, BeamFusion, Fusing, initial_beam_fusion, no_graphs
from nemojax.decoding.beam_scores import Graphed, Proposals, Scores, propose, score_frames
from nemojax.decoding.confidence import Confidence
from nemojax.decoding.graphs import Graphs
from nemojax.decoding.largest import largest
from nemojax.decoding.state import BeamEmission, PredictionState, predict_extended
from nemojax.decoding.trace import NO_LABEL, Trace
from nemojax.errors import ConfigError
from nemojax.model.transducer import Transducer

HASHES = np.array((0x01000193, 0x85EBCA6B), np.uint32)  # odd factors; two hashes of 32 bits, for jax has no 64
WIDEST = 64  # hypotheses: a place takes a few kilobytes of each stream's state


class BeamState(NamedTuple):
    """The hypotheses of every stream, the best one first; no two of a stream have the same labels.

    A stream's scores are relative to `total`, so that they stay exact over hours.
    """

    total: Float[Array, " B"]  # log-probability of the best hypothesis at the last expansion
    score: Float[Array, "B W"]  # log-probability of the labels so far, less `total`; -inf in an empty place
    length: Int[Array, "B W"]  # labels so far
    last: Int[Array, "B W"]  # the last label
    labels: UInt[Array, "B W 2"]  # hashes of the labels so far
    prefix: UInt[Array, "B W 2"]  # hashes of the labels before the last one
    prediction: PredictionState  # of every hypothesis, [B, W, ...]


class FusedBeam(NamedTuple):
    """The state of a beam with graphs."""

    beam: BeamState
    fusion: BeamFusion


class _Cursor(NamedTuple):
    frame: Int[Array, " B"]
    expansion: Int[Array, " B"]  # expansions of `frame` so far; as many as there can be: blanks are still due
    open: Bool[Array, "B W"]  # hypotheses that have not left `frame` by a blank, after the first expansion
    beam: BeamState
    fusion: BeamFusion | None
    trace: Trace


@dataclass(frozen=True)
class Beam:
    """Frame-synchronous beam search: several hypotheses at once, of which the best one is the transcript.

    Text is final once all hypotheses of a stream share it; until then it is the `tentative` text of an `Update`. At the
    end the best hypothesis is that of the highest score, divided by its labels + 1 if `score_norm`.

    Its state is a `BeamState`. `window_frames` are scored at once: it changes the speed, not the result.

    Args:
      width: hypotheses of a stream, 1 to 64. A beam of one hypothesis is not greedy search: it compares whole frames.
      expansions: labels that a hypothesis can gain at one frame.
      beta: each hypothesis proposes its `width + beta` best labels, blank among them, ...
      gamma: ... as far as their log-probability is less than this below that of its best one.
      score_norm: whether the final order divides scores by labels + 1; scores themselves are never divided.
      confidence: the measure of the labels' confidences, which an emission has then.
      fusion: whether the scores of graphs, a language model and phrases, are added to those of labels.
      blank_scoring: "lm_weighted_full", for language models, or "no_score"; see `beam_fusion`.
      n_best: the number of hypotheses that a transcript lists, the best one first; 0 for none.

    Raises:
      ConfigError: an argument is not a number in its range.
    """

    width: int = 4
    expansions: int = 2
    beta: int = 2
    gamma: float = 2.3
    score_norm: bool = True
    window_frames: int = 4
    confidence: Confidence | None = None
    fusion: bool = False
    blank_scoring: str = "lm_weighted_full"
    n_best: int = field(default=0, compare=False)  # for the host alone: the compiled step is the same

    def __post_init__(self) -> None:
        check_width(self.width)
        for name in ("expansions", "window_frames"):
            check_count(f"{name} of a beam", getattr(self, name))
        for name in ("beta", "n_best"):
            check_count(f"{name} of a beam", getattr(self, name), 0)
        if self.n_best > self.width:
            raise ConfigError(f"n_best must be at most the width of the beam, {self.width}, not {self.n_best}")
        if self.blank_scoring not in BLANK_SCORINGS:
            known = " or ".join(BLANK_SCORINGS)
            raise ConfigError(f"blank_scoring of a beam must be {known}, not {self.blank_scoring!r}")
        number = isinstance(self.gamma, Real) and not isinstance(self.gamma, bool)
        if not number or math.isnan(self.gamma) or self.gamma <= 0:
            raise ConfigError(f"gamma of a beam must be a number of more than 0, not {self.gamma!r}")

    def initial_state(self, prediction: PredictionState, batch: int) -> BeamState | FusedBeam:
        """Returns the state of streams without labels: one hypothesis, and empty places."""
        shape = batch, self.width
        places = lambda x: jnp.broadcast_to(x[:, None], (*shape, *x.shape[1:]))
        zeros = lambda dtype, *more: jnp.zeros((*shape, *more), dtype)
        state = BeamState(
            jnp.zeros(batch, jnp.float32),
            jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(0.0),
            zeros(jnp.int32),
            zeros(jnp.int32),
            zeros(jnp.uint32, 2),
            zeros(jnp.uint32, 2),
            jax.tree.map(places, prediction),
        )
        return self.add_fusion(state, batch) if self.fusion else state

    def with_fusion(self) -> "Beam":
        """Returns the same search with `fusion`."""
        return replace(self, fusion=True)

    def add_fusion(self, state: Any, batch: int) -> FusedBeam:
        """Returns the state of `with_fusion` from that without."""
        return FusedBeam(state, initial_beam_fusion(batch, self.width))

    def decode(
        self,
        model: Transducer,
        encoded: Float[Array, "B T D"],
        length: Int[Array, " B"],
        state: Any,
        graphs: Graphs | None = None,
    ) -> tuple[BeamEmission, Any]:
        """Continues every stream over the first `length` of its encoded frames; `graphs` are for `fusion`."""
        if not self.fusion:
            emission, beam, _ = self._decode(model, encoded, length, state, None, None)
            return emission, beam
        fusing = Fusing(no_graphs(len(encoded)) if graphs is None else graphs, self.blank_scoring)
        fusion = fusing.enter(state.fusion, length > 0)
        # of new graphs, what is pending counts as if they had been there from the start
        score = state.beam.score + (fusion.pending - state.fusion.pending)
        beam = state.beam._replace(score=score)
        emission, beam, fusion = self._decode(model, encoded, length, beam, fusing, fusion)
        return emission._replace(score=emission.score - fusion.pending), FusedBeam(beam, fusion)

    def _decode(
        self,
        model: Transducer,
        encoded: Float[Array, "B T D"],
        length: Int[Array, " B"],
        beam: BeamState,
        fusing: Fusing | None,
        fusion: Any,
    ) -> tuple[BeamEmission, BeamState, Any]:
        batch, frames, _ = encoded.shape
        with jax.named_scope("joint"):
            projected_BTJ = model.joint.encoder(encoded)
        cursor = _Cursor(
            jnp.zeros(batch, jnp.int32),
            jnp.zeros(batch, jnp.int32),
            jnp.zeros((batch, self.width), bool),
            beam,
            fusion,
            Trace.empty(batch, frames * self.expansions, self.width, self.confidence is not None),
        )
        advance = lambda c: self._advance(model, projected_BTJ, length, fusing, c)
        cursor = jax.lax.while_loop(lambda c: jnp.any(c.frame < length), advance, cursor)
        beam = cursor.beam
        return cursor.trace.follow(self.expansions, beam.score, beam.total), beam, cursor.fusion

    def _advance(
        self, model: Transducer, projected_BTJ: Array, length: Int[Array, " B"], fusing: Fusing | None, c: _Cursor
    ) -> _Cursor:
        """Takes every stream past the frames that only blanks can follow, and through one expansion."""
        beam, frames, window = c.beam, projected_BTJ.shape[1], min(self.window_frames, projected_BTJ.shape[1])
        index = c.frame[:, None] + jnp.arange(window, dtype=jnp.int32)[None]
        inside = index < length[:, None]
        frames_BFJ = jnp.take_along_axis(projected_BTJ, jnp.minimum(index, frames - 1)[..., None], axis=1)
        graphed = None if fusing is None or c.fusion is None else Graphed(fusing, c.fusion)
        scores = score_frames(model, frames_BFJ, beam.prediction.output, beam.last, graphed, self.gamma)
        prefix = _prefixes(beam)

        # where all expansions of a frame are taken, the hypotheses still at it take their blanks
        ended, within = c.expansion == self.expansions, (c.expansion > 0) & (c.expansion < self.expansions)
        score = beam.score + jnp.where(ended[:, None] & c.open, scores.blank[:, :, 0], 0.0)
        alone = scores.best_label <= scores.blank - self.gamma  # blank is proposed alone
        quiet = jnp.all(alone | ~_live(beam)[:, :, None], axis=1)
        passing, at = ~within & (c.frame < length), jnp.zeros_like(c.frame)
        for ahead in range(window):
            now = passing & inside[:, ahead] & ((ahead > 0) | ~ended)
            passing = passing & (~inside[:, ahead] | quiet[:, ahead] | ((ahead == 0) & ended))
            at = jnp.where(now & ~passing, ahead, at)
            after = _merge(score, scores.extension[:, :, ahead], prefix) + scores.blank[:, :, ahead]
            score = jnp.where((now & passing)[:, None], after, score)
        expands = ~passing & (c.frame < length)

        rows = lambda x: jnp.take_along_axis(x, at.reshape(-1, *[1] * (x.ndim - 1)), axis=2)[:, :, 0]
        here = Scores(*map(rows, scores))
        score = jnp.where((expands & ~within)[:, None], _merge(score, here.extension, prefix), score)
        is_open = jnp.where(within[:, None], c.open, True)
        blank = model.config.blank
        count = min(self.width + self.beta, model.config.labels)
        proposals = propose(blank, here, count, graphed, is_open & expands[:, None] & _live(beam))
        chosen = self._choose(blank, proposals, score, is_open, prefix, beam)
        parent = jnp.where(expands[:, None], chosen.parent, jnp.arange(self.width, dtype=jnp.int32)[None])
        label = jnp.where(expands[:, None], chosen.label, NO_LABEL)
        best = jnp.where(expands, chosen.score[:, 0], 0.0)
        score = jnp.where(expands[:, None], chosen.score - best[:, None], score)

        frame = c.frame + jnp.where(expands, at, window)
        extended = label != NO_LABEL
        stays = expands & extended.any(axis=1)
        return _Cursor(
            jnp.where(expands & ~stays, frame + 1, jnp.minimum(frame, jnp.maximum(length, c.frame))),
            jnp.where(stays, jnp.where(within, c.expansion, 0) + 1, 0),
            extended,
            _extend(model, beam, beam.total + best, score, parent, label),
            None if graphed is None else graphed.fusing.follow(graphed.fusion, parent, label, extended),
            c.trace.write(
                expands,
                frame * self.expansions + jnp.where(within, c.expansion, 0),
                parent,
                label,
                chosen.log_prob,
                self._confidence(model, here.logits, parent, label),
            ),
        )

    def _confidence(
        self, model: Transducer, logits: Float[Array, "B W V"], parent: Int[Array, "B W"], label: Int[Array, "B W"]
    ) -> Float[Array, "B W"] | None:
        if self.confidence is None:
            return None
        rows = jnp.take_along_axis(logits, parent[..., None], axis=1).reshape(-1, logits.shape[-1])
        flat = self.confidence.of_labels(model.joint, rows, jnp.maximum(label, 0).reshape(-1))
        return flat.reshape(label.shape)

    def _choose(
        self,
        blank: int,
        proposals: Proposals,
        score: Float[Array, "B W"],
        is_open: Bool[Array, "B W"],
        prefix: Bool[Array, "B W W"],
        beam: BeamState,
    ) -> "_Chosen":
        """Returns the best of what the open hypotheses propose and of those that have left the frame."""
        labels, scores, log_probs = proposals
        count = labels.shape[-1]
        fits = (scores > scores[..., :1] - self.gamma) & is_open[..., None]
        # a label that leads to a hypothesis of the beam: `_merge` has counted it
        known = prefix[:, :, None, :] & (beam.last[:, None, None, :] == labels[..., None])
        fits &= ~known.any(axis=-1) | (labels == blank)
        proposed = jnp.where(fits, score[..., None] + scores, -jnp.inf)
        left = jnp.where(is_open, -jnp.inf, score)
        flat = lambda x: x.reshape(x.shape[0], -1)
        best, place = largest(jnp.concatenate([flat(proposed), left], axis=1), self.width)
        remains = place >= self.width * count
        parent = jnp.where(remains, place - self.width * count, place // count)
        proposal = jnp.minimum(place, self.width * count - 1)
        label = jnp.take_along_axis(flat(labels), proposal, axis=1)
        label = jnp.where(remains | (label == blank) | (best == -jnp.inf), NO_LABEL, label)
        return _Chosen(best, parent, label, jnp.take_along_axis(flat(log_probs), proposal, axis=1))


class _Chosen(NamedTuple):
    """The hypotheses that remain: what they come from, and the label that each has gained."""

    score: Float[Array, "B W"]
    parent: Int[Array, "B W"]
    label: Int[Array, "B W"]
    log_prob: Float[Array, "B W"]


def _live(beam: BeamState) -> Bool[Array, "B W"]:
    return beam.score > -jnp.inf


def _prefixes(beam: BeamState) -> Bool[Array, "B W W"]:
    """Returns whether hypothesis i, with one more label, is hypothesis j: [B, i, j]."""
    live = _live(beam)
    same = (beam.labels[:, :, None] == beam.prefix[:, None]).all(axis=-1)
    return same & (beam.length[:, :, None] + 1 == beam.length[:, None]) & live[:, :, None] & live[:, None]


def _merge(
    score: Float[Array, "B W"], extension: Float[Array, "B W W"], prefix: Bool[Array, "B W W"]
) -> Float[Array, "B W"]:
    """Adds to the probability of each hypothesis that of its prefix with the last label at this frame."""
    # at most one hypothesis is the prefix, so the maximum is its score
    extended = jnp.where(prefix, score[:, :, None] + extension, -jnp.inf).max(axis=1)
    return jnp.where(extended > -jnp.inf, jnp.logaddexp(score, extended), score)


def _extend(
    model: Transducer,
    beam: BeamState,
    total: Float[Array, " B"],
    score: Float[Array, "B W"],
    parent: Int[Array, "B W"],
    label: Int[Array, "B W"],
) -> BeamState:
    """Moves the hypotheses to their places, and appends the labels that they have gained."""
    of_parent = lambda x: jnp.take_along_axis(x, parent.reshape(*parent.shape, *[1] * (x.ndim - 2)), axis=1)
    length, last, labels, prefix = map(of_parent, (beam.length, beam.last, beam.labels, beam.prefix))
    extended = label != NO_LABEL
    mixed = (labels ^ (labels >> 15)) * HASHES[None, None] + label[..., None].astype(jnp.uint32) + 1

    prediction = predict_extended(model, extended, label, jax.tree.map(of_parent, beam.prediction))
    return BeamState(
        total,
        score,
        length + extended.astype(jnp.int32),
        jnp.where(extended, label, last),
        jnp.where(extended[..., None], mixed, labels),
        jnp.where(extended[..., None], labels, prefix),
        prediction,
    )


def check_width(width: int) -> None:
    """Raises ConfigError for a beam that is too narrow or too wide."""
    check_count("width of a beam", width)
    if width > WIDEST:
        raise ConfigError(f"width of a beam must be at most {WIDEST} hypotheses, not {width}")
