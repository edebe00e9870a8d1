"""The convolution module of a Conformer block: causal, with the last frames in a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from nemojax.config import EncoderConfig
from nemojax.model.layers import LayerNorm, Linear, broadcast_vector, initialize


class ConvolutionCache(NamedTuple):
    """The last kernel - 1 frames after the gated linear unit, oldest first; zeros before the first frame."""

    left: Float[Array, "B C D"]


class DepthwiseConvolution(nnx.Module):
    """Convolves each channel with its own kernel over time, without padding."""

    def __init__(self, width: int, kernel: int, use_bias: bool, *, rngs: nnx.Rngs | None):
        normal = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=1)
        self.kernel = nnx.Param(initialize(normal, rngs, (kernel, width)))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32)) if use_bias else None

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B T D"]:
        kernel = self.kernel[...].astype(jnp.float32)
        frames = x.shape[1] - kernel.shape[0] + 1
        bias = jnp.zeros((1, 1, 1), jnp.float32) if self.bias is None else broadcast_vector(self.bias[...], 3)
        return sum((x[:, i : i + frames] * broadcast_vector(kernel[i], 3) for i in range(kernel.shape[0])), start=bias)


class ConvolutionModule(nnx.Module):
    """Pointwise, gated linear unit, causal depthwise, LayerNorm, SiLU, pointwise (Gulati et al. 2020, 2.2)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        width, use_bias = config.width, config.use_bias
        self.pointwise1 = Linear(width, 2 * width, use_bias, rngs=rngs)
        self.depthwise = DepthwiseConvolution(width, config.convolution_kernel, use_bias, rngs=rngs)
        self.norm = LayerNorm(width)
        self.pointwise2 = Linear(width, width, use_bias, rngs=rngs)
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> ConvolutionCache:
        """Returns the cache before the first frame: zeros. They are float32 whatever `dtype` is, as activations are."""
        return ConvolutionCache(jnp.zeros((batch, self.config.convolution_kernel - 1, self.config.width), jnp.float32))

    def step(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], cache: ConvolutionCache
    ) -> tuple[Float[Array, "B T D"], ConvolutionCache]:
        gated = jax.nn.glu(self.pointwise1(x))
        # zero past the end, as the reference masks here; a NaN in the padding stops here too
        gated = jnp.where(mask[..., None], gated, 0.0)
        window = jnp.concatenate([cache.left, gated], axis=1)
        y = self.pointwise2(jax.nn.silu(self.norm(self.depthwise(window))))
        return y, ConvolutionCache(window[:, window.shape[1] - cache.left.shape[1] :])
