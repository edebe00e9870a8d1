"""The lower bound of a step, and the operations that it counts."""

import dataclasses

import pytest

from experiments.gpu import ceilings
from experiments.speed.roofline import count
from nemojax.config import PRESETS


def test_the_floor_is_bytes_and_operations_over_the_ceilings():
    floor = ceilings.floor(1000, 10, 20, 50.0, ceilings.Ceilings(operations_per_s=1e5, bytes_per_s=1e6))
    assert floor.bytes_ms == pytest.approx(1.2) and floor.operations_ms == pytest.approx(0.5)
    assert floor.sum_ms == pytest.approx(1.7)


@pytest.mark.parametrize("lookahead", [0, 13])
def test_operations_are_those_that_xla_counts(lookahead):
    config = PRESETS["0.6b"]
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=2))
    counted = count(config, lookahead)["operations"]
    assert ceilings.operations(config, lookahead) == pytest.approx(counted, rel=0.12)


def test_operations_grow_with_the_left_context_as_xla_counts():
    def config(left_context_frames):
        encoder = dataclasses.replace(PRESETS["0.6b"].encoder, layers=2, left_context_frames=left_context_frames)
        return dataclasses.replace(PRESETS["0.6b"], encoder=encoder)

    growth = ceilings.operations(config(560), 13) - ceilings.operations(config(70), 13)
    counted = count(config(560), 13)["operations"] - count(config(70), 13)["operations"]
    assert growth == pytest.approx(counted, rel=0.1)


def test_ceilings_are_rates():
    measured = ceilings.measure(64, 2**16)
    assert measured.operations_per_s > 0 and measured.bytes_per_s > 0
