"""Kernels in panels of 16 outputs, in int8 too, and products with them.

Panels are [P, I, 16], the last one filled up with zeros, so that each is read sequentially. In int8 two inputs of an
output lie side by side, [P, I / 2, 16, 2]. For processors with tiles (AMX) there are pairs of panels, cut into tiles of
16 rows of 16 outputs, with 4 inputs of an output side by side in int8 and 2 in bfloat16: [P / 2, T, 2, 16, 16, 4].
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Shaped

from nemojax.arena import Arena, aligned
from nemojax.kernels import native
from nemojax.model.layers import broadcast_vector, einsum

PANEL = 16  # outputs
TILE_ROWS, TILE_BYTES = 16, 4  # of weights; the bytes are those of one output in a row
ACTIVATIONS = (None, "silu", "relu")  # by their numbers in outputs.h
MAX_WEIGHT = 127
MAX_INTEGER = 127 * 256 + 127  # of activations: its upper half, rounded, has 8 bits too


@jax.jit
def to_panels(kernel: Shaped[Array, "I O"]) -> Shaped[Array, "P I 16"]:
    """Lays a kernel out in panels."""
    inputs, outputs = kernel.shape
    padded = jnp.pad(kernel, ((0, 0), (0, -outputs % PANEL)))
    return padded.reshape(inputs, -1, PANEL).transpose(1, 0, 2)


def panels_of(kernel: Shaped[Array, "I O"]) -> Shaped[Array, "P I 16"]:
    """Lays a kernel out in panels, as `to_panels` does; where it can, by the library, without a program of XLA."""
    laid_out: Array
    if kernel.dtype.itemsize not in native.PANEL_BYTES or not native.lays_out(kernel):
        laid_out = to_panels(kernel)
        return laid_out
    panels = aligned((-(-kernel.shape[1] // PANEL), kernel.shape[0], PANEL), kernel.dtype)
    native.lay_out_panels(np.asarray(kernel), panels)
    laid_out = jax.device_put(panels, kernel.sharding if kernel.committed else None)
    return laid_out


@jax.jit
def quantize_kernel(kernel: Float[Array, "I O"]) -> tuple[Int8[Array, "P Q 16 2"], Float[Array, " O"]]:
    """Rounds each output's weights to multiples of a scale, at which the largest is 127; returns panels and scales."""
    kernel = kernel.astype(jnp.float32)
    largest = jnp.abs(kernel).max(0)
    scale = jnp.where(largest > 0, largest, 1.0) / MAX_WEIGHT
    values = jnp.pad(jnp.round(kernel / scale[None]).astype(jnp.int8), ((0, len(kernel) % 2), (0, 0)))
    return to_panels(values).reshape(-1, len(values) // 2, 2, PANEL).swapaxes(2, 3), scale


def are_int8(shape: Sequence[int]) -> bool:
    """Whether an array of this shape can be what `quantize_kernel` gives."""
    return len(shape) == 4 and tuple(shape[2:]) == (PANEL, 2) and 0 not in shape


@jax.jit
def to_tiles(panels: Shaped[Array, "P *rest"]) -> Shaped[Array, "R T 2 16 16 S"]:
    """Lays panels of int8 or bfloat16 out in tiles; what they lack of whole ones is filled up with zeros."""
    shape = tiles_shape(panels.shape, panels.dtype)
    pairs, tiles, together = shape[0], shape[1], shape[-1]
    values = panels if panels.ndim == 4 else panels[..., None]  # [P, I / pair, 16, pair]
    pair = values.shape[3]
    rows = tiles * TILE_ROWS * together // pair
    values = jnp.pad(values, ((0, 2 * pairs - len(values)), (0, rows - values.shape[1]), (0, 0), (0, 0)))
    values = values.reshape(pairs, 2, tiles, TILE_ROWS, together // pair, PANEL, pair)
    return values.transpose(0, 2, 1, 3, 5, 4, 6).reshape(shape)


def tiles_shape(panels: Sequence[int], dtype: np.dtype) -> tuple[int, ...]:
    """Returns the shape of panels in tiles."""
    together = TILE_BYTES // dtype.itemsize  # inputs of an output
    depth = TILE_ROWS * together // math.prod(panels[3:])
    return -(-panels[0] // 2), -(-panels[1] // depth), 2, TILE_ROWS, PANEL, together


def tiles_in(arena: Arena, panels: np.ndarray) -> np.ndarray:
    """Lays panels out as `to_tiles` does, in memory of an arena, by the C++ kernels' library."""
    tiles = arena.empty(tiles_shape(panels.shape, panels.dtype), panels.dtype)
    native.lay_out_tiles(panels, tiles)
    return tiles


def in_tiles(kernel: Shaped[Array, "*shape"]) -> bool:
    """Whether a packed kernel has the layout of `to_tiles`."""
    return kernel.ndim == 6


def from_panels(kernel: Shaped[Array, "P *rest"], inputs: int, outputs: int) -> Shaped[Array, "I O"]:
    """Undoes `to_panels`, the layout of `quantize_kernel`, or `to_tiles`."""
    if in_tiles(kernel):
        kernel = kernel.transpose(0, 2, 1, 3, 5, 4).reshape(2 * len(kernel), -1, PANEL)
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


class PackedKernel(NamedTuple):
    """A kernel W in panels or tiles, and what belongs to its outputs."""

    kernel: Shaped[Array, "P *rest"]
    outputs: int
    scale: Float[Array, " O"] | None = None  # W is the kernel times the scale
    bias: Float[Array, " O"] | None = None


def product(
    x: Float[Array, "*batch I"],
    kernel: Shaped[Array, "P *rest"],
    outputs: int,
    scale: Float[Array, " O"] | None = None,
    native_product: bool = True,
) -> Float[Array, "*batch O"]:
    """Computes x W in float32; see `products`."""
    return products(x, [PackedKernel(kernel, outputs, scale)], native_product=native_product)[0]


def products(
    x: Float[Array, "*batch I"],
    kernels: Sequence[PackedKernel],
    activation: str | None = None,
    native_product: bool = True,
) -> list[Float[Array, "*batch O"]]:
    """Computes activation(x W + bias) in float32 for each of some kernels of one type; `ACTIVATIONS` has their names.

    With `native_product`, on a CPU and where the C++ kernels are available, by them; else by XLA.
    """
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    plain = lambda x: [plain_product(x, kernel, activation) for kernel in kernels]
    layout = kernels[0].kernel
    if native_product and len(flat) and native.available() and (native.tiles() or not in_tiles(layout)):
        by_kernel = lambda x: native_products(x, kernels, activation)
        # where the CPU is the default there is nothing to choose, and a step is traced in two thirds of the time
        chosen = jax.default_backend() == "cpu"
        found = by_kernel(flat) if chosen else jax.lax.platform_dependent(flat, cpu=by_kernel, default=plain)
    else:
        found = plain(flat)
    return [jnp.reshape(y, (*x.shape[:-1], kernel.outputs)) for y, kernel in zip(found, kernels, strict=True)]


def native_products(x: Float[Array, "B I"], kernels: Sequence[PackedKernel], activation: str | None) -> list[Array]:
    """Computes what `products` does by one call of a C++ kernel, in which `x` is read and rounded once."""
    none = jnp.zeros(0, jnp.float32)
    given = lambda vector: none if vector is None else vector.astype(jnp.float32)
    arguments = [y for one in kernels for y in (one.kernel, given(one.scale), given(one.bias))]
    shapes = [jax.ShapeDtypeStruct((len(x), one.outputs), jnp.float32) for one in kernels]
    call = jax.ffi.ffi_call(_target(kernels[0]), shapes)
    return list(call(x, *arguments, activation=np.int64(ACTIVATIONS.index(activation))))


def _target(packed: PackedKernel) -> str:
    scaled = packed.scale is not None
    if not in_tiles(packed.kernel):
        return native.INT8_PRODUCT if scaled else native.PRODUCT
    return (native.INT8_TILE_PRODUCT if scaled else native.TILE_PRODUCT)[native.tiles() or ""]


def plain_product(x: Float[Array, "B I"], packed: PackedKernel, activation: str | None) -> Float[Array, "B O"]:
    """Computes what `products` does for one kernel by XLA."""
    weights = from_panels(packed.kernel, x.shape[1], packed.outputs).astype(jnp.float32)
    if packed.scale is None:
        y = einsum("bi,io->bo", x, weights)
    else:
        integers, step = quantize_rows(x)
        y = einsum("bi,io->bo", integers, weights) * (step * broadcast_vector(packed.scale, 2))
    y = y if packed.bias is None else y + broadcast_vector(packed.bias, 2)
    return y if activation is None else getattr(jax.nn, activation)(y)
