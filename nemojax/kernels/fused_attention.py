"""Attention to a ring as one kernel, for a GPU: keys and values are read once, in place, and no scores are stored.

The plain form, `Attention.attend_in_place`, passes over the scores several times. Here one program of a Pallas kernel
handles one head of one stream; its keys fit in on-chip memory. Scores by distance are computed before, by one matrix
product for all streams; that each query finds its distance to a slot is then a matter of where the kernel reads.

It computes what the plain form does, in the same types, up to the order of sums. It is for live chunks at a look-ahead
known when compiling; everything else takes the plain form.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from nemojax.model.attention import UNSEEN, Attention, AttentionCache, Chunk
from nemojax.model.ring import from_bits
from nemojax.model.transducer import Transducer

MIN_ROWS = 16  # of a matrix product on a GPU


class FusedAttention(Attention):
    """An `Attention` with the same parameters. `interpret` runs the kernel as plain JAX, on any device, for tests."""

    def __init__(self, attention: Attention, interpret: bool):
        for name, value in vars(attention).items():
            if not name.startswith("_"):
                setattr(self, name, value)
        self.interpret = interpret

    def attend_in_place(
        self,
        query: Float[Array, "B T H K"],
        cache: AttentionCache,
        begin: Int[Array, " B"],
        positions: Float[Array, "R H K"],
        chunk: Chunk,
    ) -> Float[Array, "B T H K"]:
        """Computes what `Attention.attend_in_place` does."""
        if not isinstance(chunk, int):
            return super().attend_in_place(query, cache, begin, positions, chunk)
        left = self.config.left_context_frames
        scores = self.position_scores(query[:, None], positions, left)[:, 0]
        biased = (query + self._bias(self.content_bias)[0]).astype(positions.dtype)
        return fused(biased, scores, cache, begin, left, chunk, self.interpret)


def fused(
    query: Float[Array, "B T H K"],
    position_scores: Float[Array, "B H T R"],
    cache: AttentionCache,
    begin: Int[Array, " B"],
    left: int,
    chunk: int,
    interpret: bool = False,
) -> Float[Array, "B T H K"]:
    """Attends as `Attention.attend_in_place` does, given queries with their content bias, in the type of products, and
    position scores.

    `position_scores` has R = left + 2 T - 1 distances, furthest first.
    """
    batch, frames, heads, width = query.shape
    slots = cache.keys.slots
    padded = lambda count: max(MIN_ROWS, pl.next_power_of_2(count))
    queries = pl.BlockSpec((None, padded(frames), None, width), lambda b, h: (b, 0, h, 0))
    ring = pl.BlockSpec((None, None, padded(slots), width), lambda b, h: (b, h, 0, 0))
    scale = pl.BlockSpec((None, None, padded(slots)), lambda b, h: (b, h, 0))
    number = pl.BlockSpec((None, 1), lambda b, h: (b, 0))
    flat = position_scores.reshape(batch, heads, -1)
    scales = [] if cache.keys.scale is None else [cache.keys.scale, cache.values.scale]
    call = pl.pallas_call(
        partial(_kernel, frames=frames, slots=slots, left=left, chunk=chunk),
        grid=(batch, heads),
        in_specs=[
            queries,
            pl.BlockSpec((None, None, flat.shape[2]), lambda b, h: (b, h, 0)),
            *(number, number),
            *(ring, ring),
            *[scale] * len(scales),
        ],
        out_specs=queries,
        out_shape=jax.ShapeDtypeStruct(query.shape, jnp.float32),
        interpret=interpret,
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
        name="attention",
    )
    numbers = begin[:, None], cache.length[:, None]
    y: Array = call(query, flat, *numbers, cache.keys.frames, cache.values.frames, *scales)
    return y


def _kernel(query: Any, scores: Any, begin: Any, end: Any, keys: Any, values: Any, *rest: Any, **sizes: int) -> None:
    """Computes one head of one stream.

    All references but `scores` have a power of two of rows, as Triton requires; rows past the ends of their arrays are
    not read.
    """
    frames, slots, left, chunk = (sizes[name] for name in ("frames", "slots", "left", "chunk"))
    *scales, out = rest
    row, slot = (jnp.arange(x.shape[0], dtype=jnp.int32) for x in (query, keys))
    begin, end = begin[0], end[0]
    last = begin + frames - 1
    frame = last - (last - slot + 2 * slots) % slots  # the newest one of its slot; at most 2 slots - 1 are added
    valid = (slot < slots) & (frame >= 0) & (frame < end)
    is_query = row < frames
    start = begin + row // chunk * chunk  # first frame of the query's chunk
    visible = (
        is_query[:, None]
        & valid[None]
        & (start[:, None] - left <= frame[None])
        & (frame[None] < start[:, None] + chunk)
    )
    load = lambda ref, valid: plgpu.load(ref, mask=jnp.broadcast_to(valid[:, None], ref.shape), other=0)
    query = load(query, is_query)
    from_furthest = left + frames - 1 - (begin + row[:, None] - frame[None])
    index = jnp.where(visible, row[:, None] * (left + 2 * frames - 1) + from_furthest, 0)
    position = plgpu.load(scores.at[index], mask=visible, other=0.0)

    key_scale, value_scale = (plgpu.load(x, mask=valid, other=0.0)[None] for x in scales) if scales else (None, None)
    scaled = lambda y, scale: y if scale is None else y * scale
    cached = lambda ref: from_bits(load(ref, valid)).astype(query.dtype)
    content = scaled(_product(query, cached(keys).T), key_scale)
    score = jnp.where(visible, (content + position) * query.shape[1] ** -0.5, UNSEEN)
    weight = jnp.where(visible, jnp.exp(score - score.max(1)[:, None]), 0.0)
    total = weight.sum(1)[:, None]
    weight = scaled(weight / jnp.where(total > 0, total, 1.0), value_scale)
    y = _product(weight.astype(query.dtype), cached(values))
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
