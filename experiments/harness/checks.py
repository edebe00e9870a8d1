"""Checks of settings: each raises a ConfigError that names the flag."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nemojax.errors import ConfigError


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def at_least(minimum: float, settings: Any, *names: str) -> None:
    """Checks settings that are numbers, or tuples of numbers; None passes."""
    for name in names:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one < minimum:
                raise ConfigError(f"{flag(name)} must be at least {minimum:g}, not {one}")


def one_of(known: Collection[Any], settings: Any, *names: str) -> None:
    """Checks settings that are names, or tuples of names."""
    for name in names:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one not in known:
                raise ConfigError(f"{flag(name)}: {one!r} is none of {', '.join(map(str, known))}")


def check_manifests(manifests: Sequence[Path]) -> None:
    if not manifests:
        raise ConfigError("name at least one manifest")
