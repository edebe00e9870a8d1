import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.model.layers import dropout, split_key
from tests.helpers.definitions import normal
from tests.helpers.streaming import assert_streams


@pytest.fixture(params=["tiny", "family"])
def model(request, tiny_model, family_model):
    return {"tiny": tiny_model, "family": family_model}[request.param]


def test_a_block_is_the_sum_of_its_parts(model):
    """Pre-norm residual branches, half steps around, a norm at the end; masked frames never reach others."""
    block, config = model.encoder.blocks[0], model.config.encoder
    x, mask = normal(0, 2, 14, config.width), np.ones((2, 14), bool)
    cache, positions = block.initial_cache(2), block.attention.project_positions()

    @jax.jit
    def parts(x, mask):
        z = x + 0.5 * block.feedforward1(block.norm_feedforward1(x))
        z = z + block.attention.step(block.norm_attention(z), mask, cache.attention, positions, 7)[0]
        z = z + block.convolution.step(block.norm_convolution(z), mask, cache.convolution)[0]
        z = z + 0.5 * block.feedforward2(block.norm_feedforward2(z))
        return block.norm_out(z)

    y, _ = jax.jit(block.step, static_argnums=4)(x, mask, cache, positions, 7)
    np.testing.assert_allclose(y, parts(x, mask), atol=1e-6)


@pytest.mark.parametrize("chunk,size", [(1, 8), (1, 112), (7, 56), (14, 112)])
def test_streams(model, chunk, size):
    """Pieces of `size` log-mel frames, whole chunks of `chunk` encoder frames each."""
    config, frames = model.config, 448
    x = normal(1, 3, frames, config.features.mel_bins)
    index = np.arange(frames)[None]
    mask = (index >= 7) & (index < np.array([frames, 250, 8])[:, None])
    positions = model.encoder.project_positions()

    def step(x, mask, cache):
        y, _, cache = model.encoder.step(x, mask, cache, positions, chunk)
        return y, cache

    cache = model.encoder.initial_cache(3)
    y, valid, _ = jax.jit(model.encoder.step, static_argnums=4)(x, mask, cache, positions, chunk)
    assert not np.asarray(y)[~np.asarray(valid)].any()  # invalid frames are zero
    assert np.asarray(valid).sum(1).tolist() == [56, -(-(250 - 7 - 1) // 8) + 1, 1]
    assert_streams(step, x, mask, cache, size, valid=valid, atol=2e-5)


def test_input_scaling(family_model):
    """The 114M family multiplies subsampled frames by sqrt(width); without it the result is another."""
    assert family_model.config.encoder.scale_input
    x, mask = normal(2, 1, 8, 80), np.ones((1, 8), bool)
    positions, cache = family_model.encoder.project_positions(), family_model.encoder.initial_cache(1)

    @jax.jit
    def parts(x, mask):
        subsampled, valid, _ = family_model.encoder.subsampling.step(x, mask, cache.subsampling)
        y = subsampled * np.sqrt(family_model.config.encoder.width)
        for block, block_cache, position in zip(family_model.encoder.blocks, cache.blocks, positions, strict=True):
            y, _ = block.step(y, valid, block_cache, position, 1)
        return y

    y, _, _ = jax.jit(family_model.encoder.step, static_argnums=4)(x, mask, cache, positions, 1)
    np.testing.assert_allclose(y, parts(x, mask), atol=1e-5)


def test_dropout_is_inside_the_feedforwards_and_on_every_branch(tiny_model):
    block, config = tiny_model.encoder.blocks[0], tiny_model.config.encoder
    x, mask = normal(0, 2, 14, config.width), np.ones((2, 14), bool)
    cache, positions = block.initial_cache(2), block.attention.project_positions()
    keys, drop = split_key(jax.random.key(1), 7), lambda y, key: dropout(y, config.dropout, key)

    def feedforward(layer, x, inner, outer):
        hidden = drop(jax.nn.silu(layer.linear1(x)), inner)
        return 0.5 * drop(layer.linear2(hidden), outer)

    @jax.jit
    def parts(x, mask):
        z = x + feedforward(block.feedforward1, block.norm_feedforward1(x), keys[0], keys[1])
        y, _ = block.attention.step(block.norm_attention(z), mask, cache.attention, positions, 7, keys[2])
        z = z + drop(y, keys[3])
        z = z + drop(block.convolution.step(block.norm_convolution(z), mask, cache.convolution)[0], keys[4])
        z = z + feedforward(block.feedforward2, block.norm_feedforward2(z), keys[5], keys[6])
        return block.norm_out(z)

    dropped, _ = jax.jit(block.step, static_argnums=4)(x, mask, cache, positions, 7, jax.random.key(1))
    np.testing.assert_allclose(dropped, parts(x, mask), atol=1e-6)


def test_dropout_after_the_subsampling_and_in_every_block(tiny_model):
    encoder, config = tiny_model.encoder, tiny_model.config
    x, mask = normal(2, 1, 112, config.features.mel_bins), np.ones((1, 112), bool)
    positions, cache, key = encoder.project_positions(), encoder.initial_cache(1), jax.random.key(3)
    first, *rest = split_key(key, 1 + config.encoder.layers)

    @jax.jit
    def parts(x, mask):
        y, valid, _ = encoder.subsampling.step(x, mask, cache.subsampling)
        y = dropout(y, config.encoder.dropout, first)
        for block, block_cache, position, block_key in zip(encoder.blocks, cache.blocks, positions, rest, strict=True):
            y, _ = block.step(y, valid, block_cache, position, 7, block_key)
        return y

    y, _, _ = jax.jit(encoder.step, static_argnums=4)(x, mask, cache, positions, 7, key)
    np.testing.assert_allclose(y, parts(x, mask), atol=1e-5)


def test_rematerialised_blocks_give_the_same_values_and_gradients(tiny_model):
    config = tiny_model.config
    x, mask = jax.random.normal(jax.random.key(2), (1, 112, config.features.mel_bins)), jnp.ones((1, 112), bool)
    positions, cache = tiny_model.encoder.project_positions(), tiny_model.encoder.initial_cache(1)

    def loss(encoder, remat):
        y, _, _ = encoder.step(x, mask, cache, positions, jnp.int32(7), jax.random.key(0), remat=remat)
        return jnp.square(y).sum()

    both = jax.jit(lambda encoder: [jax.value_and_grad(loss)(encoder, remat) for remat in (False, True)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *both(tiny_model.encoder))
    backward = lambda remat: jax.eval_shape(lambda e: jax.vjp(lambda e: loss(e, remat), e)[1], tiny_model.encoder)
    assert len(jax.tree.leaves(backward(True))) < len(jax.tree.leaves(backward(False))) / 2  # kept from the forward
