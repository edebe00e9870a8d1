"""The arithmetic of a training step."""

import dataclasses

import pytest

from nemojax.config import PRESETS
from nemojax.training.operations import FORWARD_AND_BACKWARD, peak_operations, step_operations

LARGE = PRESETS["0.6b"]


def test_a_long_utterance_costs_six_times_the_parameters_a_frame():
    """Without labels the blocks of the encoder are nearly all of it: 2 operations forward, 4 backward."""
    encoder = dataclasses.replace(LARGE.encoder, subsampling_channels=1)
    config = dataclasses.replace(LARGE, encoder=encoder)
    frames, width = 100_000, encoder.width
    attention, feedforward, pointwise = 4 * width**2, 4 * width * encoder.feedforward_width, 3 * width**2
    blocks = encoder.layers * (attention + feedforward + pointwise)
    seen = encoder.layers * 3 * (70 + 7) * width
    assert step_operations(config, 1, frames, 0) == pytest.approx(6 * frames * (blocks + seen), rel=0.01)


def test_it_grows_with_frames_and_labels():
    whole = step_operations(LARGE, 2, 500, 100)
    assert whole == pytest.approx(2 * step_operations(LARGE, 1, 250, 50), rel=1e-12)
    more = step_operations(LARGE, 2, 500, 102) - whole
    output = 500 * LARGE.joint.width * (LARGE.vocabulary + 1)  # one label more in each row, at each frame
    assert more == pytest.approx(2 * FORWARD_AND_BACKWARD * output, rel=0.05)
    assert step_operations(LARGE, 0, 0, 0) == 0


@pytest.mark.parametrize(
    "kind, peak",
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("cpu", None)],
)
def test_peaks(kind, peak):
    assert peak_operations(kind) == peak
