"""Which segments and rows a batch takes, against plain definitions; no model is needed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.config import PRESETS
from nemojax.recognition import offline
from nemojax.recognition.offline import Job, cheapest_length, segment_lengths, worth_keeping

CONFIG = PRESETS["tiny"]
LENGTHS = segment_lengths(CONFIG)
UNIT = LENGTHS[0]  # 70 frames of 80 ms
COSTS = dict(zip((UNIT, 2 * UNIT, 4 * UNIT), (1.25, 1.15, 1.0), strict=True))  # of a second


def job(left: int | None) -> SimpleNamespace:
    """A recording with this number of samples still to read, virtual history included."""
    return SimpleNamespace(samples_left=lambda config: left)


def cost(lefts: list[int], length: int, more: bool) -> float:
    """Takes one step after the other: each costs its rows, which are the recordings that have not ended."""
    spent, done, steps = 0.0, 0, max(math.ceil(left / length) for left in lefts)
    for step in range(steps):
        rows = sum(left > done or (left == 0 == step) for left in lefts)
        rest = max(lefts) - done
        size = length if more or step < steps - 1 else min(short for short in LENGTHS if short >= rest)
        spent += rows * size * COSTS[size]
        done += length
    return spent


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 13 * UNIT), min_size=1, max_size=5), st.booleans())
def test_segments_cost_the_least(lefts, more):
    chosen = cheapest_length([job(left) for left in lefts], CONFIG, more)
    costs = {length: cost(lefts, length, more) for length in LENGTHS}
    assert costs[chosen] == pytest.approx(min(costs.values()), rel=1e-12)


def test_segments_of_recordings_of_unknown_length_are_the_longest():
    assert LENGTHS == [89_600, 179_200, 358_400]
    assert cheapest_length([job(100), job(None)], CONFIG, False) == LENGTHS[-1]
    assert cheapest_length([job(100), job(100)], CONFIG, True) == LENGTHS[0]


def test_samples_that_are_left():
    audio = SimpleNamespace(duration_s=1.0, read=lambda count: np.zeros(min(count, 900), np.float32))
    recording = Job(0, audio, None)
    assert recording.samples_left(CONFIG) == 16_000 + CONFIG.history_samples
    assert len(recording.read(500)) == 500 and recording.samples_left(CONFIG) == 15_500
    assert len(recording.read(5000)) == 900 and recording.samples == 1400
    audio.duration_s = 0.01  # the header gives fewer samples than there are
    assert recording.samples_left(CONFIG) == 0
    audio.duration_s = None
    assert recording.samples_left(CONFIG) is None


@pytest.mark.parametrize(
    "lefts,kept",
    [
        ([5, 5, 5, 5], None),
        ([5, 5, 5, None], None),  # three need all four
        ([5, -1, -1, 5], [0, 3]),
        ([-1, 5, -1, -1], [1]),
        ([-1, 5, 5, -1, -1, -1, -1, 7], [1, 2, 7, 0]),  # half the size, filled up with rows that are not used
        ([-1] * 7 + [None], [7]),  # of unknown length
        ([0, -1, -1, -1], None),  # none has more than is read already
        ([0, -1, -1, 0], None),
        ([-1, 5, -1], [1]),
        ([5], None),
    ],
)
def test_rows_worth_keeping(lefts, kept, monkeypatch):
    """-1 is a row without a recording."""
    rows = [None if left == -1 else job(left) for left in lefts]
    monkeypatch.setattr(offline.jax, "default_backend", lambda: "cpu")
    found = worth_keeping(rows, CONFIG)
    assert found is None if kept is None else found.tolist() == kept
    monkeypatch.setattr(offline.jax, "default_backend", lambda: "gpu")
    assert worth_keeping(rows, CONFIG) is None
