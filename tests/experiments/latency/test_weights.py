import numpy as np

from experiments.latency.weights import read_speech


def test_recordings_have_the_requested_lengths():
    recordings = read_speech((), [0.5, 2.0], seed=1)
    assert [len(samples) for samples in recordings] == [8_000, 32_000]
    assert all(np.abs(samples).max() > 0.01 for samples in recordings)
