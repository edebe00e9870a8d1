"""Samples to log-mel frames, in segments of any length.

Frame m is centered on sample 160 m and touches samples [160 m - 200, 160 m + 200), so a segment needs the
last 240 samples before it, already pre-emphasized, and one raw sample for the pre-emphasis itself.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from nemojax.config import FeatureConfig

MelEnergies = Callable[[Array, FeatureConfig], Array]


class FeatureCache(NamedTuple):
    """The samples before a segment that its frames need; zeros before the first sample."""

    last: Float[Array, "B 1"]  # the last raw sample
    overlap: Float[Array, "B overlap"]  # pre-emphasized samples that the next windows share


def initial_cache(config: FeatureConfig, batch: int) -> FeatureCache:
    """Returns the cache before the first sample: zeros."""
    return FeatureCache(jnp.zeros((batch, 1), jnp.float32), jnp.zeros((batch, config.overlap_samples), jnp.float32))


@lru_cache
def mel_filters(config: FeatureConfig) -> np.ndarray:
    """Returns triangular mel filters with Slaney's area normalization, [fft_samples // 2 + 1, M]."""
    triangle, scale = mel_triangles(config)
    filters: np.ndarray = triangle * scale
    return filters.astype(np.float32)


def mel_triangles(config: FeatureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns triangles of height 1 on Slaney's mel scale, [fft_samples // 2 + 1, M], and what gives them equal area.

    The scale (Slaney, Auditory Toolbox, 1998) is linear below 1 kHz, 3 mels per 200 Hz, and logarithmic
    above, 27 mels per factor of 6.4. Filters span 0 Hz to half the sample rate.
    """

    def hz_to_mel(hz: np.ndarray) -> np.ndarray:
        return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))

    def mel_to_hz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    nyquist_hz = config.sample_rate_hz / 2
    bin_hz = np.linspace(0, nyquist_hz, config.fft_samples // 2 + 1)[:, None]
    edge_hz = mel_to_hz(np.linspace(0, hz_to_mel(np.array(nyquist_hz)), config.mel_bins + 2))
    low, center, high = edge_hz[:-2], edge_hz[1:-1], edge_hz[2:]
    triangle = np.minimum((bin_hz - low) / (center - low), (high - bin_hz) / (high - center))
    return np.maximum(triangle, 0), 2 / (high - low)


@lru_cache
def centered_window(config: FeatureConfig) -> np.ndarray:
    """Returns a symmetric Hann window in the middle of the FFT's length, [fft_samples]."""
    window = np.zeros(config.fft_samples, np.float32)
    start = (config.fft_samples - config.window_samples) // 2
    window[start : start + config.window_samples] = np.hanning(config.window_samples)
    return window


def mel_energies(power: Float[Array, "B F P"], config: FeatureConfig) -> Float[Array, "B F M"]:
    """Sums a power spectrum under each mel filter."""
    return jnp.dot(power, mel_filters(config), precision=jax.lax.Precision.HIGHEST)


def log_mel(
    signal: Float[Array, "B N"], config: FeatureConfig, energies: MelEnergies = mel_energies
) -> Float[Array, "B F M"]:
    """Computes log-mel energies ln(x + guard) of every full window of a pre-emphasized signal, in float32."""
    frames = (signal.shape[1] - config.overlap_samples) // config.hop_samples
    margin = (config.fft_samples - config.window_samples) // 2
    index = np.arange(frames)[:, None] * config.hop_samples + np.arange(config.fft_samples)
    padded = jnp.pad(signal, ((0, 0), (margin, margin)))
    spectrum = jnp.fft.rfft(padded[:, index] * centered_window(config)[None, None])
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.log(energies(power, config) + config.log_guard)


def step(
    samples: Float[Array, "B N"],
    mask: Bool[Array, "B N"],
    cache: FeatureCache,
    config: FeatureConfig,
    energies: MelEnergies = mel_energies,
) -> tuple[Float[Array, "B F M"], FeatureCache]:
    """Computes the log-mel frames of a segment of whole hops, F = N / hop.

    The first frame's window begins `overlap_samples` before the segment. Samples outside `mask` count as
    zero, before pre-emphasis and after it. Frames are not masked here: which of them are valid follows
    from the length of the whole recording. `energies` computes what `mel_energies` does.
    """
    samples = jnp.where(mask, samples, 0.0)
    before = jnp.concatenate([cache.last, samples[:, :-1]], axis=1)
    emphasized = jnp.where(mask, samples - config.preemphasis * before, 0.0)
    signal = jnp.concatenate([cache.overlap, emphasized], axis=1)
    cache = FeatureCache(samples[:, -1:], signal[:, signal.shape[1] - config.overlap_samples :])
    return log_mel(signal, config, energies), cache
