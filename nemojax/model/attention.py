"""Chunked self-attention with relative positions and a cache of projected keys and values.

A query attends to its whole chunk and to the `left_context_frames` before that chunk, nothing else. As the left
context is a whole number of chunks, so is every window of keys, and only distances enter, not where a window begins.

There are two forms, of one result. A live chunk is written to the cache, a ring, and its queries attend to the ring
as it lies in memory. A longer segment is cut into blocks of at most one left context, whose keys are gathered in order;
all blocks are computed alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import EncoderConfig
from nemojax.model.layers import Linear, PartSizes, by_rows, dropout, einsum
from nemojax.model.ring import Ring, append

UNSEEN = -1e30  # the score of a key outside a query's context
Chunk = int | Int[Array, ""]  # frames; traced in training, so that one compilation serves every look-ahead


class AttentionCache(NamedTuple):
    """Projected keys and values of the last frames, in rings; a query sees `left_context_frames` of them at most."""

    keys: Ring
    values: Ring
    length: Int[Array, " B"]  # frames of each stream so far


def sinusoids(distance_frames: np.ndarray, width: int) -> np.ndarray:
    """Encodes signed distances (query minus key) as interleaved sines and cosines, [distances, D]."""
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angle = distance_frames[:, None].astype(np.float32) * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(distance_frames), width)


def position_distances(config: EncoderConfig) -> np.ndarray:
    """Returns the distances between any query and key of the largest block, furthest first.

    A block of Q queries uses the Q - 1 distances ahead, 0, and left_context + Q - 1 behind: the middle of this table.
    """
    block_queries = config.left_context_frames
    return np.arange(config.left_context_frames + block_queries - 1, -block_queries, -1, dtype=np.int32)


def relative_shift(score_BGHQR: Array, keys: int) -> Array:
    """Turns scores by distance [..., Q, R] into scores by key [..., Q, keys], R = keys + Q - 1.

    Distances run from far to near, so row i begins Q - 1 - i entries in (Dai et al. 2019, appendix B).
    """
    *lead, queries, distances = score_BGHQR.shape
    padded = jnp.pad(score_BGHQR, [(0, 0)] * (len(lead) + 1) + [(1, 0)])
    flat = padded.reshape(*lead, (distances + 1) * queries)
    return flat[..., queries:].reshape(*lead, queries, distances)[..., :keys]


def chunk_mask(queries: int, left: int, chunk: Chunk) -> np.ndarray | Array:
    """Returns which of a block's left + Q keys each of its Q queries attends to, [Q, left + Q]."""
    start = np.arange(queries, dtype=np.int32)[:, None] // chunk * chunk  # first frame of the query's chunk
    key = np.arange(-left, queries, dtype=np.int32)[None]
    return (start - left <= key) & (key < start + chunk)


def ring_mask(
    frame: Int[Array, "B S"], start: Int[Array, "B T"], end: Int[Array, " B"], left: int, chunk: Chunk
) -> Bool[Array, "B T S"]:
    """Returns which slots queries attend to, given the frame in each slot and the first frame of each query's chunk.

    `end` is the number of valid frames.
    """
    frame, start = frame[:, None], start[..., None]
    valid = (frame >= 0) & (frame < end[:, None, None])
    return valid & (start - left <= frame) & (frame < start + chunk)


def windows(x: Array, blocks: int, queries: int, left: int) -> Array:
    """Gathers each block's left + Q keys, [B, G, left + Q, ...], out of [B, left + G * Q, ...]."""
    index = np.arange(blocks)[:, None] * queries + np.arange(left + queries)
    return x[:, index] if blocks > 1 else x[:, None]


