"""Augmentation of waveforms. Each function is a pure one of its arguments; randomness comes as a numpy Generator.

What changes a recording's length (speed, silence, joining) is drawn by the plan, so that its batches fit;
what does not (noise, gain) is drawn where the recording is decoded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemojax.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True)
class WaveformConfig:
    """What is done to waveforms; by default nothing. A range is drawn from evenly.

    Attributes:
      speeds: factors, of which one is drawn for each utterance; 1.1 is faster, and higher.
      silence_before_s, silence_after_s: seconds of digital silence around an utterance.
      join_probability: the share of the short utterances that are joined with others of the same manifest.
      join_longest_s: an utterance of at most this is short.
      join_total_s: joined ones last at most this.
      join_parts: at most so many are joined; how many is drawn from 2 on.
      join_gap_s: seconds of silence between joined ones.
      noise_probability: the share of utterances to which noise is added.
      noise_manifests: recordings of noise; without any, coloured noise is made.
      noise_snr_db: the signal to noise ratio.
      noise_colour: the exponent of made noise: its power falls by 1 / f^colour (0 is white, 1 pink, 2 brown).
      gain_db: the gain.
    """

    speeds: tuple[float, ...] = (1.0,)
    silence_before_s: Range = (0.0, 0.0)
    silence_after_s: Range = (0.0, 0.0)
    join_probability: float = 0.0
    join_longest_s: float = 3.0
    join_total_s: float = 12.0
    join_parts: int = 6
    join_gap_s: Range = (0.0, 0.3)
    noise_probability: float = 0.0
    noise_manifests: tuple[Path, ...] = ()
    noise_snr_db: Range = (5.0, 30.0)
    noise_colour: Range = (0.0, 2.0)
    gain_db: Range = (0.0, 0.0)

    def __post_init__(self):
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds must be factors from 0.5 to 2, at least one, not {self.speeds}")
        for name in ("join_probability", "noise_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be 0 to 1, not {getattr(self, name)}")
        for name in ("silence_before_s", "silence_after_s", "join_gap_s", "noise_snr_db", "noise_colour", "gain_db"):
            low, high = getattr(self, name)
            if not low <= high or (name.endswith("_s") and low < 0):
                raise ConfigError(f"{name} must be a range from less to more, not {(low, high)}")
        if self.join_parts < 2:
            raise ConfigError(f"join_parts must be at least 2, not {self.join_parts}")


UNCHANGED = WaveformConfig()

# For training from scratch on clean read speech, which is what there mostly is.
RECIPE = WaveformConfig(
    speeds=(0.9, 1.0, 1.1),
    silence_before_s=(0.0, 0.5),
    silence_after_s=(0.0, 0.5),
    join_probability=0.5,
    noise_probability=0.5,
    gain_db=(-12.0, 6.0),
)


def joined(parts: Sequence[np.ndarray], gap_samples: int) -> np.ndarray:
    """Utterances one after the other, with silence between them."""
    gap = np.zeros(gap_samples, np.float32)
    return np.concatenate([piece for part in parts for piece in (gap, part)][1:])


def samples_at_speed(samples: Any, speed: Any) -> Any:
    """How many samples so many become at a speed; numbers or arrays."""
    return np.ceil(samples / speed).astype(np.int64)


def at_speed(samples: np.ndarray, speed: float, sample_rate_hz: int = 16_000) -> np.ndarray:
    """Plays a waveform faster or slower, as a tape would: pitch changes with it."""
    if speed == 1 or not len(samples):
        return samples
    changed = soxr.resample(samples, sample_rate_hz * speed, sample_rate_hz, quality="MQ")
    wanted = int(samples_at_speed(len(samples), np.float64(speed)))
    return np.pad(changed, (0, max(wanted - len(changed), 0)))[:wanted]


def with_silence(samples: np.ndarray, before: int, after: int) -> np.ndarray:
    return np.pad(samples, (before, after))


def coloured_noise(samples: int, colour: float, generator: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by 1 / f^colour, [samples] float32; its level is of no meaning."""
    if not samples:
        return np.zeros(0, np.float32)
    size = 1 << (samples - 1).bit_length()  # quick to transform
    spectrum = np.fft.rfft(generator.standard_normal(size, dtype=np.float32))
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** (-colour / 2)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, size)[:samples].astype(np.float32)


def with_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Adds noise, repeated to the same length, at a signal to noise ratio.

    The signal's power is that of its samples that are not zero: silence put around it does not count.
    """
    active = np.count_nonzero(samples)
    noise = np.resize(noise, len(samples))
    power = float(np.square(noise, dtype=np.float64).mean()) if len(noise) else 0.0
    if not active or not power:
        return samples
    wanted = float(np.square(samples, dtype=np.float64).sum()) / active / 10 ** (snr_db / 10)
    return samples + noise * np.float32(np.sqrt(wanted / power))


def with_gain(samples: np.ndarray, gain_db: float) -> np.ndarray:
    return samples * np.float32(10 ** (gain_db / 20))


def augmented(
    samples: np.ndarray,
    generator: np.random.Generator,
    config: WaveformConfig,
    recorded_noise: Callable[[int, np.random.Generator], np.ndarray] | None = None,
) -> np.ndarray:
    """Adds noise and gain, as drawn; the length stays.

    Args:
      recorded_noise: gives about so many samples of noise, drawn by the generator; None: noise is made.
    """
    if generator.random() < config.noise_probability:
        snr_db, colour = generator.uniform(*config.noise_snr_db), generator.uniform(*config.noise_colour)
        if recorded_noise is not None:
            noise = recorded_noise(len(samples), generator)
        else:
            noise = coloured_noise(len(samples), colour, generator)
        samples = with_noise(samples, noise, snr_db)
    gain_db = generator.uniform(*config.gain_db)
    return with_gain(samples, gain_db) if gain_db else samples
