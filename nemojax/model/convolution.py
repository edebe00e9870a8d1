"""The convolution module of a Conformer block: causal, with the last frames in a cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import EncoderConfig
from nemojax.model.layers import LayerNorm, Linear, broadcast_vector, einsum, initialize
from nemojax.model.ring import Ring, append


class ConvolutionCache(NamedTuple):
    """The last frames after the gated linear unit, in a ring of one head; kernel - 1 of them are used."""

    frames: Ring
    length: Int[Array, " B"]  # frames of each stream so far


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
        # as products: XLA on a CPU would keep a multiplier of the size of x in memory for each block, all at once
        taps = (einsum("btd,d->btd", x[:, i : i + frames], kernel[i]) for i in range(kernel.shape[0]))
        return sum(taps, start=bias)


class ConvolutionModule(nnx.Module):
    """Pointwise, gated linear unit, causal depthwise, LayerNorm, SiLU, pointwise (Gulati et al. 2020, 2.2)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        width, use_bias = config.width, config.use_bias
        self.pointwise1 = Linear(width, 2 * width, use_bias, rngs=rngs)
        self.depthwise = DepthwiseConvolution(width, config.convolution_kernel, use_bias, rngs=rngs)
        self.norm = LayerNorm(width)
        self.pointwise2 = Linear(width, width, use_bias, rngs=rngs)
        self.cache_dtype: str | None = None  # of the frames in the cache; None is that of the weights
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> ConvolutionCache:
        """Returns the cache before the first frame. `dtype` is that of the frames, unless `cache_dtype` is set."""
        slots = self.config.convolution_kernel - 1 + self.config.largest_chunk_frames
        ring = Ring.zeros(batch, 1, slots, self.config.width, self.cache_dtype or dtype)
        return ConvolutionCache(ring, jnp.zeros(batch, jnp.int32))

    def step(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], cache: ConvolutionCache
    ) -> tuple[Float[Array, "B T D"], ConvolutionCache]:
        gated = jax.nn.glu(self.pointwise1(x))
        # zero past the end, as the reference masks here; a NaN in the padding stops here too
        gated = jnp.where(mask[..., None], gated, 0.0)
        new = cache.frames.stored(gated[:, None])
        context = self.config.convolution_kernel - 1
        before, ring = append(cache.frames, new, cache.length, mask, context)
        # rounded as in the cache, so that the result does not depend on the cut
        window = jnp.concatenate([ring.values(jnp.float32) for ring in (before, new)], axis=2)[:, 0].astype(jnp.float32)
        y = self.pointwise2(jax.nn.silu(self.norm(self.depthwise(window))))
        return y, ConvolutionCache(ring, cache.length + mask.sum(1, dtype=jnp.int32))
