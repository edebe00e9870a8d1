import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.audio.resampler import Resampler
from tests.helpers.sounds import wave


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1000, 8000, 11_025, 44_100, 48_000, 96_000]), st.lists(st.integers(0, 3000), max_size=8))
def test_the_result_does_not_depend_on_the_pieces(rate_hz, sizes):
    samples = wave(8000)
    resampler, parts, left = Resampler(rate_hz, 16_000), [], samples
    for size in sizes:
        parts.append(resampler.resample(left[:size]))
        left = left[size:]
    parts.append(resampler.resample(left, last=True))
    np.testing.assert_array_equal(np.concatenate(parts), soxr.resample(samples, rate_hz, 16_000))


@pytest.mark.parametrize("samples", [wave(0), wave(1), wave(99)[::-1], wave(99, 2)[:, 1]])
def test_the_same_rate_changes_nothing(samples):
    np.testing.assert_array_equal(Resampler(16_000, 16_000).resample(samples, last=True), samples)


def test_one_sample_at_a_time():
    samples, resampler = wave(500, 2)[:, 1], Resampler(8000, 16_000)
    parts = [resampler.resample(samples[i : i + 1]) for i in range(500)]
    parts.append(resampler.resample(samples[:0], last=True))
    np.testing.assert_array_equal(np.concatenate(parts), soxr.resample(samples, 8000, 16_000))
