"""Augmentation inside the training step: noise added to samples, masks on log-mel frames.

Shapes are static and all randomness comes from a key; without a key nothing changes.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.errors import ConfigError


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Settings of SpecAugment (Park et al. 2019) without time warping. Masks may overlap."""

    frequency_masks: int = 2  # number of masked bands of log-mel bins
    frequency_width_bins: int = 27  # upper limit of a mask's width, exclusive
    time_masks: int = 10  # number of masked spans of time
    time_width: float = 0.05  # upper limit of a mask's width, as a share of a row's valid frames
    value: float = 0.0  # that masked log-mel values are set to

    def __post_init__(self) -> None:
        for name in ("frequency_masks", "frequency_width_bins", "time_masks"):
            if getattr(self, name) < 0:
                raise ConfigError(f"spec_augment.{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.time_width <= 1:
            raise ConfigError(f"spec_augment.time_width must be between 0 and 1, not {self.time_width}")


def dither(samples: Float[Array, "B N"], scale: float, key: Array | None) -> Float[Array, "B N"]:
    """Adds white noise with a standard deviation of `scale`; without a key, returns the samples."""
    if key is None or scale == 0:
        return samples
    return samples + scale * jax.random.normal(key, samples.shape, jnp.float32)


def spec_augment(
    log_mel: Float[Array, "B F M"], mask: Bool[Array, "B F"], config: SpecAugmentConfig, key: Array | None
) -> Float[Array, "B F M"]:
    """Sets bands of mel bins and spans of valid frames to `config.value`; without a key, returns `log_mel`.

    A width is drawn uniformly from 0 up, then a start uniformly over the places where a mask of that width fits: in all
    bins, or in the row's valid frames, which are contiguous.
    """
    if key is None:
        return log_mel
    (batch, frames, bins), (frequency_key, time_key) = log_mel.shape, jax.random.split(key)
    widest, all_bins = (jnp.full(batch, count, jnp.int32) for count in (config.frequency_width_bins, bins))
    index = jnp.broadcast_to(jnp.arange(bins, dtype=jnp.int32), (batch, bins))
    bands = _spans(frequency_key, config.frequency_masks, jnp.minimum(widest, all_bins), all_bins, index)
    length, first = mask.sum(1, dtype=jnp.int32), jax.lax.argmax(mask, 1, jnp.int32)
    index = jnp.arange(frames, dtype=jnp.int32)[None] - first[:, None]  # from the first valid frame
    widest = config.time_width * length.astype(jnp.float32)
    spans = _spans(time_key, config.time_masks, widest, length, index)
    return jnp.where(bands[:, None] | spans[..., None], config.value, log_mel)


def _spans(
    key: Array, count: int, widest: Array, length: Int[Array, " B"], index: Int[Array, "B n"]
) -> Bool[Array, "B n"]:
    """Draws `count` spans within [0, length) for each row, and returns which indices they cover."""
    width_key, start_key = jax.random.split(key)
    shape = (index.shape[0], count)
    widest, length, index = (x.astype(jnp.float32) for x in (widest, length, index))
    width = jnp.floor(jax.random.uniform(width_key, shape, jnp.float32) * widest[:, None])
    start = jnp.floor(jax.random.uniform(start_key, shape, jnp.float32) * (length[:, None] - width))
    index = index[:, None]
    return ((index >= start[..., None]) & (index < (start + width)[..., None])).any(1)
