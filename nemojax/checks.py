"""Checks of numbers and places that callers give. Each raises a ConfigError that names it. Nothing imports jax."""

import math
import re
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from nemojax.errors import ConfigError

MOST_WEIGHT = 100.0
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/")  # gs://bucket, which a Path shortens to gs:/bucket; no letter of a drive
LONGEST_S = 1e9  # 30 years: clocks and locks of the system take no longer times


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    """Checks a whole number."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}, not {value!r}")


def check_weight(name: str, value: Any) -> None:
    """Checks a weight of scores."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not 0 <= value <= MOST_WEIGHT:
        raise ConfigError(f"{name} must be a number from 0 to {MOST_WEIGHT:g}, not {value!r}")


def check_seconds(name: str, value: Any, *, positive: bool = False) -> None:
    """Checks a finite time in seconds, of at least 0, or more than 0 if it must be `positive`."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= LONGEST_S or (positive and value == 0):
        least = "more than 0" if positive else "at least 0"
        raise ConfigError(f"{name} must be {least} and at most {LONGEST_S:g} seconds, not {value!r}")


def check_local(path: str | Path) -> None:
    """Checks that a place to write to is no address such as gs://bucket/run: a folder of that name would be made."""
    if found := ADDRESS.match(str(path)):
        address = f"{found[0]}/{str(path)[found.end() :].removeprefix('/')}"  # a Path has one slash of two
        raise ConfigError(
            f"{address} is an address, and nemojax writes to directories of this machine alone; mount the bucket "
            "(gcsfuse, s3fs), or write to a directory and copy it"
        )
