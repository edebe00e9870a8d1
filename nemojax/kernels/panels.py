"""Kernels in panels of 16 outputs, in int8 too, and products with them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, Shaped

from nemojax.kernels import native
from nemojax.model.layers import broadcast_vector, einsum

PANEL = 16


LARGEST_WEIGHT = 127


@jax.jit
def to_panels(kernel: Shaped[Array, "I O"]) -> Shaped[Array, "P I 16"]:
    inputs, outputs = kernel.shape
    padded = jnp.pad(kernel, ((0, 0), (0, -outputs % PANEL)))
    return padded.reshape(inputs, -1, PANEL).transpose(1, 0, 2)


@jax.jit
def quantize_kernel(kernel: Float[Array, "I O"]) -> tuple[Int8[Array, "P Q 16 2"], Float[Array, " O"]]:
    """The nearest multiples of a scale, of which an output's largest weight is 127; and the scales."""
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(0)
    scale = jnp.where(largest > 0, largest, 1.0) / LARGEST_WEIGHT
    values = jnp.pad(jnp.round(kernel / scale[None]).astype(jnp.int8), ((0, len(kernel) % 2), (0, 0)))
    return to_panels(values).reshape(-1, len(values) // 2, 2, PANEL).swapaxes(2, 3), scale


def from_panels(kernel: Shaped[Array, "P *rest"], inputs: int, outputs: int) -> Shaped[Array, "I O"]:
    if kernel.ndim == 4:
        kernel = kernel.swapaxes(2, 3).reshape(len(kernel), -1, PANEL)
    return kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)[:inputs, :outputs]


def quantize_rows(x: Float[Array, "B I"]) -> tuple[Float[Array, "B I"], Float[Array, "B 1"]]:
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
    weights = from_panels(kernel, x.shape[1], outputs).astype(jnp.float32)
    if not scale:
        return einsum("bi,io->bo", x, weights)
    numbers, step = quantize_rows(x)
    return einsum("bi,io->bo", numbers, weights) * (step * broadcast_vector(scale[0], 2))
