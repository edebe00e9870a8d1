"""The linear layers of the encoder's blocks with their kernels in panels, as `native` multiplies them: for a CPU.

A live step reads every weight once and does little with it, so its time is that of reading them: in bfloat16 there is
half as much to read as in float32, in int8, with a scale for each output, a quarter. With float32 and bfloat16 kernels
activations stay float32, and so do sums. With int8 kernels each row of activations is rounded too, to 13 bits or more
(`rounded`), so that sums are of whole numbers, which 32 bits hold exactly: a row's result depends on that row alone.

Panels hold 16 outputs each, [P, I, 16], the last one filled up with zeros; each is read straight on. In int8 two inputs
of an output lie side by side, [P, I / 2, 16, 2]. `pack` changes how a model's kernels lie, and `quantise` makes them
int8 too; a checkpoint may hold the latter. Where `native` is not available its products are computed plainly, here.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int8, Shaped

from nemojax import native
from nemojax.layers import Linear, einsum, rows
from nemojax.transducer import FrozenModel, Transducer, parameter_count, thaw

PANEL = 16
LARGEST_WEIGHT = 127
PACKED_PARAMETERS = 20_000_000  # smaller models are fast enough as they are, and nothing need be compiled for them


@jax.jit
def panels(kernel: Shaped[Array, "I O"]) -> Shaped[Array, "P I 16"]:
    inputs, outputs = kernel.shape
    padded = jnp.pad(kernel, ((0, 0), (0, -outputs % PANEL)))
    return padded.reshape(inputs, -1, PANEL).transpose(1, 0, 2)


@jax.jit
def quantised(kernel: Float[Array, "I O"]) -> tuple[Int8[Array, "P Q 16 2"], Float[Array, " O"]]:
    """The nearest multiples of a scale, of which an output's largest weight is 127; and the scales."""
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(0)
    scale = jnp.where(largest > 0, largest, 1.0) / LARGEST_WEIGHT
    values = jnp.pad(jnp.round(kernel / scale[None]).astype(jnp.int8), ((0, len(kernel) % 2), (0, 0)))
    return panels(values).reshape(-1, len(values) // 2, 2, PANEL).swapaxes(2, 3), scale


def unpacked(kernel: Shaped[Array, "P *rest"], inputs: int, outputs: int) -> Shaped[Array, "I O"]:
    if kernel.ndim == 4:
        kernel = kernel.swapaxes(2, 3).reshape(len(kernel), -1, PANEL)
    return kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)[:inputs, :outputs]


def rounded(x: Float[Array, "B I"]) -> tuple[Float[Array, "B I"], Float[Array, "B 1"]]:
    """Each row as whole numbers, and what one is worth; NaN where a row holds anything that is not finite.

    The largest is such that I products with weights of 127 can be summed in 32 bits: 4128 at 4096 inputs.
    """
    most = min((2**31 - 1) // (LARGEST_WEIGHT * x.shape[1]), 2**15 - 1)
    largest = jnp.abs(x).max(1, keepdims=True)
    some = largest > jnp.finfo(jnp.float32).tiny
    numbers = jnp.where(some, jnp.round(x * (most / jnp.where(some, largest, 1.0))), 0.0)
    return numbers, jnp.where(jnp.isfinite(largest), jnp.where(some, largest, 0.0) / most, jnp.nan)


def product(
    x: Float[Array, "*batch I"], kernel: Shaped[Array, "P *rest"], outputs: int, scale: Float[Array, " O"] | None = None
) -> Float[Array, "*batch O"]:
    """x W, in float32, where W is the packed kernel times the scales."""
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    arguments = (flat, kernel) if scale is None else (flat, kernel, scale.astype(jnp.float32))
    plain = lambda *given: _plain(outputs, *given)
    if len(flat) and native.available():
        y = jax.lax.platform_dependent(*arguments, cpu=lambda *given: _native(outputs, *given), default=plain)
    else:
        y = plain(*arguments)
    return y.reshape(*x.shape[:-1], outputs)


def _native(outputs: int, x: Array, kernel: Array, *scale: Array) -> Array:
    shape = jax.ShapeDtypeStruct((len(x), outputs), jnp.float32)
    return jax.ffi.ffi_call(native.INT8_PRODUCT if scale else native.PRODUCT, shape)(x, kernel, *scale)


def _plain(outputs: int, x: Array, kernel: Array, *scale: Array) -> Array:
    weights = unpacked(kernel, x.shape[1], outputs).astype(jnp.float32)
    if not scale:
        return einsum("bi,io->bo", x, weights)
    numbers, step = rounded(x)
    return einsum("bi,io->bo", numbers, weights) * (step * rows(scale[0], 2))


class PackedLinear(nnx.Module):
    """What `layers.Linear` computes, but that activations are not rounded to the kernel's type."""

    def __init__(self, linear: Linear, int8: bool):
        self.outputs, self.bias = linear.kernel.shape[1], linear.bias
        kernel, scale = quantised(linear.kernel[...]) if int8 else (panels(linear.kernel[...]), None)
        self.kernel = nnx.Param(kernel)
        self.kernel_scale = None if scale is None else nnx.Param(scale)

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        scale = None if self.kernel_scale is None else self.kernel_scale[...]
        y = product(x, self.kernel[...], self.outputs, scale)
        return y if self.bias is None else y + rows(self.bias[...], y.ndim)


def pack(model: Transducer) -> Transducer:
    """The same model with the blocks' kernels in panels, in the type they have, and all else in float32."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    kernels = {id(getattr(module, name).kernel[...]) for module, name in _layers(model)}
    model = jax.tree.map(lambda x: x if id(x) in kernels else x.astype(jnp.float32), model)
    return _replaced(model, int8=False)


def quantise(model: Transducer) -> Transducer:
    """The same model with the blocks' kernels in int8, and all else in the type it has.

    Projections of positions are left as they are: they are computed once. So are subsampling, prediction network and
    joint network: they are small, and labels depend on them directly.
    """
    model = jax.tree.map(lambda x: x, model)
    return _replaced(model, int8=True)


def suited(model: Transducer, int8: bool = False) -> Transducer:
    """As it computes fastest here: in int8 where that is asked for; on a CPU, if it is large, packed."""
    if int8:
        return model if is_quantised(model) else quantise(model)
    large = parameter_count(model) >= PACKED_PARAMETERS
    packs = large and not is_quantised(model) and jax.default_backend() == "cpu" and native.available()
    return pack(model) if packs else model


def _replaced(model: Transducer, int8: bool) -> Transducer:
    """Changes the tree that it is given, layer by layer: a kernel that nothing else holds is not kept."""
    for module, name in list(_layers(model)):
        setattr(module, name, PackedLinear(getattr(module, name), int8))
    return model


def _layers(model: Transducer) -> Iterator[tuple[nnx.Module, str]]:
    """The blocks' linear layers: each as an attribute of a module."""
    for block in model.encoder.blocks:
        for module in (block.feedforward1, block.attention, block.convolution, block.feedforward2):
            yield from (
                (module, name)
                for name, layer in vars(module).items()
                if isinstance(layer, Linear) and name != "position"
            )


def is_quantised(model: Transducer | FrozenModel) -> bool:
    return weights_dtype(model) == jnp.int8


def weights_dtype(model: Transducer | FrozenModel):
    """The type of the blocks' kernels."""
    return thaw(model).encoder.blocks[0].feedforward1.linear1.kernel[...].dtype
