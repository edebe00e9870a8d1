"""The largest values of a row, quickly where there are few of them to find."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FEW = 16  # beyond it, one sort takes less time


def largest(x: Float[Array, "*batch N"], count: int) -> tuple[Float[Array, "*batch K"], Int[Array, "*batch K"]]:
    """Returns what `jax.lax.top_k` does: the largest values, of equal ones the first, and their indices.

    Each is the maximum of what is left. On a CPU `top_k` is a sort, which takes longer. A value of -inf
    may have the index of another one.
    """
    if count > FEW:
        values, indices = jax.lax.top_k(x, count)
        return values, indices
    size = x.shape[-1]
    positions = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    found = []
    for _ in range(count):
        value = x.max(axis=-1, keepdims=True)
        index = jnp.where(x == value, positions, size - 1).min(axis=-1, keepdims=True)
        x = jnp.where(positions == index, -jnp.inf, x)
        found.append((value, index))
    values, indices = (jnp.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    return values, indices
