import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.config import FeatureConfig
from nemojax.model import features
from tests.helpers.streaming import stepped

CONFIG = FeatureConfig()


def textbook(x: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Log-mel frames by the definition, one at a time, in float64; frame m is centered on sample 160 m."""
    filters = np.asarray(features.mel_filters(config), np.float64)
    emphasized = np.concatenate([x[:1], x[1:] - config.preemphasis * x[:-1]]).astype(np.float64)
    padded = np.pad(emphasized, 256)
    window = np.pad(np.hanning(400), 56)
    power = [np.abs(np.fft.rfft(padded[160 * m : 160 * m + 512] * window)) ** 2 for m in range(len(x) // 160)]
    return np.log(np.array(power) @ filters + 2.0**-24)


def framed(x, size=None):
    """Frames 0, 1, ... of one signal. A segment's first window begins 240 samples before it, frame 0's 200
    before the signal: with 120 zeros in front, frame 0 is the second."""
    x = jnp.pad(x, (120, 0))[None]
    x = x[:, : x.shape[1] // 160 * 160]
    step = lambda x, mask, cache: features.step(x, mask, cache, CONFIG)
    return stepped(step, x, jnp.ones(x.shape, bool), features.initial_cache(CONFIG, 1), size or x.shape[1])[0][0, 1:]


@pytest.mark.parametrize("bins", [80, 128])
def test_mel_filters_are_librosas(bins):
    import librosa

    expected = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=bins, fmin=0, fmax=8000, norm="slaney")
    np.testing.assert_allclose(features.mel_filters(FeatureConfig(mel_bins=bins)), expected.T, atol=1e-8)


def test_frames_are_those_of_the_definition(speech):
    x = speech[:16_000]
    expected, frames = textbook(np.asarray(x), CONFIG), framed(x)
    np.testing.assert_allclose(frames[:98], expected[:98], atol=2e-3)
    assert np.abs(np.asarray(frames[:98]) - expected[:98]).mean() < 1e-5


@pytest.mark.parametrize("size", [160, 1280])
def test_pieces_equal_the_whole(speech, size):
    x = speech[: 12_800 - 120]
    np.testing.assert_allclose(framed(x, size), framed(x), atol=1e-6)


def test_samples_outside_the_mask_count_as_zero(speech):
    x = speech[None, :3200]
    mask = jnp.arange(3200)[None] < 2000
    cache = features.initial_cache(CONFIG, 1)
    masked, after = features.step(jnp.where(mask, x, jnp.nan), mask, cache, CONFIG)
    zeroed = jnp.where(mask, x, 0.0)
    plain, _ = features.step(zeroed, jnp.ones_like(mask), cache, CONFIG)
    assert bool(jnp.isfinite(masked).all()) and all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(after))
    # equal up to the end, but for the sample after it: pre-emphasis of a zero would be -0.97 x there
    np.testing.assert_allclose(masked[0, :11], plain[0, :11], atol=1e-6)
    assert not np.allclose(masked[0, 12], plain[0, 12], atol=1e-3)
