"""An auxiliary loss for the start of training: CTC (Graves et al. 2006) through the transducer's own joint network.

At first a transducer can lower its loss for a long time without using the audio, by learning which texts are likely and
how often labels come. This loss gives the joint network the encoder's frame without a prediction, so the frame itself
must identify the label. It has no parameters of its own. The small model's card reports its effect there.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from nemojax.model.layers import broadcast_vector, einsum


def ctc_losses(
    encoded: Float[Array, "B T J"],
    kernel: Float[Array, "J V"],
    bias: Float[Array, " V"],
    labels: Int[Array, "B U"],
    frame_lengths: Int[Array, " B"],
    label_lengths: Int[Array, " B"],
    blank: int,
) -> Float[Array, " B"]:
    """Returns each row's negative log-probability of its labels.

    It is 0 for a row without frames, and for a row with too few frames for its labels.

    Args:
      encoded: encoder frames, projected for the joint network.
      kernel, bias: the joint network's output layer.
    """
    frames, count = (jnp.arange(x.shape[1], dtype=jnp.int32)[None] for x in (encoded, labels))
    frame_padding = (frames >= frame_lengths[:, None]).astype(jnp.float32)
    label_padding = (count >= label_lengths[:, None]).astype(jnp.float32)
    # padding may hold NaN, which must not reach a logit
    valid = jnp.where(frame_padding[..., None] > 0, 0.0, encoded)
    logits = einsum("btj,jv->btv", jax.nn.relu(valid), kernel) + broadcast_vector(bias, 3)
    repeats = (labels[:, 1:] == labels[:, :-1]) & (label_padding[:, 1:] == 0)  # each needs a blank between the two
    fits = (frame_lengths > 0) & (frame_lengths >= label_lengths + repeats.sum(1, dtype=jnp.int32))
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it, whatever the user has set
        losses = optax.ctc_loss(logits, frame_padding, labels, label_padding, blank_id=blank)
    return jnp.where(fits, losses.astype(jnp.float32), 0.0)
