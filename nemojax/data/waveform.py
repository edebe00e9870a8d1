"""Augmentation of waveforms, as pure functions; randomness comes from a numpy Generator.

The plan draws the changes of a recording's length (speed, silence, pauses, joining), so that rows fit their batches.
Noise, telephone lines and gain are drawn where the recording is decoded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import soxr

from nemojax.errors import ConfigError

Range = tuple[float, float]
Samples = npt.NDArray[np.float32]
NoiseKind = Literal["colored", "hum", "babble", "recorded"]
NoiseSource = Callable[[int, np.random.Generator], Samples]  # up to a number of samples, drawn with the generator

MAINS_HZ = (50.0, 60.0)
HARMONICS = 10  # of hum
TELEPHONE_RATE_HZ = 8_000
TELEPHONE_BAND = ((200.0, 300.0, 3400.0, 3600.0), (0.0, 1.0, 1.0, 0.0))  # corners in Hz, and the gain there
MU = 255  # of the mu-law of telephone lines (ITU-T G.711), in 8 bits


@dataclass(frozen=True)
class WaveformConfig:
    """Settings of waveform augmentation; the default changes nothing. Values are drawn uniformly from a range.

    Attributes:
      speeds: factors, one of which is drawn for each utterance; 1.1 is faster and higher in pitch.
      silence_before_s: seconds of digital silence before an utterance.
      silence_after_s: seconds of digital silence after it.
      join_probability: the share of short utterances to join with others of the same manifest.
      join_longest_s: maximum duration of a short utterance, in seconds.
      join_total_s: maximum duration of joined utterances, in seconds.
      join_parts: maximum number of utterances to join; the number is drawn from 2 up.
      join_gap_s: seconds of silence between joined utterances.
      join_across: join utterances of different manifests too.
      pause_probability: the share of rows whose gaps are a pause, and likewise of those that begin, and end, with one;
        the others have the silence of `join_gap_s`, `silence_before_s` and `silence_after_s`.
      pause_s: seconds of a pause; its logarithm is drawn uniformly, so that short pauses are more frequent.
      noise_probability: the share of utterances that noise is added to, in their pauses too.
      noise_kinds: one is drawn for each utterance: colored; hum of the mains; babble, which is other utterances of the
        training data; recorded. By default it is recorded where `noise_manifests` has any, else
        colored.
      noise_manifests: manifests of noise recordings.
      noise_snr_db: the signal-to-noise ratio.
      noise_color: the exponent of synthesized noise: its power falls by 1 / f^color (0 is white, 1 pink, 2 brown).
      telephone_probability: the share of utterances that pass through a telephone line, after the noise was added.
      gain_db: the gain.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"noise_colour": "noise_color"}  # in settings saved earlier
    # settings that runs of earlier versions do not have; those runs have the defaults
    ADDED: ClassVar[frozenset[str]] = frozenset(
        {"join_across", "pause_probability", "pause_s", "noise_kinds", "telephone_probability"}
    )

    speeds: tuple[float, ...] = (1.0,)
    silence_before_s: Range = (0.0, 0.0)
    silence_after_s: Range = (0.0, 0.0)
    join_probability: float = 0.0
    join_longest_s: float = 3.0
    join_total_s: float = 12.0
    join_parts: int = 6
    join_gap_s: Range = (0.0, 0.3)
    join_across: bool = False
    pause_probability: float = 0.0
    pause_s: Range = (0.3, 10.0)
    noise_probability: float = 0.0
    noise_kinds: tuple[NoiseKind, ...] = ()
    noise_manifests: tuple[Path, ...] = ()
    noise_snr_db: Range = (5.0, 30.0)
    noise_color: Range = (0.0, 2.0)
    telephone_probability: float = 0.0
    gain_db: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ConfigError(f"speeds must be factors from 0.5 to 2, at least one, not {self.speeds}")
        for name in ("join_probability", "pause_probability", "noise_probability", "telephone_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be 0 to 1, not {getattr(self, name)}")
        ranges = ("silence_before_s", "silence_after_s", "join_gap_s", "pause_s")
        for name in (*ranges, "noise_snr_db", "noise_color", "gain_db"):
            low, high = getattr(self, name)
            if not low <= high or (name.endswith("_s") and low < 0):
                raise ConfigError(f"{name} must be a range (low, high), not {(low, high)}")
        if not self.pause_s[0] > 0:
            raise ConfigError(f"pause_s must be greater than 0, not {self.pause_s}")
        if self.join_parts < 2:
            raise ConfigError(f"join_parts must be at least 2, not {self.join_parts}")
        if self.noise_kinds and ("recorded" in self.noise_kinds) != bool(self.noise_manifests):
            raise ConfigError("noise_kinds must have recorded if there are noise_manifests, and only then")

    def recorded(self) -> str:
        """Returns the settings as text; those in `ADDED` only where they differ from their defaults."""
        shown = [f for f in fields(self) if f.name not in self.ADDED or getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"


UNCHANGED = WaveformConfig()

# for training from scratch on clean read speech
RECIPE = WaveformConfig(
    speeds=(0.9, 1.0, 1.1),
    silence_before_s=(0.0, 0.5),
    silence_after_s=(0.0, 0.5),
    join_probability=0.5,
    noise_probability=0.5,
    gain_db=(-12.0, 6.0),
)


def joined(parts: Sequence[Samples], gap_samples: int) -> Samples:
    """Concatenates utterances, with silence between them."""
    gap = np.zeros(gap_samples, np.float32)
    return np.concatenate([piece for part in parts for piece in (gap, part)][1:])


def samples_at_speed(samples: Any, speed: Any) -> Any:
    """Returns the length in samples after a change of speed; accepts numbers and arrays."""
    return np.ceil(samples / speed).astype(np.int64)


def at_speed(samples: Samples, speed: float, sample_rate_hz: int = 16_000) -> Samples:
    """Changes the speed of a waveform, and its pitch with it."""
    if speed == 1 or not len(samples):
        return samples
    changed = soxr.resample(samples, sample_rate_hz * speed, sample_rate_hz, quality="MQ")
    length = int(samples_at_speed(len(samples), np.float64(speed)))
    return np.pad(changed, (0, max(length - len(changed), 0)))[:length]


def with_silence(samples: Samples, before: int, after: int) -> Samples:
    """Adds digital silence, in samples, around a waveform."""
    return np.pad(samples, (before, after))


def colored_noise(samples: int, color: float, generator: np.random.Generator) -> Samples:
    """Returns noise whose power falls by 1 / f^color, [samples] float32, at an arbitrary level."""
    if not samples:
        return np.zeros(0, np.float32)
    size = 1 << (samples - 1).bit_length()  # a power of two, for a fast FFT
    spectrum = np.fft.rfft(generator.standard_normal(size, dtype=np.float32))
    spectrum[1:] *= np.arange(1, len(spectrum), dtype=np.float32) ** (-color / 2)
    spectrum[0] = 0
    return np.fft.irfft(spectrum, size)[:samples].astype(np.float32)


def with_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Adds noise, repeated to the waveform's length, at a signal-to-noise ratio.

    The signal's power is the mean over samples that are not zero, so silence around an utterance does not count.
    """
    active = np.count_nonzero(samples)
    noise = np.resize(noise, len(samples))
    power = float(np.square(noise, dtype=np.float64).mean()) if len(noise) else 0.0
    if not active or not power:
        return samples
    noise_power = float(np.square(samples, dtype=np.float64).sum()) / active / 10 ** (snr_db / 10)
    return samples + noise * np.float32(np.sqrt(noise_power / power))


def hum(samples: int, generator: np.random.Generator, sample_rate_hz: int = 16_000) -> Samples:
    """Returns hum of the mains with its harmonics, [samples] float32, at an arbitrary level."""
    base_hz = generator.choice(MAINS_HZ)
    times_s = np.arange(samples, dtype=np.float64) / sample_rate_hz
    found = np.zeros(samples)
    for harmonic in range(1, HARMONICS + 1):
        amplitude, phase = generator.uniform(0, 1 / harmonic), generator.uniform(0, 2 * np.pi)
        found += amplitude * np.sin(2 * np.pi * harmonic * base_hz * times_s + phase)
    return found.astype(np.float32)


def telephone(samples: Samples, sample_rate_hz: int = 16_000) -> Samples:
    """Returns a waveform after a telephone line: 300 to 3400 Hz, sampled at 8 kHz, in the 8 bits of the mu-law."""
    if not len(samples):
        return samples
    line = soxr.resample(samples, sample_rate_hz, TELEPHONE_RATE_HZ, quality="MQ")
    size = 1 << (len(line) - 1).bit_length()  # a power of two, for a fast FFT
    gain = np.interp(np.fft.rfftfreq(size, 1 / TELEPHONE_RATE_HZ), *TELEPHONE_BAND)
    line = np.clip(np.fft.irfft(np.fft.rfft(line, size) * gain, size)[: len(line)], -1, 1)
    levels = np.round(127 * np.log1p(MU * np.abs(line)) / np.log1p(MU)) / 127
    line = (np.sign(line) * np.expm1(levels * np.log1p(MU)) / MU).astype(np.float32)
    received = soxr.resample(line, TELEPHONE_RATE_HZ, sample_rate_hz, quality="MQ")
    return np.pad(received, (0, max(len(samples) - len(received), 0)))[: len(samples)]


def with_gain(samples: Samples, gain_db: float) -> Samples:
    """Amplifies a waveform."""
    return samples * np.float32(10 ** (gain_db / 20))


def augmented(
    samples: Samples,
    generator: np.random.Generator,
    config: WaveformConfig,
    recorded_noise: NoiseSource | None = None,
    babble: NoiseSource | None = None,
    sample_rate_hz: int = 16_000,
) -> Samples:
    """Draws noise, a telephone line and gain, and applies them; the length does not change.

    Args:
      recorded_noise, babble: where noise of these kinds comes from; each is necessary if the settings have its kind.
    """
    if generator.random() < config.noise_probability:
        snr_db, color = generator.uniform(*config.noise_snr_db), generator.uniform(*config.noise_color)
        sources: dict[str, NoiseSource | None] = {
            "colored": lambda count, generator: colored_noise(count, color, generator),
            "hum": lambda count, generator: hum(count, generator, sample_rate_hz),
            "babble": babble,
            "recorded": recorded_noise,
        }
        kinds = config.noise_kinds or ("colored" if recorded_noise is None else "recorded",)
        source = sources[kinds[generator.integers(len(kinds))] if len(kinds) > 1 else kinds[0]]
        assert source is not None
        samples = with_noise(samples, source(len(samples), generator), snr_db)
    if config.telephone_probability and generator.random() < config.telephone_probability:
        samples = telephone(samples, sample_rate_hz)
    gain_db = generator.uniform(*config.gain_db)
    return with_gain(samples, gain_db) if gain_db else samples
