"""Kernels in panels of 16 outputs, in int8 too, and products with them.

Panels are [P, I, 16], the last one filled up with zeros, so that each is read sequentially. In int8 two inputs of an
output lie side by side, [P, I / 2, 16, 2].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Shaped

from nemojax.kernels import native
from nemojax.model.layers import broadcast_vector, einsum

PANEL = 16  # outputs
MAX_WEIGHT = 127
MAX_INTEGER = 127 * 256 + 127  # of activations: its upper half, rounded, has 8 bits too


@jax.jit
def to_panels(kernel: Shaped[Array, "I O"]) -> Shaped[Array, "P I 16"]:
    """Lays a kernel out in panels."""
    inputs, outputs = kernel.shape
    padded = jnp.pad(kernel, ((0, 0), (0, -outputs % PANEL)))
    return padded.reshape(inputs, -1, PANEL).transpose(1, 0, 2)


@jax.jit
def quantize_kernel(kernel: Float[Array, "I O"]) -> tuple[Int8[Array, "P Q 16 2"], Float[Array, " O"]]:
    """Rounds each output's weights to multiples of a scale, at which the largest is 127; returns panels and scales."""
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(0)
    scale = jnp.where(largest > 0, largest, 1.0) / MAX_WEIGHT
    values = jnp.pad(jnp.round(kernel / scale[None]).astype(jnp.int8), ((0, len(kernel) % 2), (0, 0)))
    return to_panels(values).reshape(-1, len(values) // 2, 2, PANEL).swapaxes(2, 3), scale


def from_panels(kernel: Shaped[Array, "P *rest"], inputs: int, outputs: int) -> Shaped[Array, "I O"]:
    """Undoes `to_panels`, or the layout of `quantize_kernel`."""
    if kernel.ndim == 4:
        kernel = kernel.swapaxes(2, 3).reshape(len(kernel), -1, PANEL)
    return kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)[:inputs, :outputs]


def quantize_rows(x: Float[Array, "B I"]) -> tuple[Float[Array, "B I"], Float[Array, "B 1"]]:
    """Rounds each row to integers, and returns them with the row's step; the step is NaN if a value is not finite.

    The largest integer is such that I products with weights of 127 can be summed in 32 bits: 4128 at 4096 inputs.
    """
    integer_range = min((2**31 - 1) // (MAX_WEIGHT * x.shape[1]), MAX_INTEGER)
    largest = jnp.abs(x).max(1, keepdims=True)
    nonzero = largest > jnp.finfo(jnp.float32).tiny
    integers = jnp.where(nonzero, jnp.round(x * (integer_range / jnp.where(nonzero, largest, 1.0))), 0.0)
    return integers, jnp.where(jnp.isfinite(largest), jnp.where(nonzero, largest, 0.0) / integer_range, jnp.nan)


def product(
    x: Float[Array, "*batch I"],
    kernel: Shaped[Array, "P *rest"],
    outputs: int,
    scale: Float[Array, " O"] | None = None,
    native_product: bool = True,
) -> Float[Array, "*batch O"]:
    """Computes x W in float32, where W is the packed kernel times the scales.

    With `native_product`, on a CPU and where there is a compiler, by the C++ kernel; else by XLA.
    """
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    arguments = (flat, kernel) if scale is None else (flat, kernel, scale.astype(jnp.float32))
    plain = lambda *given: _plain(outputs, *given)
    if native_product and len(flat) and native.available():
        y = jax.lax.platform_dependent(*arguments, cpu=lambda *given: _native(outputs, *given), default=plain)
    else:
        y = plain(*arguments)
    return jnp.reshape(y, (*x.shape[:-1], outputs))


def _native(outputs: int, x: Array, kernel: Array, *scale: Array) -> Array:
    shape = jax.ShapeDtypeStruct((len(x), outputs), jnp.float32)
    return jax.ffi.ffi_call(native.INT8_PRODUCT if scale else native.PRODUCT, shape)(x, kernel, *scale)


def _plain(outputs: int, x: Array, kernel: Array, *scale: Array) -> Array:
    weights = from_panels(kernel, x.shape[1], outputs).astype(jnp.float32)
    if not scale:
        return einsum("bi,io->bo", x, weights)
    integers, step = quantize_rows(x)
    return einsum("bi,io->bo", integers, weights) * (step * broadcast_vector(scale[0], 2))
