"""Weights of the encoder in int8, with a scale for each output: half of bfloat16's bytes, a quarter of float32's.

A live step reads every weight once and does little with it, so on a CPU its time is that of reading them. Only the
weights are rounded: activations stay float32, and products are summed in float32. `quantise` rounds a model's
linear layers; `product` is what such a layer computes, by `native`'s kernel where there is one, else plainly.

Values lie in panels of 16 outputs, [panels, I, 16], each read straight on; the last is filled up with zeros.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8

from nemojax import native
from nemojax.layers import Linear, einsum, rows
from nemojax.transducer import FrozenModel, Transducer

PANEL = 16
MOST_ROWS = 64  # with more, arithmetic is what costs, and XLA is better at that


@jax.jit
def quantise_kernel(kernel: Float[Array, "I O"]) -> tuple[Int8[Array, "P I 16"], Float[Array, " O"]]:
    """The nearest multiples of a scale, of which an output's largest weight is 127."""
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(0)
    scale = jnp.where(largest > 0, largest, 1.0) / 127
    values = jnp.round(kernel / scale[None]).astype(jnp.int8)
    inputs, outputs = values.shape
    padded = jnp.pad(values, ((0, 0), (0, -outputs % PANEL)))
    return padded.reshape(inputs, -1, PANEL).transpose(1, 0, 2), scale


def unpacked(values: Int8[Array, "P I 16"], outputs: int) -> Int8[Array, "I O"]:
    return values.transpose(1, 0, 2).reshape(values.shape[1], -1)[:, :outputs]


def product(
    x: Float[Array, "*batch I"], values: Int8[Array, "P I 16"], scale: Float[Array, " O"]
) -> Float[Array, "*batch O"]:
    """x W with W = values * scale, in float32."""
    flat = x.reshape(-1, x.shape[-1])
    if 0 < len(flat) <= MOST_ROWS and native.available():
        y = jax.lax.platform_dependent(flat, values, scale, cpu=_native, default=_plain)
    else:
        y = _plain(flat, values, scale)
    return y.reshape(*x.shape[:-1], len(scale))


def _native(x: Array, values: Array, scale: Array) -> Array:
    shape = jax.ShapeDtypeStruct((len(x), len(scale)), jnp.float32)
    return jax.ffi.ffi_call(native.SYMBOL, shape)(x.astype(jnp.float32), values, scale)


def _plain(x: Array, values: Array, scale: Array) -> Array:
    kernel = unpacked(values, len(scale)).astype(jnp.float32)
    return einsum("bi,io->bo", x, kernel) * rows(scale, 2)


class QuantisedLinear(nnx.Module):
    """What `layers.Linear` computes, of a kernel in int8."""

    def __init__(self, linear: Linear):
        values, scale = quantise_kernel(linear.kernel[...])
        self.kernel, self.kernel_scale, self.bias = nnx.Param(values), nnx.Param(scale), linear.bias

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        y = product(x, self.kernel[...], self.kernel_scale[...])
        return y if self.bias is None else y + rows(self.bias[...], y.ndim)


def quantise(model: Transducer) -> Transducer:
    """The same model with the kernels of the encoder's blocks in int8.

    Projections of positions are left as they are: they are computed once. So are subsampling, prediction network
    and joint network: they are small, and labels depend on them directly.
    """
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    for block in model.encoder.blocks:
        for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            for name, layer in list(vars(module).items()):
                if isinstance(layer, Linear) and name != "position":
                    setattr(module, name, QuantisedLinear(layer))
    return model


def is_quantised(model: Transducer | FrozenModel) -> bool:
    return any(leaf.dtype == jnp.int8 for leaf in jax.tree.leaves(model))
