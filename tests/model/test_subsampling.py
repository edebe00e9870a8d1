import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nemojax.model.subsampling import Subsampling, bins_per_stage
from tests.helpers.streaming import assert_streams


def textbook(layer, log_mel: np.ndarray, frames: int) -> np.ndarray:
    """The definition on one recording, with XLA's convolutions: pad, convolve, mask by length, ReLU."""
    x = jnp.where(jnp.arange(log_mel.shape[0])[:, None] < frames, log_mel, 0.0)[None, :, :, None]
    length = frames
    for stage in range(3):
        conv = layer.conv_in if stage == 0 else layer.depthwise[stage - 1]
        x = jax.lax.conv_general_dilated(
            x,
            conv.kernel[...],
            (2, 2),
            ((2, 1), (2, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1],
        )
        x = x + conv.bias[...][None, None, None]
        if stage:
            pointwise = layer.pointwise[stage - 1]
            x = x @ pointwise.kernel[...] + pointwise.bias[...][None, None, None]
        length = length // 2 + 1
        x = jax.nn.relu(x) * (jnp.arange(x.shape[1]) < length)[None, :, None, None]
    flat = jnp.moveaxis(x[0], 2, 1).reshape(x.shape[1], -1)
    return (flat @ layer.linear.kernel[...] + layer.linear.bias[...][None])[:length]


@pytest.fixture(scope="module")
def layer(tiny_model):
    return tiny_model.encoder.subsampling


def test_bins(tiny_config):
    assert bins_per_stage(tiny_config) == [128, 65, 33, 17]


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 10, 16, 17, 40, 41])
def test_frames_are_those_of_the_definition(layer, tiny_config, frames):
    log_mel = jax.random.normal(jax.random.key(frames), (48, 128))
    expected = textbook(layer, log_mel, frames)
    shifted = jnp.concatenate([jnp.full((7, 128), 9.0), log_mel, jnp.full((1, 128), 9.0)])[None]  # 7 before frame 0
    index = jnp.arange(56)[None] - 7
    mask = (index >= 0) & (index < frames)
    y, valid, _ = layer.step(shifted, mask, layer.initial_cache(1))
    assert int(valid.sum()) == len(expected) == -(-(frames - 1) // 8) + 1
    np.testing.assert_allclose(y[0, : len(expected)], expected, atol=1e-5)


@pytest.mark.parametrize("size", [8, 16, 56])
def test_streams(layer, tiny_config, size):
    x = jax.random.normal(jax.random.key(1), (3, 112, 128))
    length = jnp.array([112, 61, 8])[:, None]
    index = jnp.arange(112)[None]
    mask = (index >= 7) & (index < length)
    step = lambda x, mask, cache: (lambda y, valid, cache: (y, cache))(*layer.step(x, mask, cache))
    _, valid, cache = layer.step(x, mask, layer.initial_cache(3))
    assert_streams(step, x, mask, layer.initial_cache(3), size, valid=valid)
    assert [c.shape for c in cache.stages] == [(3, 1, 128, 1), (3, 1, 65, 8), (3, 1, 33, 8)]


def test_nothing_heard_is_no_frame(layer, tiny_config):
    y, valid, _ = layer.step(jnp.ones((1, 8, 128)), jnp.zeros((1, 8), bool), layer.initial_cache(1))
    assert not valid.any() and not y.any()


def test_contract_catches_a_forgotten_cache(tiny_config):
    layer = Subsampling(tiny_config, rngs=nnx.Rngs(0))
    zeros = layer.initial_cache(1)

    def forgetful(x, mask, cache):
        return layer.step(x, mask, cache)[0], zeros

    x = jax.random.normal(jax.random.key(1), (1, 32, 128))
    with pytest.raises(AssertionError):
        assert_streams(forgetful, x, jnp.ones((1, 32), bool), zeros, 8, valid=jnp.ones((1, 4), bool))
