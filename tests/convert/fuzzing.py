"""What tests with files made at random share."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

from convert.errors import ConvertError


def fuzzed(max_examples: int, deadline_ms: int = 10_000) -> settings:
    """Returns settings of hypothesis: the same examples each time, each of which ends before the deadline."""
    unchecked = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=max_examples, deadline=deadline_ms, derandomize=True, suppress_health_check=unchecked)


def check(read: Callable[[], Any]) -> None:
    """Calls a function; the only error may be a ConvertError of one line."""
    try:
        read()
    except ConvertError as error:
        assert 0 < len(str(error)) < 2000 and str(error).isprintable()
