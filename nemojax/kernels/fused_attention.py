"""Attention over cache and chunk as one kernel, for a GPU: keys and values are read once, and no scores are stored.

The plain form, `Attention.attend`, concatenates cache and chunk, and passes over them and over the scores several
times. Here one program of a Pallas kernel handles one head of one stream; its keys fit in on-chip memory. Scores by
distance are computed before, by one matrix product for all streams; shifting them, so that each query finds its
distance to a key, is then a matter of where the kernel reads.

It computes what the plain form does, in the same types, up to the order of sums. It is for segments of at most one left
context, without dropout, at a look-ahead known when compiling; everything else takes the plain form.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Bool, Float

from nemojax.model.attention import UNSEEN, Attention, AttentionCache, Chunk
from nemojax.model.transducer import Transducer

MIN_ROWS = 16  # of a matrix product on a GPU


class FusedAttention(Attention):
    """An `Attention` with the same parameters. `interpret` runs the kernel as plain JAX, on any device, for tests."""

    def __init__(self, attention: Attention, interpret: bool = False):
        for name, value in vars(attention).items():
            if not name.startswith("_"):
                setattr(self, name, value)
        self.interpret = interpret

    def attend(
        self,
        query: Float[Array, "B T H K"],
        keys: Float[Array, "B T H K"],
        values: Float[Array, "B T H K"],
        mask: Bool[Array, "B T"],
        cache: AttentionCache,
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None,
    ) -> Float[Array, "B T H K"]:
        """Computes what `Attention.attend` does."""
        left, frames = cache.keys.shape[1], query.shape[1]
        if key is not None or frames > left or not isinstance(chunk, int):
            return super().attend(query, keys, values, mask, cache, positions, chunk, key)
        query_BGQHK = query[:, None]  # one block
        scores = self.position_scores(query_BGQHK, positions, left)[:, 0]
        biased = (query_BGQHK + self._bias(self.content_bias))[:, 0].astype(keys.dtype)
        return fused(biased, scores, keys, values, mask, cache, chunk, self.interpret)


def fused(
    query: Float[Array, "B T H K"],
    position_scores: Float[Array, "B H T R"],
    keys: Float[Array, "B T H K"],
    values: Float[Array, "B T H K"],
    mask: Bool[Array, "B T"],
    cache: AttentionCache,
    chunk: int,
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """Attends as `Attention.attend` does, given queries with their content bias, in the keys' type, and position
    scores.

    `position_scores` has R = C + 2 T - 1 distances, furthest first, C being the frames of the cache.
    """
    batch, frames, heads, width = query.shape
    left = cache.keys.shape[1]
    padded = lambda count: max(MIN_ROWS, pl.next_power_of_2(count))
    row = lambda count: pl.BlockSpec((None, padded(count), None, width), lambda b, h: (b, 0, h, 0))
    flat = position_scores.reshape(batch, heads, -1)
    call = pl.pallas_call(
        partial(_kernel, frames=frames, left=left, chunk=chunk),
        grid=(batch, heads),
        in_specs=[
            row(frames),
            pl.BlockSpec((None, None, flat.shape[2]), lambda b, h: (b, h, 0)),
            *(row(left), row(left), row(frames), row(frames)),
            pl.BlockSpec((None, 1), lambda b, h: (b, 0)),
            pl.BlockSpec((None, padded(frames)), lambda b, h: (b, 0)),
        ],
        out_specs=row(frames),
        out_shape=jax.ShapeDtypeStruct(query.shape, jnp.float32),
        interpret=interpret,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        name="attention",
    )
    y: Array = call(query, flat, cache.keys, cache.values, keys, values, cache.length[:, None], mask.astype(jnp.int32))
    return y


def _kernel(
    query: Any,
    scores: Any,
    cached_keys: Any,
    cached_values: Any,
    keys: Any,
    values: Any,
    length: Any,
    mask: Any,
    out: Any,
    *,
    frames: int,
    left: int,
    chunk: int,
) -> None:
    """Computes one head of one stream.

    All references but `scores` have a power of two of rows, as Triton requires; rows past the ends of their arrays are
    not read.
    """
    rows = jnp.arange(query.shape[0], dtype=jnp.int32)
    is_query = rows < frames
    start = rows // chunk * chunk  # first frame of the query's chunk
    load = lambda ref, valid: plgpu.load(ref, mask=jnp.broadcast_to(valid[:, None], ref.shape), other=0.0)
    query = load(query, is_query)

    def scored(keys: Any, key: Array, valid: Array) -> Array:
        """Scores keys; `key` is their frames, counted from the segment's first. `UNSEEN` outside a query's context."""
        visible = (
            is_query[:, None]
            & valid[None]
            & (start[:, None] - left <= key[None])
            & (key[None] < start[:, None] + chunk)
        )
        distance = key[None] + left + frames - 1 - rows[:, None]
        index = jnp.where(visible, rows[:, None] * (left + 2 * frames - 1) + distance, 0)
        position = plgpu.load(scores.at[index], mask=visible, other=0.0)
        score = (_product(query, load(keys, valid).T) + position) * query.shape[1] ** -0.5
        return jnp.where(visible, score, UNSEEN)

    old, new = (jnp.arange(x.shape[0], dtype=jnp.int32) for x in (cached_keys, keys))
    valid_old = (old < left) & (old >= left - length[0])
    valid_new = plgpu.load(mask, mask=new < frames, other=0) != 0
    score_old, score_new = scored(cached_keys, old - left, valid_old), scored(keys, new, valid_new)
    peak = jnp.maximum(score_old.max(1), score_new.max(1))[:, None]
    weight_old, weight_new = (jnp.where(s > UNSEEN, jnp.exp(s - peak), 0.0) for s in (score_old, score_new))
    total = (weight_old.sum(1) + weight_new.sum(1))[:, None]
    total = jnp.where(total > 0, total, 1.0)
    type_ = values.dtype
    y = _product((weight_old / total).astype(type_), load(cached_values, valid_old))
    y += _product((weight_new / total).astype(type_), load(values, valid_new))
    plgpu.store(out, y, mask=jnp.broadcast_to(is_query[:, None], y.shape))


def _product(x: Array, y: Array) -> Array:
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jnp.dot(x, y, precision=precision, preferred_element_type=jnp.float32)


def fuse(model: Transducer, interpret: bool = False) -> Transducer:
    """Returns the same model with the kernel in every block."""
    model = jax.tree.map(lambda x: x, model)  # a tree of its own, of the same arrays
    for block in model.encoder.blocks:
        block.attention = FusedAttention(block.attention, interpret)
    return model
