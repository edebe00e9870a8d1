"""The RNN-T loss of a joint network (Graves 2012), fused with it so that no [B, T, U, V] tensor is kept.

The loss needs two numbers per node of its lattice, the log-probabilities of blank and of the next label.
`joint_log_probs` computes them from the joint's two projections, one block of frames at a time; its backward pass
computes the logits of each block again instead of keeping them. `lattice_loss` sums over the alignments.

Values past a row's lengths are never read: NaN there changes nothing and gets a gradient of zero. S is
U + 1, the number of label positions.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.model.layers import broadcast_vector, einsum
from nemojax.training.lattice import lattice_loss

BLOCK_LOGITS = 2**22  # logits computed at once, unless `frames_per_block` is given
REDUCTIONS = ("mean_batch", "mean", "sum", "mean_volume", "none")


def rnnt_loss(
    encoded: Float[Array, "B T J"],
    predicted: Float[Array, "B S J"],
    kernel: Float[Array, "J V"],
    bias: Float[Array, " V"],
    labels: Int[Array, "B U"],
    frame_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    *,
    blank: int,
    fastemit: float = 0.0,
    clamp: float = -1.0,
    reduction: str = "mean_batch",
    dropout: float = 0.0,
    key: Array | None = None,
    frames_per_block: int | None = None,
) -> Float[Array, "*batch"]:
    """Returns the loss of a joint network relu(encoded + predicted) kernel + bias, from its two projections.

    `predicted` has one row more than there are labels: row u is the prediction after u labels. The joint's
    product takes its operands in the narrowest of the given types; softmax and lattice are float32.

    Args:
      blank: the label of blank.
      fastemit: FastEmit's weight (Yu et al. 2021, equation 10). It scales the gradient of labels, and the
        reported loss, by 1 + fastemit; so this is not the reported number's gradient.
      clamp: if positive, each logit's gradient is clipped to [-clamp, clamp], after the reduction and any factor on
        the reduced loss, as NeMo does on the CPU. On a GPU NeMo clips before the reduction; for that with `mean_batch`,
        give clamp / B.
      reduction: `mean_batch`, the mean over rows; `mean`, the mean of loss / labels; `sum`; `mean_volume`, the
        sum divided by the number of all labels; `none`, one loss per row.
      dropout: the share of the joint's hidden units that is dropped, after the ReLU; needs `key`.
      frames_per_block: number of frames whose logits exist at once; the default makes about four million logits in all
        rows. It changes only time and memory (and which units are dropped).

    A row without frames is filler: it has no alignment, its loss and gradient are zero, and it counts in no mean.
    `mean` and `mean_volume` divide by at least one label, where NeMo divides by zero. If every alignment of a row has
    probability zero, its loss is inf. The loss is NaN for lengths beyond the arrays, and for labels that are not in the
    vocabulary, because compiled code can't raise. In these three cases the gradient is zero.
    """
    batch, frames, _ = encoded.shape
    positions, vocabulary = predicted.shape[1], kernel.shape[1]
    _check(labels, frames, positions, vocabulary, blank, reduction)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, not {dropout}")
    if dropout and key is None:
        raise ValueError("the joint's dropout needs a key")
    if frames_per_block is None:
        frames_per_block = BLOCK_LOGITS // (batch * positions * vocabulary)
    settings = JointSettings(blank, float(clamp), float(dropout), max(1, int(frames_per_block)))
    frame_mask, position_mask, label_mask = _masks(frames, positions, frame_lengths, label_lengths)
    encoded = jnp.where(frame_mask[..., None], encoded, 0)
    predicted = jnp.where(position_mask[..., None], predicted, 0)
    next_label, key = _next_label(labels, label_mask, vocabulary), key if dropout else None
    log_blank, log_label = joint_log_probs(settings, encoded, predicted, kernel, bias, next_label, key)
    losses = lattice_loss(log_blank, log_label, frame_lengths, label_lengths, fastemit)
    losses = _reject(losses, labels, label_mask, vocabulary)
    return reduce_losses(losses, frame_lengths, label_lengths, reduction)


def rnnt_loss_logits(
    logits: Float[Array, "B T S V"],
    labels: Int[Array, "B U"],
    frame_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    *,
    blank: int,
    fastemit: float = 0.0,
    clamp: float = -1.0,
    reduction: str = "mean_batch",
) -> Float[Array, "*batch"]:
    """Returns the `rnnt_loss` of any joint network's logits. All of them, and their gradient, are in memory at once."""
    _, frames, positions, vocabulary = logits.shape
    _check(labels, frames, positions, vocabulary, blank, reduction)
    _, _, label_mask = _masks(frames, positions, frame_lengths, label_lengths)
    next_label = _next_label(labels, label_mask, vocabulary)
    log_blank, log_label = logit_log_probs(blank, float(clamp), logits.astype(jnp.float32), next_label)
    losses = lattice_loss(log_blank, log_label, frame_lengths, label_lengths, fastemit)
    losses = _reject(losses, labels, label_mask, vocabulary)
    return reduce_losses(losses, frame_lengths, label_lengths, reduction)


