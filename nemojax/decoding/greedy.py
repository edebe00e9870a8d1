"""Greedy RNN-T search as one bounded while-loop that runs once per label, not once per frame.

Each stream scores a window of frames with its present prediction and takes the first label that is not blank, or moves
past the window (label-looping: Bataev et al. 2024, arXiv 2406.06220). The result is that of the two nested loops over
frames and labels, whatever the window.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.decoding.state import Emission, PredictionState, predict_next, where_rows
from nemojax.model.transducer import Transducer


class _Cursor(NamedTuple):
    frame: Int[Array, " B"]
    emitted: Int[Array, " B"]  # labels emitted at `frame`
    state: PredictionState
    emission: Emission


@dataclass(frozen=True)
class Greedy:
    """Greedy search: the most probable label at each frame.

    Its state is the prediction network's. `window_frames` are scored at once: it changes the speed, not the result;
    windows of more frames than 14 are mostly wasted on speech.
    """

    window_frames: int = 14

    def initial_state(self, prediction: PredictionState, batch: int) -> PredictionState:
        """Returns the state of streams without labels."""
        state: PredictionState = jax.tree.map(lambda x: jnp.repeat(x, batch, axis=0), prediction)
        return state

    def decode(
        self, model: Transducer, encoded: Float[Array, "B T D"], length: Int[Array, " B"], state: PredictionState
    ) -> tuple[Emission, PredictionState]:
        """Continues every stream over the first `length` of its encoded frames."""
        return decode(model, encoded, length, state, min(self.window_frames, encoded.shape[1]))


def decode(
    model: Transducer,
    encoded: Float[Array, "B T D"],
    length: Int[Array, " B"],
    state: PredictionState,
    window: int,
) -> tuple[Emission, PredictionState]:
    """Continues every stream over the first `length` of its encoded frames.

    `window` is the number of frames that one iteration scores: it changes the speed, not the result. At most
    `config.max_symbols_per_frame` labels are emitted at a frame.
    """
    config, (batch, frames, _) = model.config, encoded.shape
    capacity = frames * config.max_symbols_per_frame  # labels
    streams, ahead = jnp.arange(batch), jnp.arange(window)[None]
    with jax.named_scope("joint"):
        projected_BTJ = model.joint.encoder(encoded)

    def advance(c: _Cursor) -> _Cursor:
        index = c.frame[:, None] + ahead
        frames_BWJ = jnp.take_along_axis(projected_BTJ, jnp.minimum(index, frames - 1)[..., None], axis=1)
        with jax.named_scope("joint"):
            logits_BWV = model.joint.logits(frames_BWJ, c.state.output[:, None])
        best_BW = jnp.argmax(logits_BWV, axis=-1)
        spoken = (best_BW != config.blank) & (index < length[:, None])
        offset, found = jnp.argmax(spoken, axis=1), spoken.any(axis=1)
        label, logits_BV = best_BW[streams, offset], logits_BWV[streams, offset]
        log_prob = logits_BV[streams, label] - jax.nn.logsumexp(logits_BV, axis=-1)

        frame = c.frame + jnp.where(found, offset, window)
        emitted = jnp.where(found, jnp.where(offset > 0, 0, c.emitted) + 1, 0)
        full = emitted == config.max_symbols_per_frame  # then the stream moves on, as after a blank
        slot = jnp.where(found, c.emission.length, capacity)  # out of range drops the write
        write = lambda row, value: row.at[streams, slot].set(value, mode="drop")
        emission = Emission(
            write(c.emission.labels, label),
            write(c.emission.frames, frame),
            write(c.emission.log_probs, log_prob),
            c.emission.length + found,
        )
        state = where_rows(found, predict_next(model, label, c.state.lstm), c.state)
        return _Cursor(frame + full, jnp.where(full, 0, emitted), state, emission)

    zero = jnp.zeros(batch, jnp.int32)
    blank = Emission(
        jnp.full((batch, capacity), config.blank, jnp.int32),
        jnp.zeros((batch, capacity), jnp.int32),
        jnp.zeros((batch, capacity)),
        zero,
    )
    cursor = _Cursor(zero, zero, state, blank)
    cursor = jax.lax.while_loop(lambda c: jnp.any(c.frame < length), advance, cursor)
    return cursor.emission, cursor.state
