"""The sum over all alignments of labels with frames, as a loss (Graves 2012).

An alignment of U labels with T frames is a path through a lattice of T x (U + 1) nodes: at node (t, u) a
blank leads to frame t + 1, a label to position u + 1, and the last move is a blank out of (T - 1, U). The
loss is the negative log of the summed probability of all paths.

It is computed anti-diagonal by anti-diagonal, t + u, in the log semiring and in float32. Every path crosses
each anti-diagonal once, so the probabilities of crossing it add up to one. The lattice is therefore rescaled, and
its gradient normalized, on every anti-diagonal, and rounding errors do not grow with the loss.

S is U + 1, the number of label positions: before the first label, and after each.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

NEVER = -1e30  # log-probability of an impossible move; unlike -inf it makes no NaN


def lattice_loss(
    log_blank: Float[Array, "B T S"],
    log_label: Float[Array, "B T S"],
    frame_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    fastemit: float = 0.0,
) -> Float[Array, " B"]:
    """Returns each row's loss from the log-probabilities of blank and of the next label at every node.

    They need not be normalized. Values past the lengths, and the label at a row's last position, are not read. FastEmit
    and lengths without an alignment are as in `rnnt_loss`.
    """
    frames, positions = log_blank.shape[1:]
    losses = _lattice(
        float(fastemit), log_blank.astype(jnp.float32), log_label.astype(jnp.float32), frame_lengths, label_lengths
    )
    fits = (frame_lengths >= 0) & (frame_lengths <= frames) & (label_lengths >= 0) & (label_lengths < positions)
    return jnp.where(fits, losses, jnp.nan)


def _skew(x_BTS: Array) -> Array:
    """Arranges nodes by anti-diagonal, [T + S - 1, B, S]: (t, u) goes to (t + u, u); other places are NEVER."""
    batch, frames, positions = x_BTS.shape
    padded = jnp.pad(jnp.swapaxes(x_BTS, 1, 2), ((0, 0), (0, 0), (0, positions)), constant_values=NEVER)
    shifted = padded.reshape(batch, -1)[:, :-positions].reshape(batch, positions, frames + positions - 1)
    return jnp.moveaxis(shifted, 2, 0)


def _unskew(x_NBS: Array) -> Array:
    """Inverts `_skew`: returns [B, T, S]."""
    diagonals, batch, positions = x_NBS.shape
    flat = jnp.pad(jnp.moveaxis(x_NBS, 0, 2).reshape(batch, -1), ((0, 0), (0, positions)))
    return jnp.swapaxes(flat.reshape(batch, positions, diagonals + 1)[..., : diagonals + 1 - positions], 1, 2)


def _log_add(x: Array, y: Array) -> Array:
    return jnp.maximum(x, y) + jnp.log1p(jnp.exp(-jnp.abs(x - y)))


def _after(x_BS: Array) -> Array:
    """Returns the value at the next position."""
    return jnp.pad(x_BS[:, 1:], ((0, 0), (0, 1)), constant_values=NEVER)


def _before(x_BS: Array) -> Array:
    """Returns the value at the previous position."""
    return jnp.pad(x_BS[:, :-1], ((0, 0), (1, 0)), constant_values=NEVER)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lattice(fastemit: float, log_blank: Array, log_label: Array, frame_lengths: Array, label_lengths: Array) -> Array:
    return _lattice_forward(fastemit, log_blank, log_label, frame_lengths, label_lengths)[0]


def _lattice_forward(
    fastemit: float, log_blank: Array, log_label: Array, frame_lengths: Array, label_lengths: Array
) -> tuple[Array, tuple[Array, ...]]:
    """Computes the forward variables diagonal by diagonal, each scaled so that its largest value is one."""
    batch, frames, positions = log_blank.shape
    frame_mask = (jnp.arange(frames, dtype=jnp.int32)[None] < frame_lengths[:, None])[..., None]
    position, labels = jnp.arange(positions, dtype=jnp.int32)[None, None], label_lengths[:, None, None]
    blank = _skew(jnp.where(frame_mask & (position <= labels), jnp.maximum(log_blank, NEVER), NEVER))
    label = _skew(jnp.where(frame_mask & (position < labels), jnp.maximum(log_label, NEVER), NEVER))

    def step(alpha: Array, moves: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        blank_BS, label_BS = moves
        following = _log_add(alpha + blank_BS, _before(alpha + label_BS))
        scale = following.max(-1, keepdims=True)
        return following - scale, (alpha, scale[:, 0])

    start = jnp.full((batch, positions), NEVER, jnp.float32).at[:, 0].set(0.0)
    _, (alpha, scale) = jax.lax.scan(step, start, (blank, label))

    # the node after the last blank, (T, U), is the only one on its diagonal, so it is scaled to one
    end = frame_lengths + label_lengths
    log_likelihood = jnp.where(jnp.arange(scale.shape[0], dtype=jnp.int32)[:, None] < end[None], scale, 0.0).sum(0)
    possible = ~(log_likelihood < NEVER / 2)  # true for NaN
    loss = jnp.where(possible, -(1 + fastemit) * log_likelihood, jnp.inf)
    loss = jnp.where(frame_lengths == 0, 0.0, loss)
    return loss, (blank, label, alpha, end, label_lengths, possible & (frame_lengths > 0))


def _lattice_backward(fastemit: float, saved: tuple[Array, ...], cotangent: Array) -> tuple[Array, Array, None, None]:
    """Computes the backward variables likewise, and from both the probability of each move, diagonal by diagonal."""
    blank, label, alpha, end, label_lengths, possible = saved
    diagonals, batch, positions = blank.shape
    is_end = jnp.arange(positions, dtype=jnp.int32)[None] == label_lengths[:, None]
    at_end = jnp.where(is_end, jnp.float32(0), NEVER)

    def step(beta: Array, inputs: tuple[Array, ...]) -> tuple[Array, Array]:
        diagonal, blank_BS, label_BS, alpha_BS = inputs
        beta = jnp.where((diagonal + 1 == end)[:, None], at_end, beta)
        by_blank, by_label = blank_BS + beta, label_BS + _after(beta)
        moves = jnp.concatenate([alpha_BS + by_blank, alpha_BS + by_label], axis=-1)
        crossed = (possible & (diagonal < end))[:, None]
        probability = jnp.where(crossed, jax.nn.softmax(moves, axis=-1), 0.0)
        beta = _log_add(by_blank, by_label)
        return beta - beta.max(-1, keepdims=True), probability * cotangent[:, None]

    start = jnp.full((batch, positions), NEVER, jnp.float32)
    inputs = jnp.arange(diagonals, dtype=jnp.int32), blank, label, alpha
    _, probability = jax.lax.scan(step, start, inputs, reverse=True)
    d_blank, d_label = -_unskew(probability[..., :positions]), -_unskew(probability[..., positions:])
    return d_blank, (1 + fastemit) * d_label, None, None


_lattice.defvjp(_lattice_forward, _lattice_backward)
