import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.conformer import BlockCache
from nemojax.encoder import EncoderCache
from tests.streaming import assert_streams


@pytest.fixture(params=["tiny", "family"])
def model(request, tiny_model, family_model):
    return {"tiny": tiny_model, "family": family_model}[request.param]


def test_a_block_is_the_sum_of_its_parts(model):
    """Pre-norm residual branches, half steps around, a norm at the end; masked frames never reach others."""
    block, config = model.encoder.blocks[0], model.config.encoder
    x, mask = jax.random.normal(jax.random.key(0), (2, 14, config.width)), jnp.ones((2, 14), bool)
    cache, positions = BlockCache.zeros(config, 2, jnp.float32), block.attention.project_positions(config)
    y, _ = block.step(x, mask, cache, positions, 7)
    z = x + 0.5 * block.feedforward1(block.norm_feedforward1(x))
    z = z + block.attention.step(block.norm_attention(z), mask, cache.attention, positions, 7)[0]
    z = z + block.convolution.step(block.norm_convolution(z), mask, cache.convolution)[0]
    z = z + 0.5 * block.feedforward2(block.norm_feedforward2(z))
    np.testing.assert_allclose(y, block.norm_out(z), atol=1e-6)


@pytest.mark.parametrize("chunk,size", [(1, 8), (1, 112), (7, 56), (14, 112)])
def test_streams(model, chunk, size):
    """Pieces of `size` log-mel frames, whole chunks of `chunk` encoder frames each."""
    config, frames = model.config, 448
    x = jax.random.normal(jax.random.key(1), (3, frames, config.features.mel_bins))
    index = jnp.arange(frames)[None]
    mask = (index >= 7) & (index < jnp.array([frames, 250, 8])[:, None])
    positions = model.encoder.project_positions()

    def step(x, mask, cache):
        y, _, cache = model.encoder.step(x, mask, cache, positions, chunk)
        return y, cache

    cache = EncoderCache.zeros(config, 3)
    y, valid, _ = jax.jit(model.encoder.step, static_argnums=4)(x, mask, cache, positions, chunk)
    assert not np.asarray(y)[~np.asarray(valid)].any()  # invalid frames are zero
    assert valid.sum(1).tolist() == [56, -(-(250 - 7 - 1) // 8) + 1, 1]
    assert_streams(step, x, mask, cache, size, valid=valid, atol=2e-5)


def test_input_scaling(family_model):
    """The 114M family multiplies subsampled frames by sqrt(width); without it the result is another."""
    assert family_model.config.encoder.scale_input
    x, mask = jax.random.normal(jax.random.key(2), (1, 8, 80)), jnp.ones((1, 8), bool)
    positions, cache = family_model.encoder.project_positions(), EncoderCache.zeros(family_model.config, 1)
    subsampled, valid, _ = family_model.encoder.subsampling.step(x, mask, cache.subsampling)
    y = subsampled * np.sqrt(family_model.config.encoder.width)
    for block, block_cache, position in zip(family_model.encoder.blocks, cache.blocks, positions, strict=True):
        y, _ = block.step(y, valid, block_cache, position, 1)
    np.testing.assert_allclose(family_model.encoder.step(x, mask, cache, positions, 1)[0], y, atol=1e-5)
