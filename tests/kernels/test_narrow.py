import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.kernels.narrow import narrow
from nemojax.model.layers import Linear


@pytest.fixture(scope="module")
def half(tiny_model):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model)


def is_rounded(y):
    return bool((np.asarray(y) == np.asarray(y.astype(jnp.bfloat16), np.float32)).all())


def test_products_of_blocks_are_stored_in_bfloat16(half):
    model, x = narrow(half), jnp.asarray(np.random.default_rng(0).standard_normal((3, 32)), jnp.float32)
    for block, before in zip(model.encoder.blocks, half.encoder.blocks, strict=True):
        for layer, wide in ((block.attention.query, before.attention.query), (block.feedforward1.linear1,) * 2):
            assert layer(x).dtype == jnp.float32 and is_rounded(layer(x))
            np.testing.assert_allclose(layer(x), wide(x), rtol=0.01, atol=0.01)
        assert not is_rounded(before.attention.query(x))  # the model itself is unchanged
        assert block.attention.position.rounded == "float32"
    assert all(a is b for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(half), strict=True))


def test_every_layer_of_a_block_but_the_positions_is_rounded(half):
    block = narrow(half).encoder.blocks[0]
    parts = block.feedforward1, block.attention, block.convolution, block.feedforward2
    layers = {name: layer for part in parts for name, layer in vars(part).items() if isinstance(layer, Linear)}
    wide = [name for name, layer in layers.items() if layer.rounded != "bfloat16"]
    assert len(layers) == 9 and wide == ["position"]


def test_frames_between_stages_are_rounded_and_streams_equal_the_whole(half):
    layer, wide = narrow(half).encoder.subsampling, half.encoder.subsampling
    x = jnp.asarray(np.random.default_rng(1).normal(-11, 4, (1, 64, 128)), jnp.float32)
    mask = jnp.ones((1, 64), bool).at[:, :7].set(False)
    step = jax.jit(layer.step)
    y, _, cache = step(x, mask, layer.initial_cache(1))
    first, _, between = step(x[:, :32], mask[:, :32], layer.initial_cache(1))
    second, _, after = step(x[:, 32:], mask[:, 32:], between)
    assert jax.tree.map(lambda a: a.dtype, cache) == jax.tree.map(lambda a: a.dtype, layer.initial_cache(1))
    assert is_rounded(cache.stages[1]) and is_rounded(cache.stages[2]) and not is_rounded(cache.stages[0])
    jax.tree.map(np.testing.assert_array_equal, after, cache)
    exact, _, _ = jax.jit(wide.step)(x, mask, wide.initial_cache(1))
    scale = float(jnp.abs(exact).max())
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), y, atol=0.002 * scale)
    assert 0 < float(jnp.abs(y - exact).max()) < 0.02 * scale
