"""Linear layers, layer norms and dropout, and the one place where products are computed.

Activations between layers are float32; the output of a product may be rounded. A product takes its operands in the
weights' type and always accumulates in float32: with float32 weights it is exact float32 on every device (no TF32),
with bfloat16 weights it costs one pass of the matrix unit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

EPSILON = 1e-5  # added to a variance
Tree = TypeVar("Tree")


def einsum(equation: str, x: Array, y: Array, rounded: DTypeLike = jnp.float32) -> Array:
    """Computes `jnp.einsum` of two arrays in the narrower of their types; accumulates in float32.

    Returns float32, whose values may be `rounded` to another type, in which they are then stored.
    """
    dtype = jnp.bfloat16 if jnp.bfloat16 in (x.dtype, y.dtype) else jnp.float32
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    product = jnp.einsum(
        equation, x.astype(dtype), y.astype(dtype), precision=precision, preferred_element_type=rounded
    )
    return product.astype(jnp.float32)


def broadcast_vector(vector: Float[Array, " D"], ndim: int) -> Array:
    """Adds leading axes to a vector, in float32, so that no rank is promoted silently."""
    return vector.astype(jnp.float32).reshape((1,) * (ndim - 1) + (-1,))


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Zeroes each value with probability `rate` and scales the others by 1 / (1 - rate); `x` itself without a key."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape), x / (1 - rate), 0)


def split_key(key: Array | None, count: int) -> Sequence[Array | None]:
    """Splits a PRNG key for the parts of a layer; without a key, every part gets None."""
    return [None] * count if key is None else list(jax.random.split(key, count))


ALL = 2**31 - 1  # frames at a time: more than there are


@dataclass(frozen=True)
class PartSizes:
    """How many frames of a batch of streams are computed at a time, where all at once would take too much memory.

    With these sizes, temporary memory of 512 streams of the 0.6B model on a CPU is below a tenth of their caches.
    """

    log_mel: int = 8192  # log-mel frames, whose spectra take 2 kB each
    subsampled: int = 128  # encoder frames, of which each takes 0.6 MB
    feedforward: int = 2048  # encoder frames
    cast: int = 8192  # cached frames that are stored in another type than that of products


def by_rows(function: Callable[..., Tree], count: int, replaced: Tree, *trees: Any) -> Tree:
    """Computes `function(replaced, *trees)` for at most `count` rows at a time, one part after the other.

    All arrays have a leading axis B, and the result has the form of `replaced`, in whose memory it is written. So the
    temporary memory is that of one part. Parts are of one size where that does not make them much smaller, so that the
    function is compiled once. A symbolic number of rows, as in an exported program, is one part.
    """
    rows = jax.tree.leaves(replaced)[0].shape[0]
    if not isinstance(rows, int) or rows <= count:
        return function(replaced, *trees)
    divisor = max(size for size in range(1, count + 1) if rows % size == 0)
    count = divisor if 2 * divisor >= count else count

    def replace(begin: ArrayLike, rows: int, replaced: Tree) -> Tree:
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, begin, rows), (replaced, *trees))
        write = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, begin, 0)
        written: Tree = jax.tree.map(write, replaced, function(*part))
        return written

    parts, rest = divmod(rows, count)
    replaced = jax.lax.fori_loop(0, parts, lambda index, x: replace(index * count, count, x), replaced)
    return replace(parts * count, rest, replaced) if rest else replaced


def initialize(initializer: jax.nn.initializers.Initializer, rngs: nnx.Rngs | None, shape: Sequence[int]) -> Array:
    """Draws a parameter's first value; zeros without `rngs`, for a model whose parameters will be replaced."""
    return jnp.zeros(shape, jnp.float32) if rngs is None else initializer(rngs.params(), shape, jnp.float32)


class Linear(nnx.Module):
    """x W + b over the last axis.

    A fresh kernel multiplies the variance by `gain`. A third, torch's default, keeps the output of a residual branch
    small beside its input: otherwise attention, which is uniform at first, replaces the frames by their mean.
    """

    def __init__(self, inputs: int, outputs: int, use_bias: bool = True, gain: float = 1 / 3, *, rngs: nnx.Rngs | None):
        uniform = nnx.initializers.variance_scaling(gain, "fan_in", "uniform")
        self.kernel = nnx.Param(initialize(uniform, rngs, (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if use_bias else None
        self.rounded = "float32"  # the type in which x W is stored

    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        y = einsum("...i,io->...o", x, self.kernel[...], self.rounded)
        return y if self.bias is None else y + broadcast_vector(self.bias[...], y.ndim)


class LayerNorm(nnx.Module):
    """Layer normalization over the last axis, in float32, epsilon 1e-5."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        centered = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        normed = centered * jax.lax.rsqrt(variance + EPSILON)
        return normed * broadcast_vector(self.scale[...], x.ndim) + broadcast_vector(self.bias[...], x.ndim)
