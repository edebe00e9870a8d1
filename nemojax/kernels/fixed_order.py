"""The same bits whatever the company: a form of the model, for a CPU, in which the shape of a step changes no sum.

XLA chooses the order of a sum by the shape of its arrays. A frame's values therefore differ in their last bits between
a live chunk and a segment of a recording, or between batches of 1 and of 8. They are right within rounding, but where
two labels are nearly alike, another one may win. In this form every sum is in an order that depends on its own row
alone (`fixed_order.cc`, `panel_product.cc`), so labels, frames and log-probabilities are the same bits at any batch
size, segment length and cut of a stream, and in the engine.

Products of all layers, of mel filters too, are by the panel kernel; layer norms, attention and log-sum-exp by
`fixed_order.cc`. What is left to XLA has no sum whose order could change: functions of one value, the few taps of
convolutions, gates. `tests/kernels/test_first_difference.py` names the operation if a later XLA changes that.

The promise holds on one machine and for one version of nemojax and jax: exp, log, tanh and the FFT are XLA's own.

There is no such form for a GPU yet. Libraries there choose tiles, and how a sum is split, by shape, and jax's
deterministic options give the same bits for the same shape only. The cheapest way would be one executable of a fixed
number of rows and one chunk, for live streams and recordings alike. The faster one would be kernels of our own for
products, norms and attention, with tiles of a fixed size, no split sums, and keys in tiles that begin at multiples of a
chunk.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from nemojax.config import FeatureConfig
from nemojax.kernels.native import FIXED_ATTENTION, FIXED_LOG_SUM_EXP, FIXED_NORM
from nemojax.kernels.panels import product, to_panels
from nemojax.kernels.quantization import PackedLinear, pack
from nemojax.model.attention import Attention, AttentionCache, Chunk
from nemojax.model.features import mel_filters
from nemojax.model.joint import Joint
from nemojax.model.layers import EPSILON, LayerNorm, Linear
from nemojax.model.prediction import LSTMLayer
from nemojax.model.subsampling import Convolution
from nemojax.model.transducer import Transducer


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
    return _product(power, jnp.asarray(mel_filters(config)))


def _product(x: Array, kernel: Array) -> Array:
    return product(x, to_panels(kernel), kernel.shape[1])


def _float32(shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


class FixedLayerNorm(LayerNorm):
    """A `LayerNorm` with the same parameters."""

    def __init__(self, norm: LayerNorm):
        _share(norm, self)

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        return layer_norm(x, self.scale[...], self.bias[...])


class FixedConvolution(Convolution):
    """A `Convolution` with the same parameters, for one input channel."""

    def __init__(self, convolution: Convolution):
        _share(convolution, self)

    def product(self, taps: Float[Array, "B T bins taps"], kernel: Float[Array, "taps out"]) -> Array:
        """Multiplies the taps of one input channel with the kernel."""
        return _product(taps, kernel)


class FixedLSTMLayer(LSTMLayer):
    """An `LSTMLayer` with the same parameters, whose kernels are in panels."""

    def __init__(self, layer: LSTMLayer):
        _share(layer, self)
        self.gates = layer.hidden_kernel.shape[1]
        for name in ("input_kernel", "hidden_kernel"):
            setattr(self, name, nnx.Param(to_panels(getattr(layer, name)[...])))

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


class FixedAttention(Attention):
    """An `Attention` with the same parameters. It reads no key that a query does not attend to."""

    def __init__(self, attention: Attention):
        _share(attention, self)

    def attend_in_place(
        self,
        query: Float[Array, "B T H K"],
        cache: AttentionCache,
        begin: Int[Array, " B"],
        positions: Float[Array, "R H K"],
        chunk: Chunk,
    ) -> Float[Array, "B T H K"]:
        """Computes what `Attention.attend_in_place` does."""
        keys, values = (ring.values(jnp.float32) for ring in (cache.keys, cache.values))
        return self._fixed(query, keys, values, positions, (begin, jnp.zeros_like(begin), cache.length), chunk, True)

    def attend(
        self,
        query: Float[Array, "B T H K"],
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        mask: Array,
        length: Int[Array, " B"],
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None,
    ) -> Float[Array, "B T H K"]:
        """Computes what `Attention.attend` does, without dropout."""
        left = self.config.left_context_frames
        first, end = jnp.maximum(left - length, 0), left + mask.sum(1, dtype=jnp.int32)
        return self._fixed(query, keys, values, positions, (jnp.full_like(end, left), first, end), chunk, False)

    def _fixed(
        self,
        query: Array,
        keys: Array,
        values: Array,
        positions: Array,
        frames: tuple[Array, Array, Array],
        chunk: Chunk,
        heads_first: bool,
    ) -> Array:
        """Attends to keys in rings, or in order.

        Args:
          frames: by the numbers of the keys: the segment's first, the first valid one, the end of the valid ones.

        Raises:
          TypeError: the chunk is traced, as in training.
        """
        if not isinstance(chunk, int):
            raise TypeError("attention in a fixed order is for a look-ahead known when compiling, not for training")
        biases = (bias[...].astype(jnp.float32) for bias in (self.content_bias, self.position_bias))
        y: Array = jax.ffi.ffi_call(FIXED_ATTENTION, _float32(query.shape))(
            query,
            *biases,
            *(x.astype(jnp.float32) for x in (keys, values, positions)),
            *frames,
            left=np.int64(self.config.left_context_frames),
            chunk=np.int64(chunk),
            heads_first=heads_first,
            scale=np.float32(self.config.head_width**-0.5),
        )
        return y


def _share(source: nnx.Module, target: nnx.Module) -> None:
    """Gives a module the parts and settings of another one."""
    for name, value in vars(source).items():
        if not name.startswith("_"):
            setattr(target, name, value)


def is_fixed(model: Transducer) -> bool:
    """Whether the model is in this form."""
    return isinstance(model.joint, FixedJoint)


def fix_order(model: Transducer) -> Transducer:
    """Returns the same model with every sum in a fixed order; blocks keep their kernels' type, all else is float32."""
    model = pack(model)
    model.mel_energies = mel_energies
    model.joint = FixedJoint(model.joint)
    replaced: dict[type, Any] = {
        Attention: FixedAttention,
        LayerNorm: FixedLayerNorm,
        Linear: lambda linear: PackedLinear(linear, int8=False),
        LSTMLayer: FixedLSTMLayer,
    }
    for _, module in list(nnx.iter_modules(model)):
        for name, part in list(vars(module).items()):
            if type(part) in replaced and name != "position":  # positions are projected once
                setattr(module, name, replaced[type(part)](part))
    subsampling = model.encoder.subsampling
    subsampling.conv_in = FixedConvolution(subsampling.conv_in)
    return model
