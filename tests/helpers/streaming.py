"""The streaming contract: stepping a layer over segments equals one step over the whole sequence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


def stepped(step: Step, x: jax.Array, mask: jax.Array, cache: Any, size: int) -> tuple[jax.Array, Any]:
    """Scans `step` over pieces of `size` frames; the scan proves that a cache keeps its shapes and types."""
    split = lambda a: jnp.moveaxis(a.reshape(a.shape[0], -1, size, *a.shape[2:]), 1, 0)

    def body(cache, piece):
        y, cache = step(*piece, cache)
        return cache, y

    cache, y = jax.lax.scan(body, cache, (split(x), split(mask)))
    return jnp.moveaxis(y, 0, 1).reshape(x.shape[0], -1, *y.shape[3:]), cache


def assert_streams(step: Step, x, mask, cache, size: int, *, valid=None, atol: float = 1e-5) -> None:
    """Checks pieces == whole on every valid frame; padding, neighbors and order of rows are inert.

    `valid` marks the valid output frames where they are not those of `mask`.
    """
    x, mask, cache = jax.device_get((x, mask, cache))  # numpy compiles nothing
    pieces = jax.jit(lambda x, mask, cache: stepped(step, x, mask, cache, size)[0])
    step = jax.jit(step)
    valid = np.asarray(mask if valid is None else valid)
    whole = np.asarray(step(x, mask, cache)[0])
    assert valid.any() and np.isfinite(whole[valid]).all()

    def check(result, expected=whole, keep=valid):
        np.testing.assert_allclose(np.asarray(result)[keep], expected[keep], atol=atol)

    check(pieces(x, mask, cache))
    poisoned = np.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, np.float32(np.nan))
    check(step(poisoned, mask, cache)[0])
    check(pieces(poisoned, mask, cache))
    order = np.arange(x.shape[0])[::-1]
    shuffled = jax.tree.map(lambda c: c[order], cache)
    check(step(x[order], mask[order], shuffled)[0], whole[order], valid[order])
    garbage = np.concatenate([np.full_like(x[:1], 1e4), x[1:]])
    check(step(garbage, mask, cache)[0][1:], whole[1:], valid[1:])
