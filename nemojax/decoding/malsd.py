"""Alignment-length synchronous beam search (MALSD, arXiv 2506.00185) over whole recordings.

All hypotheses take one step at a time, a label or a blank, so they stand at different frames, and one that has reached
the end waits. Search over a part of a recording would therefore give something else than search over the whole: it is
for recordings whose encoder frames are all there, and for comparisons. Streams have `Beam`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.checks import check_count
from nemojax.decoding.beam import check_width
from nemojax.decoding.largest import largest
from nemojax.decoding.state import BeamEmission, PredictionState, initial_prediction, predict_extended
from nemojax.decoding.trace import NO_LABEL
from nemojax.model.transducer import Transducer


class _Beam(NamedTuple):
    """The hypotheses of every stream."""

    score: Float[Array, "B W"]  # -inf in an empty place
    frame: Int[Array, "B W"]  # at which it stands
    here: Int[Array, "B W"]  # labels at this frame
    length: Int[Array, "B W"]  # labels so far
    labels: Int[Array, "B W U"]
    frames: Int[Array, "B W U"]
    log_probs: Float[Array, "B W U"]
    prediction: PredictionState  # [B, W, ...]


@dataclass(frozen=True)
class Malsd:
    """Alignment-length synchronous beam search over whole recordings; with a `width` of 1 it is greedy search.

    It compares hypotheses that stand at different frames, so a wider beam may find a hypothesis of a lower score.

    Args:
      width: hypotheses of a recording, 1 to 64.
      max_symbols_per_frame: labels that a hypothesis can gain at one frame; None is the model's.

    Raises:
      ConfigError: an argument is not a whole number in its range.
    """

    width: int = 4
    max_symbols_per_frame: int | None = None

    def __post_init__(self) -> None:
        check_width(self.width)
        if self.max_symbols_per_frame is not None:
            check_count("max_symbols_per_frame", self.max_symbols_per_frame)

    def decode_whole(self, model: Transducer, encoded: Float[Array, "B T D"], length: Int[Array, " B"]) -> BeamEmission:
        """Returns the hypotheses of whole recordings, over the first `length` of their encoded frames."""
        batch, frames, _ = encoded.shape
        symbols = self.max_symbols_per_frame or model.config.max_symbols_per_frame
        shape = batch, self.width
        projected_BTJ = model.joint.encoder(encoded)
        of_labels = lambda fill, dtype: jnp.full((*shape, frames * symbols), fill, dtype)
        zeros = jnp.zeros(shape, jnp.int32)
        beam = _Beam(
            jnp.full(shape, -jnp.inf, jnp.float32).at[:, 0].set(0.0),
            zeros,
            zeros,
            zeros,
            of_labels(NO_LABEL, jnp.int32),
            of_labels(0, jnp.int32),
            of_labels(0.0, jnp.float32),
            jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (*shape, x.shape[-1])), initial_prediction(model)),
        )
        moves = lambda beam: (beam.score > -jnp.inf) & (beam.frame < length[:, None])
        advance = lambda beam: _merge(self._advance(model, projected_BTJ, symbols, moves(beam), beam))
        beam = jax.lax.while_loop(lambda beam: moves(beam).any(), advance, beam)
        return BeamEmission(
            beam.labels, beam.frames, beam.log_probs, beam.length, zeros, beam.score, jnp.zeros(batch, jnp.float32)
        )

    def _advance(
        self, model: Transducer, projected_BTJ: Array, symbols: int, moves: Bool[Array, "B W"], beam: _Beam
    ) -> _Beam:
        """Takes one step of the hypotheses that move; of what all propose, the best remain."""
        blank, count = model.config.blank, min(self.width, model.config.labels)
        at = jnp.minimum(beam.frame, projected_BTJ.shape[1] - 1)
        frames_BWJ = jnp.take_along_axis(projected_BTJ, at[..., None], axis=1)
        logits = model.joint.logits(frames_BWJ, beam.prediction.output)
        normalizer = model.joint.log_sum_exp(logits.reshape(-1, logits.shape[-1])).reshape(at.shape)
        values, labels = largest(logits, count)
        # a frame that is full of labels is left by a blank alone; a hypothesis at the end stays as it is
        alone = (beam.here >= symbols) | ~moves
        first = jnp.arange(count, dtype=jnp.int32)[None, None] == 0
        labels = jnp.where(alone[..., None], blank, labels)
        log_probs = jnp.where(alone[..., None], logits[..., blank, None], values) - normalizer[..., None]
        log_probs = jnp.where(moves[..., None], log_probs, 0.0)
        proposed = jnp.where(~alone[..., None] | first, beam.score[..., None] + log_probs, -jnp.inf)

        flat = lambda x: x.reshape(x.shape[0], -1)
        score, place = largest(flat(proposed), self.width)
        parent = place // count
        pick = lambda x: jnp.take_along_axis(flat(x), place, axis=1)
        of_parent = lambda x: jnp.take_along_axis(x, parent.reshape(*parent.shape, *[1] * (x.ndim - 2)), axis=1)
        label, log_prob, moved = pick(labels), pick(log_probs), of_parent(moves) & (score > -jnp.inf)
        old: _Beam = jax.tree.map(of_parent, beam)
        extended = moved & (label != blank)
        slot = jnp.where(extended, old.length, old.labels.shape[-1])  # out of range drops the write
        rows = jnp.arange(len(slot), dtype=jnp.int32)[:, None], jnp.arange(self.width, dtype=jnp.int32)[None]
        write = lambda x, value: x.at[(*rows, slot)].set(value, mode="drop")
        return _Beam(
            score,
            old.frame + (moved & ~extended).astype(jnp.int32),
            jnp.where(extended, old.here + 1, jnp.where(moved, 0, old.here)),
            old.length + extended.astype(jnp.int32),
            write(old.labels, label),
            write(old.frames, old.frame),
            write(old.log_probs, log_prob),
            predict_extended(model, extended, label, old.prediction),
        )


def _merge(beam: _Beam) -> _Beam:
    """Adds up the probabilities of hypotheses with the same labels; the best one of them remains, and its frame."""
    live = beam.score > -jnp.inf
    same = (beam.labels[:, :, None] == beam.labels[:, None]).all(axis=-1) & live[:, :, None] & live[:, None]
    order = jnp.arange(live.shape[1], dtype=jnp.int32)
    repeated = (same & (order[None, :, None] > order[None, None])).any(axis=-1)
    total = jax.nn.logsumexp(jnp.where(same, beam.score[:, None], -jnp.inf), axis=-1)
    return beam._replace(score=jnp.where(repeated | ~live, -jnp.inf, total))
