"""The cache-aware FastConformer encoder (Rekesh et al. 2023; Noroozi et al. 2023, arXiv 2312.17279)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from nemojax.config import ModelConfig
from nemojax.model.attention import Attention, Chunk
from nemojax.model.conformer import BlockCache, ConformerBlock
from nemojax.model.layers import PartSizes, by_rows, dropout, split_key
from nemojax.model.subsampling import Subsampling, SubsamplingCache


class EncoderCache(NamedTuple):
    """The caches of the subsampling and of every block."""

    subsampling: SubsamplingCache
    blocks: tuple[BlockCache, ...]


class Encoder(nnx.Module):
    """Subsampling by 8, then Conformer blocks; caches in, caches out."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs | None):
        self.config = config.encoder
        self.subsampling = Subsampling(config, rngs=rngs)
        self.parts = PartSizes()
        # not stacked: a scan over stacked weights would copy every layer's weights out of the stack at each step
        self.blocks = nnx.List([ConformerBlock(config.encoder, rngs=rngs) for _ in range(config.encoder.layers)])

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> EncoderCache:
        """Returns the caches before the first frame. `dtype` is that of keys and values."""
        blocks = tuple(block.initial_cache(batch, dtype) for block in self.blocks)
        return EncoderCache(self.subsampling.initial_cache(batch, dtype), blocks)

    def project_positions(self) -> tuple[Float[Array, "R H K"], ...]:
        """Projects the distances of every block: constants of the weights, computed once."""
        return tuple(_project_positions(block.attention) for block in self.blocks)

    def step(
        self,
        log_mel: Float[Array, "B F M"],
        mask: Bool[Array, "B F"],
        cache: EncoderCache,
        positions: tuple[Float[Array, "R H K"], ...],
        chunk: Chunk,
        key: Array | None = None,
        *,
        remat: bool = False,
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], EncoderCache]:
        """Encodes a segment of whole chunks of `chunk` frames, T = F / 8.

        The segment's first log-mel frame has index 8t - 7 where t is its first encoder frame; `mask` is false
        for frames before the recording and past its end. Invalid encoder frames are zero. With `remat`, the backward
        pass computes each block again from its input, which is all that is kept.
        """
        return self.step_with_blocks(log_mel, mask, cache, positions, chunk, key, remat=remat)[:3]

    def step_with_blocks(
        self,
        log_mel: Float[Array, "B F M"],
        mask: Bool[Array, "B F"],
        cache: EncoderCache,
        positions: tuple[Float[Array, "R H K"], ...],
        chunk: Chunk,
        key: Array | None = None,
        *,
        remat: bool = False,
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], EncoderCache, tuple[Float[Array, "B T D"], ...]]:
        """Encodes a segment as `step` does, and also returns each block's output, for losses on them.

        Invalid frames of these outputs may hold anything. Under `jax.jit` an output that is not used costs nothing.
        """
        batch, frames = log_mel.shape[0], log_mel.shape[1] // self.subsampling.config.subsampling_factor
        in_parts = key is None and isinstance(chunk, int)  # not in training, whose rows may lie on several devices
        rows = max(1, self.parts.subsampled // frames) if in_parts else batch
        with jax.named_scope("subsampling"):
            x = jnp.zeros((batch, frames, self.config.width), jnp.float32)
            replaced = x, jnp.zeros((batch, frames), jnp.bool_), cache.subsampling
            subsample = lambda replaced, log_mel, mask: self.subsampling.step(log_mel, mask, replaced[2])
            x, mask, subsampling = by_rows(subsample, rows, replaced, log_mel, mask)
        if self.config.scale_input:
            x = x * jnp.sqrt(jnp.float32(self.config.width))
        key, *keys = split_key(key, 1 + len(self.blocks))
        x = dropout(x, self.config.dropout, key)
        blocks, outputs = [], []

        @jax.jit  # traced once, for the first block; each block still has its own operations in XLA
        def step(
            block: ConformerBlock, x: Array, cache: BlockCache, positions: Array, key: Array | None
        ) -> tuple[Array, BlockCache]:
            call = jax.checkpoint(block.step) if remat else block.step
            return call(x, mask, cache, positions, chunk, key)

        for i, block in enumerate(self.blocks):
            with jax.named_scope(f"block{i}"):
                x, block_cache = step(block, x, cache.blocks[i], positions[i], keys[i])
            blocks.append(block_cache)
            outputs.append(x)
        return jnp.where(mask[..., None], x, 0.0), mask, EncoderCache(subsampling, tuple(blocks)), tuple(outputs)


@jax.jit  # traced once, for all blocks
def _project_positions(attention: Attention) -> Float[Array, "R H K"]:
    return attention.project_positions()
