"""Chunked self-attention with relative positions and a cache of projected keys and values.

A query sees its whole chunk and the `left_context_frames` before that chunk, nothing else. As the left
context is a whole number of chunks, so is every window of keys, and where a window begins does not matter:
only distances enter. A segment is cut into blocks of at most one left context; all blocks are computed
alike, a live chunk being a segment of one block.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import EncoderConfig
from nemojax.layers import Linear, dropout, einsum

Chunk = int | Int[Array, ""]  # frames; traced in training, so that one compilation serves every look-ahead


class AttentionCache(NamedTuple):
    """Projected keys and values of the last frames; only the newest `length` of them are valid."""

    keys: Float[Array, "B C H K"]
    values: Float[Array, "B C H K"]
    length: Int[Array, " B"]

    @classmethod
    def zeros(cls, config: EncoderConfig, batch: int, dtype=jnp.float32) -> "AttentionCache":
        shape = (batch, config.left_context_frames, config.heads, config.head_width)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(batch, jnp.int32))


def sinusoids(distance_frames: np.ndarray, width: int) -> np.ndarray:
    """Encodings of signed distances (query minus key), sines and cosines interleaved, [distances, D]."""
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angle = distance_frames[:, None].astype(np.float32) * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(distance_frames), width)


def position_distances(config: EncoderConfig) -> np.ndarray:
    """Distances between any query and key of the largest block, furthest first.

    A block of Q queries uses the Q - 1 distances ahead, 0, and left_context + Q - 1 behind; it takes them
    out of the middle of this table.
    """
    most = config.left_context_frames  # queries in a block
    return np.arange(config.left_context_frames + most - 1, -most, -1)


def relative_shift(score_BGHQR: Array, keys: int) -> Array:
    """Scores by distance [..., Q, R] to scores by key [..., Q, keys], R = keys + Q - 1.

    Distances run from far to near, so row i begins Q - 1 - i entries in (Dai et al. 2019, appendix B).
    """
    *lead, queries, distances = score_BGHQR.shape
    padded = jnp.pad(score_BGHQR, [(0, 0)] * (len(lead) + 1) + [(1, 0)])
    flat = padded.reshape(*lead, (distances + 1) * queries)
    return flat[..., queries:].reshape(*lead, queries, distances)[..., :keys]


def chunk_mask(queries: int, left: int, chunk: Chunk) -> np.ndarray | Array:
    """Which of a block's left + Q keys each of its Q queries may see, [Q, left + Q]."""
    start = np.arange(queries)[:, None] // chunk * chunk  # first frame of the query's chunk
    key = np.arange(-left, queries)[None]
    return (start - left <= key) & (key < start + chunk)


def windows(x: Array, blocks: int, queries: int, left: int) -> Array:
    """Each block's left + Q keys, [B, G, left + Q, ...], out of [B, left + G * Q, ...]."""
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
        self.content_bias = nnx.Param(jnp.zeros((config.heads, config.head_width)))
        self.position_bias = nnx.Param(jnp.zeros((config.heads, config.head_width)))
        self.dropout = config.attention_dropout

    def project_positions(self, config: EncoderConfig) -> Float[Array, "R H K"]:
        """This layer's projection of every distance that a block can hold; constant for given weights."""
        table = jnp.asarray(sinusoids(position_distances(config), config.width))
        projected = self.position(table).reshape(-1, config.heads, config.head_width)
        return projected.astype(self.position.kernel.dtype)

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

        A query that may see no valid key gives zero before the output projection. With a `key`, as in every
        layer, dropout is applied.
        """
        left, (batch, frames, width) = cache.keys.shape[1], x.shape
        heads = self.content_bias.shape
        x = jnp.where(mask[..., None], x, 0.0)
        split = lambda y: y.reshape(batch, frames, *heads)
        query = split(self.query(x))
        keys = jnp.concatenate([cache.keys, split(self.key(x)).astype(cache.keys.dtype)], axis=1)
        values = jnp.concatenate([cache.values, split(self.value(x)).astype(cache.values.dtype)], axis=1)
        valid = jnp.concatenate([jnp.arange(left)[None] >= left - cache.length[:, None], mask], axis=1)

        queries = min(frames, left)  # in a block
        blocks = -(-frames // queries)
        pad = lambda y: jnp.pad(y, [(0, 0), (0, blocks * queries - frames)] + [(0, 0)] * (y.ndim - 2))
        query_BGQHK = pad(query).reshape(batch, blocks, queries, *heads)
        keys_BGCHK, values_BGCHK, valid_BGC = (windows(pad(y), blocks, queries, left) for y in (keys, values, valid))

        near = (positions.shape[0] - left + 1) // 2 - queries  # distances that only a larger block holds
        positions = positions[near : positions.shape[0] - near]
        content = einsum("bgqhk,bgchk->bghqc", query_BGQHK + self._bias(self.content_bias), keys_BGCHK)
        position = einsum("bgqhk,rhk->bghqr", query_BGQHK + self._bias(self.position_bias), positions)
        score_BGHQC = (content + relative_shift(position, left + queries)) * heads[1] ** -0.5

        seen = chunk_mask(queries, left, chunk)[None, None, None] & valid_BGC[:, :, None, None]
        weight = jax.nn.softmax(jnp.where(seen, score_BGHQC, -1e30), axis=-1)
        weight = dropout(jnp.where(seen, weight, 0.0), self.dropout, key)
        y = einsum("bghqc,bgchk->bgqhk", weight, values_BGCHK)
        y = self.output(y.reshape(batch, blocks * queries, width)[:, :frames])

        newest = lambda z: z[:, z.shape[1] - left :]
        return y, AttentionCache(newest(keys), newest(values), jnp.minimum(cache.length + frames, left))

    def _bias(self, bias: nnx.Param) -> Array:
        return bias[...].astype(jnp.float32)[None, None, None]
