"""The one resampler: of files, pipes, arrays and live streams."""

import numpy as np
import soxr


class Resampler:
    """Resamples one recording or live stream piece by piece. The result does not depend on the pieces."""

    def __init__(self, rate_hz: int, to_rate_hz: int):
        same = rate_hz == to_rate_hz
        self._stream = None if same else soxr.ResampleStream(rate_hz, to_rate_hz, 1, dtype="float32")

    def resample(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        """Returns the samples, float32 [N], that are known so far; all that are left if these are the `last` ones."""
        if self._stream is None:
            return samples
        resampled: np.ndarray = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        return resampled
