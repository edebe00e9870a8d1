"""Makes sounds for tests and measurements without speech."""

import numpy as np


def glides(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Makes voiced glides with pauses and a little noise, somewhat like speech; [N] float32 at 16 kHz."""
    seconds = np.arange(samples) / 16_000
    speed, depth, pitch_hz = rng.uniform(1, 3), rng.uniform(30, 80), rng.uniform(100, 220)
    phase = 2 * np.pi * np.cumsum(pitch_hz + depth * np.sin(speed * seconds)) / 16_000
    voiced = sum(np.sin(k * phase) / k for k in range(1, 12)) * (np.sin(5.3 * seconds + rng.uniform(0, 6)) > -0.4)
    return (0.1 * voiced + 0.003 * rng.standard_normal(samples)).astype(np.float32)
