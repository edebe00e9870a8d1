"""Log-mel frames to encoder frames: three causal convolutions of stride 2, time and frequency alike.

Encoder frame t sees log-mel frames [8t - 14, 8t] and none after: each stage's output i sees its inputs
2i - 2, 2i - 1 and 2i. Frames with a negative index, and those at or past the length, are zero at every
stage, where a convolution of zeros would give its bias.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from nemojax.config import ModelConfig
from nemojax.model.layers import Linear, broadcast_vector, einsum, initialize

KERNEL = 3
STRIDE = 2
STAGES = 3
RELU_GAIN = 2.0  # keeps the variance through a ReLU (He et al. 2015)
# mean and deviation of the log-mel input that fresh weights assume: speech at an ordinary level
LOG_MEL_MEAN, LOG_MEL_DEVIATION = -11.4, 3.8


class SubsamplingCache(NamedTuple):
    """The last input frame of each stage (kernel - stride = 1 of them)."""

    stages: tuple[Float[Array, "B 1 freq channels"], ...]


def bins_per_stage(config: ModelConfig) -> list[int]:
    """Returns the frequency bins before each stage and after the last: 128, 65, 33, 17."""
    bins = [config.features.mel_bins]
    for _ in range(STAGES):
        bins.append(bins[-1] // STRIDE + 1)
    return bins


def window_taps(x: Float[Array, "B F freq channels"], cache: Float[Array, "B 1 freq channels"]) -> list[Array]:
    """Returns the 9 inputs of every output of a 3 x 3 convolution of stride 2, in row-major order.

    Each tap is [B, F/2, freq/2 + 1, channels]. Time continues from the cached frame; frequency is padded by
    two bins below and one above.
    """
    x = jnp.concatenate([cache.astype(x.dtype), x], axis=1)
    x = jnp.pad(x, ((0, 0), (0, 0), (KERNEL - 1, STRIDE - 1), (0, 0)))
    frames, bins = (x.shape[1] - KERNEL) // STRIDE + 1, (x.shape[2] - KERNEL) // STRIDE + 1
    return [
        x[:, dt : dt + STRIDE * frames - 1 : STRIDE, df : df + STRIDE * bins - 1 : STRIDE]
        for dt in range(KERNEL)
        for df in range(KERNEL)
    ]


class Convolution(nnx.Module):
    """A 3 x 3 convolution from one input channel, or a depthwise one (each channel with its own kernel)."""

    def __init__(self, channels: int, gain: float, *, rngs: nnx.Rngs | None):
        normal = nnx.initializers.variance_scaling(gain, "fan_in", "normal", in_axis=(0, 1), out_axis=3)
        self.kernel = nnx.Param(initialize(normal, rngs, (KERNEL, KERNEL, 1, channels)))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(
        self, x: Float[Array, "B F freq channels"], cache: Float[Array, "B 1 freq channels"]
    ) -> Float[Array, "B T bins out"]:
        kernel = self.kernel[...].astype(jnp.float32).reshape(KERNEL * KERNEL, -1)
        taps = window_taps(x, cache)
        bias = broadcast_vector(self.bias[...], 4)
        if x.shape[-1] == 1:
            return self.product(jnp.concatenate(taps, axis=-1), kernel) + bias
        return sum((tap.astype(jnp.float32) * broadcast_vector(kernel[i], 4) for i, tap in enumerate(taps)), start=bias)

    def product(self, taps: Float[Array, "B T bins taps"], kernel: Float[Array, "taps out"]) -> Array:
        """Multiplies the taps of one input channel with the kernel."""
        return einsum("bfik,kc->bfic", taps, kernel)


class Subsampling(nnx.Module):
    """`dw_striding` subsampling by 8: a convolution, two depthwise separable ones, a linear layer."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        channels = config.encoder.subsampling_channels
        self.conv_in = Convolution(channels, RELU_GAIN, rngs=rngs)
        # The initializer assumes inputs of mean 0 and deviation 1, so log-mel input is normalized by the first kernel
        # and bias. Otherwise every channel would follow the mean, and hide everything else from later layers.
        kernel = self.conv_in.kernel[...] / LOG_MEL_DEVIATION
        self.conv_in.kernel = nnx.Param(kernel)
        self.conv_in.bias = nnx.Param(-LOG_MEL_MEAN * kernel.sum((0, 1, 2)))
        self.depthwise = nnx.List([Convolution(channels, 1.0, rngs=rngs) for _ in range(STAGES - 1)])
        self.pointwise = nnx.List([Linear(channels, channels, gain=RELU_GAIN, rngs=rngs) for _ in range(STAGES - 1)])
        flat = channels * bins_per_stage(config)[-1]
        self.linear = Linear(flat, config.encoder.width, gain=RELU_GAIN, rngs=rngs)
        self.rounded = "float32"  # the type of the frames between stages
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> SubsamplingCache:
        """Returns the cache before the first frame: zeros, float32 whatever `dtype` is, as activations are."""
        bins, channels = bins_per_stage(self.config), self.config.encoder.subsampling_channels
        shapes = [(batch, 1, bins[i], channels if i else 1) for i in range(STAGES)]
        return SubsamplingCache(tuple(jnp.zeros(shape, jnp.float32) for shape in shapes))

    def step(
        self, log_mel: Float[Array, "B F M"], mask: Bool[Array, "B F"], cache: SubsamplingCache
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], SubsamplingCache]:
        """Computes the encoder frames of a segment whose first log-mel frame has index 8t - 7, and which are valid.

        F is a multiple of 8. `mask` is false before the first log-mel frame and from the length on. A stage's
        output i is valid when input 2i or 2i - 1 is, which gives floor(length / 2) + 1 outputs.
        """
        x, last = log_mel[..., None], []
        for stage in range(STAGES):
            x = jnp.where(mask[..., None, None], x, jnp.zeros((), x.dtype))
            last.append(x[:, -1:].astype(jnp.float32))
            if stage == 0:
                x = self.conv_in(x, cache.stages[0])
            else:
                x = self.pointwise[stage - 1](self.depthwise[stage - 1](x, cache.stages[stage]))
            x = jax.nn.relu(x).astype(self.rounded)
            mask = mask[:, 0::2] | mask[:, 1::2]
        # the linear layer reads channels outermost
        flat = jnp.swapaxes(x, 2, 3).reshape(*x.shape[:2], -1)
        y = jnp.where(mask[..., None], self.linear(flat), 0.0)
        return y, mask, SubsamplingCache(tuple(last))
