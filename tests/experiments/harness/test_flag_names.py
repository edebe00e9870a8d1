"""Settings in messages, by their flags."""

from dataclasses import dataclass, field

import pytest

from experiments.harness.flag_names import with_flags


@dataclass(frozen=True)
class Inner:
    first_step: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Outer:
    plan: Inner = field(default_factory=Inner)
    steps: int = 0
    seed: int = 0


@pytest.mark.parametrize(
    "message,expected",
    [
        ("steps must be at least 1", "--steps must be at least 1"),
        ("plan.first_step must be 0", "--plan.first-step must be 0"),
        ("set a lower first_step, or none", "set a lower --plan.first-step, or none"),
        ("after some steps: seed, or first", "after some steps: seed, or first"),  # words
        ("seed must be 0", "seed must be 0"),  # of two settings
        ("plan.seed must be 0", "--plan.seed must be 0"),
        ("/a/first_step: no file, nor 'first_step' or first_step.json", None),  # paths and values
        ("set --plan.first-step", None),
    ],
)
def test_a_name_becomes_a_flag_where_it_is_that_of_one_setting(message, expected):
    assert with_flags(message, Outer) == (message if expected is None else expected)