class Attention(nnx.Module):
    """Multi-head attention with Transformer-XL's relative positions, untied biases (Dai et al. 2019, 3.3)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        width, use_bias = config.width, config.use_bias
        self.query = Linear(width, width, use_bias, rngs=rngs)
        self.key = Linear(width, width, use_bias, rngs=rngs)
        self.value = Linear(width, width, use_bias, rngs=rngs)
        self.output = Linear(width, width, use_bias, rngs=rngs)
        self.position = Linear(width, width, use_bias=False, rngs=rngs)
        self.content_bias = nnx.Param(jnp.zeros((config.heads, config.head_width), jnp.float32))
        self.position_bias = nnx.Param(jnp.zeros((config.heads, config.head_width), jnp.float32))
        self.parts = PartSizes()
        self.cache_dtype: str | None = None  # of keys and values in the cache; None is that of the weights
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> AttentionCache:
        """Returns the cache before the first frame. `dtype` is that of keys and values, unless `cache_dtype` is set."""
        slots = self.config.left_context_frames + self.config.largest_chunk_frames
        ring = Ring.zeros(batch, self.config.heads, slots, self.config.head_width, self.cache_dtype or dtype)
        return AttentionCache(ring, ring, jnp.zeros(batch, jnp.int32))

    def project_positions(self) -> Float[Array, "R H K"]:
        """Projects every distance that a block can hold; constant for given weights."""
        table = jnp.asarray(sinusoids(position_distances(self.config), self.config.width))
        projected = self.position(table).reshape(-1, self.config.heads, self.config.head_width)
        return projected.astype(self.position_bias.dtype)

    def step(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        cache: AttentionCache,
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], AttentionCache]:
        """Attends over a segment of whole chunks of `chunk` frames and the cached frames before it.

        A query without a valid key in its context gives zero before the output projection. With a PRNG `key`, as in
        every layer, dropout is applied.
        """
        batch, frames, width = x.shape
        x = jnp.where(mask[..., None], x, 0.0)
        split = lambda y: y.reshape(batch, frames, *self.content_bias.shape)
        query, keys, values = split(self.query(x)), split(self.key(x)), split(self.value(x))
        left, dtype = self.config.left_context_frames, positions.dtype
        new_keys, new_values = (
            ring.stored(jnp.swapaxes(y, 1, 2)) for ring, y in ((cache.keys, keys), (cache.values, values))
        )
        begin, end = cache.length, cache.length + mask.sum(1, dtype=jnp.int32)
        if key is None and frames <= cache.keys.slots - left:
            write = lambda ring, new: ring.write(new, begin, mask)
            cache = AttentionCache(write(cache.keys, new_keys), write(cache.values, new_values), end)
            rows = max(1, self.parts.cast // cache.keys.slots) if cache.keys.is_cast else batch
            attend = lambda query, cache, begin: self.attend_in_place(query, cache, begin, positions, chunk)
            y = by_rows(attend, rows, query, cache, begin)
        else:
            old_keys, key_ring = append(cache.keys, new_keys, begin, mask, left)
            old_values, value_ring = append(cache.values, new_values, begin, mask, left)
            cache = AttentionCache(key_ring, value_ring, end)
            whole = lambda *rings: jnp.concatenate([jnp.swapaxes(ring.values(dtype), 1, 2) for ring in rings], axis=1)
            keys, values = whole(old_keys, new_keys), whole(old_values, new_values)
            y = self.attend(query, keys, values, mask, begin, positions, chunk, key)
        return self.output(y.reshape(batch, frames, width)), cache

    def attend_in_place(
        self,
        query: Float[Array, "B T H K"],
        cache: AttentionCache,
        begin: Int[Array, " B"],
        positions: Float[Array, "R H K"],
        chunk: Chunk,
    ) -> Float[Array, "B T H K"]:
        """Attends to a cache that the segment has been written to, without a copy of it; T is one chunk or a few.

        `begin` is the number of frames before the segment.
        """
        left, (frames, width) = self.config.left_context_frames, query.shape[1::2]
        frame, index = cache.keys.frame_of_slot(begin + frames), jnp.arange(frames, dtype=jnp.int32)
        start = begin[:, None] + (index // chunk * chunk)[None]  # first frame of the query's chunk
        visible = ring_mask(frame, start, cache.length, left, chunk)
        distance = begin[:, None, None] + index[None, :, None] - frame[:, None]  # [B, T, S]
        furthest = left + frames - 1
        from_furthest = jnp.clip(furthest - distance, 0, furthest + frames - 1)
        position = self.position_scores(query[:, None], positions, left)[:, 0]
        position = jnp.take_along_axis(position, from_furthest[:, None], axis=3)

        dtype = positions.dtype
        scaled = lambda y, ring: y if ring.scale is None else y * ring.scale[:, :, None]
        content = einsum("bqhk,bhsk->bhqs", query + self._bias(self.content_bias)[0], cache.keys.cast(dtype))
        score = (scaled(content, cache.keys) + position) * width**-0.5
        visible = visible[:, None]
        weight = jax.nn.softmax(jnp.where(visible, score, UNSEEN), axis=-1)
        weight = scaled(jnp.where(visible, weight, 0.0), cache.values)
        return einsum("bhqs,bhsk->bqhk", weight, cache.values.cast(dtype))

    def attend(
        self,
        query: Float[Array, "B T H K"],
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        mask: Bool[Array, "B T"],
        length: Int[Array, " B"],
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None,
    ) -> Float[Array, "B T H K"]:
        """Attends to the left context and a segment of any number of chunks, N = left context + T frames in order.

        Of the left context, the last `length` frames are valid.
        """
        left, (batch, frames, *heads) = self.config.left_context_frames, query.shape
        valid = jnp.concatenate([jnp.arange(left, dtype=jnp.int32)[None] >= left - length[:, None], mask], axis=1)

        queries = min(frames, left)  # in a block
        blocks = -(-frames // queries)
        pad = lambda y: jnp.pad(y, [(0, 0), (0, blocks * queries - frames)] + [(0, 0)] * (y.ndim - 2))
        query_BGQHK = pad(query).reshape(batch, blocks, queries, *heads)
        keys_BGCHK, values_BGCHK, valid_BGC = (windows(pad(y), blocks, queries, left) for y in (keys, values, valid))

        content = einsum("bgqhk,bgchk->bghqc", query_BGQHK + self._bias(self.content_bias), keys_BGCHK)
        position = self.position_scores(query_BGQHK, positions, left)
        score_BGHQC = (content + relative_shift(position, left + queries)) * heads[1] ** -0.5

        visible = chunk_mask(queries, left, chunk)[None, None, None] & valid_BGC[:, :, None, None]
        weight = jax.nn.softmax(jnp.where(visible, score_BGHQC, UNSEEN), axis=-1)
        weight = dropout(jnp.where(visible, weight, 0.0), self.config.attention_dropout, key)
        y = einsum("bghqc,bgchk->bgqhk", weight, values_BGCHK)
        return y.reshape(batch, blocks * queries, *heads)[:, :frames]

    def position_scores(
        self, query: Float[Array, "B G Q H K"], positions: Float[Array, "R H K"], left: int
    ) -> Float[Array, "B G H Q S"]:
        """Scores queries by the S = left + 2 Q - 1 distances in their block, furthest first."""
        unused = (positions.shape[0] - left + 1) // 2 - query.shape[2]  # distances at each end, of larger blocks only
        positions = positions[unused : positions.shape[0] - unused]
        return einsum("bgqhk,rhk->bghqr", query + self._bias(self.position_bias), positions)

    def _bias(self, bias: "nnx.Param[Array]") -> Array:
        return bias[...].astype(jnp.float32)[None, None, None]
