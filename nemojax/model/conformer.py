"""One Conformer block: half feed-forward, attention, convolution, half feed-forward, norm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from nemojax.config import EncoderConfig
from nemojax.model.attention import Attention, Chunk
from nemojax.model.convolution import ConvolutionModule
from nemojax.model.layers import LayerNorm, Linear, PartSizes, by_rows, dropout, split_key


class BlockCache(NamedTuple):
    """The caches of a block's stateful layers, each of the type that the layer makes."""

    attention: Any
    convolution: Any


class FeedForward(nnx.Module):
    """Feed-forward layer: linear, SiLU, linear."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        self.linear1 = Linear(config.width, config.feedforward_width, config.use_bias, rngs=rngs)
        self.linear2 = Linear(config.feedforward_width, config.width, config.use_bias, rngs=rngs)
        self.config = config

    def __call__(self, x: Float[Array, "B T D"], key: Array | None = None) -> Float[Array, "B T D"]:
        return self.linear2(dropout(jax.nn.silu(self.linear1(x)), self.config.dropout, key))


class ConformerBlock(nnx.Module):
    """A Conformer block (Gulati et al. 2020, section 2.4); every part is pre-norm and residual."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs | None):
        self.norm_feedforward1 = LayerNorm(config.width)
        self.feedforward1 = FeedForward(config, rngs=rngs)
        self.norm_attention = LayerNorm(config.width)
        self.attention = Attention(config, rngs=rngs)
        self.norm_convolution = LayerNorm(config.width)
        self.convolution = ConvolutionModule(config, rngs=rngs)
        self.norm_feedforward2 = LayerNorm(config.width)
        self.feedforward2 = FeedForward(config, rngs=rngs)
        self.norm_out = LayerNorm(config.width)
        self.parts = PartSizes()
        self.config = config

    def initial_cache(self, batch: int, dtype: DTypeLike = jnp.float32) -> BlockCache:
        """Returns the caches of the block's layers before the first frame."""
        return BlockCache(self.attention.initial_cache(batch, dtype), self.convolution.initial_cache(batch, dtype))

    def step(
        self,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"],
        cache: BlockCache,
        positions: Float[Array, "R H K"],
        chunk: Chunk,
        key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], BlockCache]:
        """Advances the block by a segment of whole chunks of `chunk` frames."""
        keys, rate = split_key(key, 7), self.config.dropout
        in_parts = key is None and isinstance(chunk, int)  # not in training, whose rows may lie on several devices
        rows = max(1, self.parts.feedforward // x.shape[1]) if in_parts else x.shape[0]

        def add_half(function: Callable[[Array], Array], x: Array, key: Array | None) -> Array:
            added: Array = by_rows(lambda x: x + 0.5 * dropout(function(x), rate, key), rows, x)
            return added

        with jax.named_scope("feedforward1"):
            x = add_half(lambda x: self.feedforward1(self.norm_feedforward1(x), keys[0]), x, keys[1])
        with jax.named_scope("attention"):
            y, attention = self.attention.step(self.norm_attention(x), mask, cache.attention, positions, chunk, keys[2])
            x = x + dropout(y, rate, keys[3])
        with jax.named_scope("convolution"):
            y, convolution = self.convolution.step(self.norm_convolution(x), mask, cache.convolution)
            x = x + dropout(y, rate, keys[4])
        with jax.named_scope("feedforward2"):
            x = add_half(lambda x: self.feedforward2(self.norm_feedforward2(x), keys[5]), x, keys[6])
        return self.norm_out(x), BlockCache(attention, convolution)
