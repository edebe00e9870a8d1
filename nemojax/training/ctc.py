"""An auxiliary loss for a transducer's first steps: CTC (Graves et al. 2006) through its own joint network.

A transducer can lower its loss without the sound for a long while: by what texts are like, and by when words come. Here
the joint network is given the encoder's frame alone, without the labels before, so the frame must say what is heard.
There are no parameters of its own. The small model's card has what it did there.
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
    """Minus the log-probability of each row's labels; 0 where they do not fit into the frames, or there are none.

    Args:
      encoded: the encoder's frames, projected for the joint network.
      kernel, bias: the joint network's output layer.
    """
    frames, count = jnp.arange(encoded.shape[1])[None], jnp.arange(labels.shape[1])[None]
    frame_padding = (frames >= frame_lengths[:, None]).astype(jnp.float32)
    label_padding = (count >= label_lengths[:, None]).astype(jnp.float32)
    # padding may hold anything: it must not reach a logit
    heard = jnp.where(frame_padding[..., None] > 0, 0.0, encoded)
    logits = einsum("btj,jv->btv", jax.nn.relu(heard), kernel) + broadcast_vector(bias, 3)
    repeats = (labels[:, 1:] == labels[:, :-1]) & (label_padding[:, 1:] == 0)  # a blank must part them
    fits = (frame_lengths > 0) & (frame_lengths >= label_lengths + repeats.sum(1))
    return jnp.where(fits, optax.ctc_loss(logits, frame_padding, labels, label_padding, blank_id=blank), 0.0)
