"""The joint network: combines an encoder frame and a prediction into logits over labels and blank."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from nemojax.config import ModelConfig
from nemojax.model.layers import Linear


class Joint(nnx.Module):
    """The joint network relu(W_e e + W_p p) W_o. Its projections are computed once per frame and once per label."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        width = config.joint.width
        self.encoder = Linear(config.encoder.width, width, rngs=rngs)
        self.prediction = Linear(config.prediction.width, width, rngs=rngs)
        self.output = Linear(width, config.labels, rngs=rngs)

    def logits(
        self, frame: Float[Array, "*#batch J"], prediction: Float[Array, "*#batch J"]
    ) -> Float[Array, "*#batch V"]:
        """Computes the logits of projected frames and projected predictions, in float32."""
        return self.output(jax.nn.relu(frame + prediction))

    def log_probs(self, logits: Float[Array, "B V"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
        """Computes the log-probability of one label in each row of logits."""
        return logits[jnp.arange(labels.shape[0], dtype=jnp.int32), labels] - self.log_sum_exp(logits)

    def log_sum_exp(self, logits: Float[Array, "B V"]) -> Float[Array, " B"]:
        """Computes the logarithm of the sum of exponentials of each row."""
        return jax.nn.logsumexp(logits, axis=-1)