def reduce_losses(
    losses: Float[Array, " B"], frame_lengths: Int[Array, " B"], label_lengths: Int[Array, " B"], reduction: str
) -> Float[Array, "*batch"]:
    """Reduces the losses of a batch to one number, with NeMo's names; rows without frames do not count."""
    counted = frame_lengths != 0
    at_least_one = lambda counts: jnp.maximum(counts, 1).astype(jnp.float32)
    match reduction:
        case "mean_batch":
            return losses.sum() / at_least_one(counted.sum(dtype=jnp.int32))
        case "mean":
            return (losses / at_least_one(label_lengths)).sum() / at_least_one(counted.sum(dtype=jnp.int32))
        case "sum":
            return losses.sum()
        case "mean_volume":
            return losses.sum() / at_least_one(jnp.where(counted, label_lengths, 0).sum(dtype=jnp.int32))
        case "none":
            return losses
        case _:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")


# From logits to log-probabilities.


class JointSettings(NamedTuple):
    """Static settings of the fused joint network."""

    blank: int
    clamp: float
    dropout: float
    frames_per_block: int


def _log_normalizer(logits: Array) -> Array:
    return jax.nn.logsumexp(logits, axis=-1)


def _blank_and_label(logits: Array, next_label: Array, blank: int) -> tuple[Array, Array]:
    """Returns the logits of blank and of the label that follows each position, [B, t, S] each."""
    index = jnp.broadcast_to(next_label[:, None, :, None], (*logits.shape[:3], 1))
    return logits[..., blank], jnp.take_along_axis(logits, index, axis=-1)[..., 0]


def _logit_gradient(
    logits: Array, normalizer: Array, next_label: Array, d_blank: Array, d_label: Array, blank: int, clamp: float
) -> Array:
    """Returns the gradient of logits from the two log-probabilities' gradients: elementwise, without a scatter.

    It is zero at a node that no alignment uses, even if the logits there are NaN.
    """
    index = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, None, None]
    at_blank, at_label = index == blank, index == next_label[:, None, :, None]
    d_blank, d_label = d_blank[..., None], d_label[..., None]
    gradient = jnp.where(at_blank, d_blank, 0) + jnp.where(at_label, d_label, 0)
    either = d_blank + d_label
    gradient -= jnp.where(either != 0, either * jnp.exp(logits - normalizer[..., None]), 0)
    return jnp.clip(gradient, -clamp, clamp) if clamp > 0 else gradient


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def logit_log_probs(
    blank: int, clamp: float, logits: Float[Array, "B T S V"], next_label: Int[Array, "B S"]
) -> tuple[Float[Array, "B T S"], Float[Array, "B T S"]]:
    """Returns the log-probabilities of blank and of the next label at every node."""
    return _logit_log_probs_forward(blank, clamp, logits, next_label)[0]


