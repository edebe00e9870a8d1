import jax
import numpy as np
import pytest
from flax import nnx

from nemojax.model.subsampling import Subsampling, bins_per_stage
from tests.helpers.definitions import linear, normal
from tests.helpers.streaming import assert_streams


def textbook(layer, log_mel: np.ndarray, frames: int) -> np.ndarray:
    """The definition on one recording: pad, convolve, mask by length, ReLU."""
    x = np.where(np.arange(log_mel.shape[0])[:, None] < frames, log_mel, 0.0)[:, :, None]
    length = frames
    for stage in range(3):
        conv = layer.conv_in if stage == 0 else layer.depthwise[stage - 1]
        kernel = np.asarray(conv.kernel[...])[:, :, 0]  # [time, mel bin, channel]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ((2, 1), (2, 1), (0, 0))), kernel.shape[:2], (0, 1)
        )
        x = np.einsum("tfcij,ijc->tfc", windows[::2, ::2], kernel) + np.asarray(conv.bias[...])
        if stage:
            x = linear(layer.pointwise[stage - 1], x)
        length = length // 2 + 1
        x = np.maximum(x, 0) * (np.arange(len(x)) < length)[:, None, None]
    return linear(layer.linear, np.moveaxis(x, 2, 1).reshape(len(x), -1))[:length]


@pytest.fixture(scope="module")
def layer(tiny_model):
    return tiny_model.encoder.subsampling


def test_bins(tiny_config):
    assert bins_per_stage(tiny_config) == [128, 65, 33, 17]


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 9, 10, 16, 17, 40, 41])
def test_frames_are_those_of_the_definition(layer, tiny_config, frames):
    log_mel = normal(frames, 48, 128)
    expected = textbook(layer, log_mel, frames)
    shifted = np.pad(log_mel, ((7, 1), (0, 0)), constant_values=9.0)[None]  # 7 before frame 0
    index = np.arange(56)[None] - 7
    mask = (index >= 0) & (index < frames)
    y, valid, _ = jax.jit(layer.step)(shifted, mask, layer.initial_cache(1))
    assert int(valid.sum()) == len(expected) == -(-(frames - 1) // 8) + 1
    np.testing.assert_allclose(y[0, : len(expected)], expected, atol=1e-5)


@pytest.mark.parametrize("size", [8, 16, 56])
def test_streams(layer, tiny_config, size):
    x = normal(1, 3, 112, 128)
    length = np.array([112, 61, 8])[:, None]
    index = np.arange(112)[None]
    mask = (index >= 7) & (index < length)
    step = lambda x, mask, cache: (lambda y, valid, cache: (y, cache))(*layer.step(x, mask, cache))
    _, valid, cache = jax.jit(layer.step)(x, mask, layer.initial_cache(3))
    assert_streams(step, x, mask, layer.initial_cache(3), size, valid=valid)
    assert [c.shape for c in cache.stages] == [(3, 1, 128, 1), (3, 1, 65, 8), (3, 1, 33, 8)]


def test_nothing_valid_is_no_frame(layer, tiny_config):
    cache = layer.initial_cache(1)
    y, valid, _ = jax.jit(layer.step)(np.ones((1, 8, 128), np.float32), np.zeros((1, 8), bool), cache)
    assert not np.any(valid) and not np.any(y)


def test_contract_catches_a_forgotten_cache(tiny_config):
    layer = Subsampling(tiny_config, rngs=nnx.Rngs(0))
    zeros = layer.initial_cache(1)

    def forgetful(x, mask, cache):
        return layer.step(x, mask, cache)[0], zeros

    x = normal(1, 1, 32, 128)
    with pytest.raises(AssertionError):
        assert_streams(forgetful, x, np.ones((1, 32), bool), zeros, 8, valid=np.ones((1, 4), bool))
