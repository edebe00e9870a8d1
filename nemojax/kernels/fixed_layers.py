"""The model's layers with sums in a fixed order, by C++ kernels: `fixed_order.py` says what for.

Each has the parameters of the layer that it replaces, and fuses what lies between two products: the gate, the
convolution, the norm and the activation are one kernel, and so are attention and the writes to its rings. So a value is
written and read fewer times, and fewer operations wait for each other.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from nemojax.config import FeatureConfig
from nemojax.kernels.native import (
    FIXED_ATTENTION,
    FIXED_CONVOLUTION,
    FIXED_GATED_CONVOLUTION,
    FIXED_LOG_SUM_EXP,
    FIXED_NORM,
)
from nemojax.kernels.panels import panels_of, product, products, to_panels
from nemojax.model.attention import Attention, AttentionCache, Chunk
from nemojax.model.conformer import FeedForward
from nemojax.model.convolution import ConvolutionCache, ConvolutionModule
from nemojax.model.features import mel_filters
from nemojax.model.joint import Joint
from nemojax.model.layers import EPSILON, LayerNorm
from nemojax.model.prediction import LSTMLayer
from nemojax.model.ring import Ring
from nemojax.model.subsampling import KERNEL, STRIDE, Convolution, Subsampling, SubsamplingCache


def layer_norm(
    x: Float[Array, "*batch D"], scale: Float[Array, " D"], bias: Float[Array, " D"]
) -> Float[Array, "*batch D"]:
    """Computes what `layers.LayerNorm` does."""
    rows = x.reshape(-1, x.shape[-1])
    y = jax.ffi.ffi_call(FIXED_NORM, _float32(rows.shape))(rows, scale, bias, epsilon=np.float32(EPSILON))
    return jnp.reshape(y, x.shape)


def log_sum_exp(x: Float[Array, "B V"]) -> Float[Array, " B"]:
    """Computes the logarithm of the sum of exponentials of each row."""
    y: Array = jax.ffi.ffi_call(FIXED_LOG_SUM_EXP, _float32(x.shape[:1]))(x)
    return y


def mel_energies(power: Float[Array, "B F P"], config: FeatureConfig) -> Float[Array, "B F M"]:
    """Computes what `features.mel_energies` does."""
    filters = jnp.asarray(mel_filters(config))
    return product(power, to_panels(filters), filters.shape[1])


def convolution(
    layer: Convolution,
    x: Float[Array, "B F freq channels"],
    mask: Bool[Array, "B F"],
    cache: Float[Array, "B 1 freq channels"],
    relu: bool,
) -> Float[Array, "B T bins out"]:
    """Computes what a `subsampling.Convolution` does of frames that are zero outside `mask`, and ReLU if asked for."""
    kernel = layer.kernel[...].reshape(KERNEL * KERNEL, -1)
    shape = len(x), x.shape[1] // STRIDE, x.shape[2] // STRIDE + 1, kernel.shape[1]
    call = jax.ffi.ffi_call(FIXED_CONVOLUTION, _float32(shape))
    y: Array = call(x, mask, cache, kernel, layer.bias[...], relu=relu)
    return y


def _float32(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _share(source: nnx.Module, target: nnx.Module) -> None:
    """Gives a module the parts and settings of another one."""
    for name, value in vars(source).items():
        if not name.startswith("_"):
            setattr(target, name, value)


class FixedLayerNorm(LayerNorm):
    """A `LayerNorm` with the same parameters."""

    def __init__(self, norm: LayerNorm):
        _share(norm, self)

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        return layer_norm(x, self.scale[...], self.bias[...])


class FixedFeedForward(FeedForward):
    """A `FeedForward` with the same parameters, whose first product ends in SiLU."""

    def __init__(self, layer: FeedForward):
        _share(layer, self)

    def __call__(self, x: Float[Array, "B T D"], key: Array | None = None) -> Float[Array, "B T D"]:
        first: Any = self.linear1
        return self.linear2(first(x, "silu"))


class FixedSubsampling(Subsampling):
    """A `Subsampling` with the same parameters."""

    def __init__(self, subsampling: Subsampling):
        _share(subsampling, self)

    def step(
        self, log_mel: Float[Array, "B F M"], mask: Bool[Array, "B F"], cache: SubsamplingCache
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], SubsamplingCache]:
        """Computes what `Subsampling.step` does."""
        x, last = log_mel[..., None], []
        layers: list[tuple[Any, Any]] = [(self.conv_in, None), *zip(self.depthwise, self.pointwise, strict=True)]
        for (depthwise, pointwise), before in zip(layers, cache.stages, strict=True):
            last.append(jnp.where(mask[:, -1:, None, None], x[:, -1:], 0.0))
            x = convolution(depthwise, x, mask, before, relu=pointwise is None)
            x = x if pointwise is None else pointwise(x, "relu")
            mask = mask[:, 0::2] | mask[:, 1::2]
        # the linear layer reads channels outermost
        flat = jnp.swapaxes(x, 2, 3).reshape(*x.shape[:2], -1)
        y = jnp.where(mask[..., None], self.linear(flat), 0.0)
        return y, mask, SubsamplingCache(tuple(last))


class FixedLSTMLayer(LSTMLayer):
    """An `LSTMLayer` with the same parameters, whose kernels are in panels."""

    def __init__(self, layer: LSTMLayer):
        _share(layer, self)
        self.gates = layer.hidden_kernel.shape[1]
        for name in ("input_kernel", "hidden_kernel"):
            setattr(self, name, nnx.Param(panels_of(getattr(layer, name)[...])))

    def product(self, x: Float[Array, "B P"], kernel: Array) -> Float[Array, "B G"]:
        """Multiplies rows with a kernel in panels."""
        return product(x, kernel, self.gates)


class FixedJoint(Joint):
    """A `Joint` with the same parameters."""

    def __init__(self, joint: Joint):
        _share(joint, self)

    def log_sum_exp(self, logits: Float[Array, "B V"]) -> Float[Array, " B"]:
        """Computes the logarithm of the sum of exponentials of each row."""
        return log_sum_exp(logits)


class FixedConvolutionModule(ConvolutionModule):
    """A `ConvolutionModule` with the same parameters: all between its two products is one kernel."""

    def __init__(self, module: ConvolutionModule):
        _share(module, self)

    def step(
        self, x: Float[Array, "B T D"], mask: Bool[Array, "B T"], cache: ConvolutionCache
    ) -> tuple[Float[Array, "B T D"], ConvolutionCache]:
        """Computes what `ConvolutionModule.step` does."""
        end = cache.length + mask.sum(1, dtype=jnp.int32)
        ring, depthwise = cache.frames.frames, self.depthwise
        bias = jnp.zeros(0, jnp.float32) if depthwise.bias is None else depthwise.bias[...]
        call = jax.ffi.ffi_call(
            FIXED_GATED_CONVOLUTION,
            [_float32(x.shape), _float32(x.shape), _float32(ring.shape)],
            input_output_aliases={7: 2},
        )
        parameters = (depthwise.kernel[...], bias, self.norm.scale[...], self.norm.bias[...])
        y, _, ring = call(self.pointwise1(x), cache.length, end, *parameters, ring, epsilon=np.float32(EPSILON))
        return self.pointwise2(y), ConvolutionCache(Ring(ring), end)


class FixedAttention(Attention):
    """An `Attention` with the same parameters. It reads no key that a query does not attend to."""

    def __init__(self, attention: Attention):
        _share(attention, self)

    def step(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        cache: AttentionCache,
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], AttentionCache]:
        """Computes what `Attention.step` does, without dropout. Frames outside `mask` may get any values.

        Raises:
          TypeError: the chunk is traced, as in training.
        """
        if not isinstance(chunk, int):
            raise TypeError("attention in a fixed order is for a look-ahead known when compiling, not for training")
        layers: list[Any] = [self.query, self.key, self.value]
        found = products(x, [layer.packed() for layer in layers], native_product=layers[0].native_product)
        query, keys, values = (y.reshape(*x.shape[:2], *self.content_bias.shape) for y in found)
        y, cache = self.attend_to_rings(query, keys, values, mask, cache, positions, chunk)
        return self.output(y.reshape(x.shape)), cache

    def attend_to_rings(
        self,
        query: Float[Array, "B T H K"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        mask: Bool[Array, "B T"],
        cache: AttentionCache,
        positions: Float[Array, "R H K"],
        chunk: int,
    ) -> tuple[Float[Array, "B T H K"], AttentionCache]:
        """Attends to new frames and those in the cache, to which it writes the new ones."""
        begin, end = cache.length, cache.length + mask.sum(1, dtype=jnp.int32)
        (keys, key_ring, key_after), (values, value_ring, value_after) = (
            _as_float32(ring, new, begin, mask) for ring, new in ((cache.keys, keys), (cache.values, values))
        )
        biases = (bias[...].astype(jnp.float32) for bias in (self.content_bias, self.position_bias))
        call = jax.ffi.ffi_call(
            FIXED_ATTENTION,
            [_float32(query.shape), _float32(key_ring.shape), _float32(value_ring.shape)],
            input_output_aliases={8: 1, 9: 2},
        )
        y, *written = call(
            query,
            *biases,
            keys,
            values,
            positions.astype(jnp.float32),
            begin,
            end,
            key_ring,
            value_ring,
            left=np.int64(self.config.left_context_frames),
            chunk=np.int64(chunk),
            scale=np.float32(self.config.head_width**-0.5),
        )
        key_after, value_after = key_after or Ring(written[0]), value_after or Ring(written[1])
        return y, AttentionCache(key_after, value_after, end)


def _as_float32(ring: Ring, new: Array, length: Array, mask: Array) -> tuple[Array, Array, Ring | None]:
    """Returns new frames, [B, T, H, K], and a ring, both in float32, and the ring after them if it is of another type.

    New frames are rounded as such a ring keeps them.
    """
    if not ring.is_cast:
        return new, ring.frames, None
    stored = ring.stored(jnp.swapaxes(new, 1, 2))
    rounded = jnp.swapaxes(stored.values(jnp.float32), 1, 2).astype(jnp.float32)
    return rounded, ring.values(jnp.float32).astype(jnp.float32), ring.write(stored, length, mask)