def _logit_log_probs_forward(
    blank: int, clamp: float, logits: Array, next_label: Array
) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
    normalizer = _log_normalizer(logits)
    at_blank, at_label = _blank_and_label(logits, next_label, blank)
    return (at_blank - normalizer, at_label - normalizer), (logits, normalizer, next_label)


def _logit_log_probs_backward(
    blank: int, clamp: float, saved: tuple[Array, Array, Array], cotangents: tuple[Array, Array]
) -> tuple[Array, None]:
    logits, normalizer, next_label = saved
    d_blank, d_label = cotangents
    return _logit_gradient(logits, normalizer, next_label, d_blank, d_label, blank, clamp), None


logit_log_probs.defvjp(_logit_log_probs_forward, _logit_log_probs_backward)


# The same from the joint's projections, a block of frames at a time.


def _blocks(x_BT: Array, frames: int) -> Array:
    """Splits [B, T, ...] into [blocks, B, frames, ...], with zeros after the last frame."""
    batch, total = x_BT.shape[:2]
    count = -(-total // frames)
    padded = jnp.pad(x_BT, [(0, 0), (0, count * frames - total)] + [(0, 0)] * (x_BT.ndim - 2))
    return jnp.moveaxis(padded.reshape(batch, count, frames, *x_BT.shape[2:]), 1, 0)


def _unblock(x_block: Array, total: int) -> Array:
    """Inverts `_blocks`: returns [B, total, ...]."""
    _, batch, _, *rest = x_block.shape
    return jnp.moveaxis(x_block, 0, 1).reshape(batch, -1, *rest)[:, :total]


def _frames_per_block(total: int, limit: int) -> int:
    """Returns at most `limit` frames per block, such that all blocks are about the same size."""
    return -(-total // -(-total // limit))


def _hidden(
    encoded_BtJ: Array, predicted_BSJ: Array, kernel: Array, dropout: float, key: Array | None, block: Array
) -> Array:
    """Returns the joint's hidden layer for a block of frames, [B, t, S, J], in the type of the product with it."""
    dtype = jnp.bfloat16 if jnp.bfloat16 in (encoded_BtJ.dtype, predicted_BSJ.dtype, kernel.dtype) else jnp.float32
    hidden = encoded_BtJ.astype(jnp.float32)[:, :, None] + predicted_BSJ.astype(jnp.float32)[:, None]
    hidden = jax.nn.relu(hidden)
    if key is not None:
        keep = jax.random.bernoulli(jax.random.fold_in(key, block), jnp.float32(1 - dropout), hidden.shape)
        hidden = jnp.where(keep, hidden / (1 - dropout), 0)
    return hidden.astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def joint_log_probs(
    settings: JointSettings,
    encoded: Float[Array, "B T J"],
    predicted: Float[Array, "B S J"],
    kernel: Float[Array, "J V"],
    bias: Float[Array, " V"],
    next_label: Int[Array, "B S"],
    key: Array | None,
) -> tuple[Float[Array, "B T S"], Float[Array, "B T S"]]:
    """Returns `logit_log_probs` of the joint's logits, which exist for one block of frames at a time."""
    return _joint_log_probs_forward(settings, encoded, predicted, kernel, bias, next_label, key)[0]


def _joint_log_probs_forward(
    settings: JointSettings,
    encoded: Array,
    predicted: Array,
    kernel: Array,
    bias: Array,
    next_label: Array,
    key: Array | None,
) -> tuple[tuple[Array, Array], Any]:
    frames = _frames_per_block(encoded.shape[1], settings.frames_per_block)

    def step(block: Array, encoded_BtJ: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        hidden = _hidden(encoded_BtJ, predicted, kernel, settings.dropout, key, block)
        logits = einsum("btsj,jv->btsv", hidden, kernel) + broadcast_vector(bias, 4)
        return block + 1, (*_blank_and_label(logits, next_label, settings.blank), _log_normalizer(logits))

    _, nodes = jax.lax.scan(step, jnp.int32(0), _blocks(encoded, frames))
    at_blank, at_label, normalizer = (_unblock(x, encoded.shape[1]) for x in nodes)
    saved = encoded, predicted, kernel, bias, next_label, key, normalizer
    return (at_blank - normalizer, at_label - normalizer), saved


def _joint_log_probs_backward(settings: JointSettings, saved: Any, cotangents: tuple[Array, Array]) -> tuple[Any, ...]:
    encoded, predicted, kernel, bias, next_label, key, normalizer = saved
    frames = _frames_per_block(encoded.shape[1], settings.frames_per_block)

    def step(carry: tuple[Array, ...], inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        block, d_predicted, d_kernel, d_bias = carry
        encoded_BtJ, normalizer_BtS, d_blank, d_label = inputs
        hidden = _hidden(encoded_BtJ, predicted, kernel, settings.dropout, key, block)
        logits = einsum("btsj,jv->btsv", hidden, kernel) + broadcast_vector(bias, 4)
        d_logits = _logit_gradient(logits, normalizer_BtS, next_label, d_blank, d_label, settings.blank, settings.clamp)
        d_hidden = einsum("btsv,jv->btsj", d_logits.astype(hidden.dtype), kernel)
        # a unit is zero if the ReLU cut it off or dropout dropped it: no gradient
        d_hidden = jnp.where(hidden > 0, d_hidden / (1 - settings.dropout), 0)
        carry = (
            block + 1,
            d_predicted + d_hidden.sum(1),
            d_kernel + einsum("btsj,btsv->jv", hidden, d_logits),
            d_bias + d_logits.sum((0, 1, 2)),
        )
        return carry, d_hidden.sum(2)

    zeros = (jnp.zeros(x.shape, jnp.float32) for x in (predicted, kernel, bias))
    inputs = tuple(_blocks(x, frames) for x in (encoded, normalizer, *cotangents))
    (_, *gradients), d_encoded = jax.lax.scan(step, (jnp.int32(0), *zeros), inputs)
    gradients = [_unblock(d_encoded, encoded.shape[1]), *gradients]
    cast = [g.astype(x.dtype) for g, x in zip(gradients, (encoded, predicted, kernel, bias), strict=True)]
    return (*cast, None, None)


joint_log_probs.defvjp(_joint_log_probs_forward, _joint_log_probs_backward)


# Checks and masks of the arguments.


def _check(labels: Array, frames: int, positions: int, vocabulary: int, blank: int, reduction: str) -> None:
    if frames < 1:
        raise ValueError("the RNN-T loss needs at least one frame")
    if positions != labels.shape[1] + 1:
        raise ValueError(f"{labels.shape[1]} labels need {labels.shape[1] + 1} predictions, not {positions}")
    if not 0 <= blank < vocabulary:
        raise ValueError(f"blank must be a label below {vocabulary}, not {blank}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}")


def _masks(frames: int, positions: int, frame_lengths: Array, label_lengths: Array) -> tuple[Array, Array, Array]:
    """Returns which frames, label positions and labels are valid: [B, T], [B, S] and [B, U]."""
    frame_mask = jnp.arange(frames, dtype=jnp.int32)[None] < frame_lengths[:, None]
    position = jnp.arange(positions, dtype=jnp.int32)[None]
    filled = frame_lengths[:, None] > 0
    position_mask = filled & (position <= label_lengths[:, None])
    return frame_mask, position_mask, filled & (position[:, :-1] < label_lengths[:, None])


def _next_label(labels: Array, label_mask: Array, vocabulary: int) -> Array:
    """Returns the label that follows each position, [B, S]; where none follows, a label that is in the vocabulary."""
    return jnp.pad(jnp.clip(jnp.where(label_mask, labels, 0), 0, vocabulary - 1), ((0, 0), (0, 1)))


def _reject(losses: Array, labels: Array, label_mask: Array, vocabulary: int) -> Array:
    """Sets the loss to NaN for rows with a label that is not in the vocabulary."""
    unknown = label_mask & ((labels < 0) | (labels >= vocabulary))
    return jnp.where(unknown.any(1), jnp.nan, losses)
