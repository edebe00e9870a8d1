"""Settings files of commands: JSON in which settings may be missing, because the command line can add them."""

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

import tyro

from nemojax import settings
from nemojax.errors import ConfigError
from nemojax.settings import to_json

__all__ = ["from_json", "load", "to_json"]

T = TypeVar("T")
FILE = "the settings file"  # how messages about one begin


def load(path: Path, kind: type[T], defaults: T | None = None, recorded: frozenset[str] = frozenset()) -> T:
    """Reads a settings file; arguments as in `from_json`.

    Args:
      recorded: names that a saved run has beside its settings; they are ignored.

    Raises:
      ConfigError: the file can't be read, or does not fit; the message names the file.
    """
    name = f"{FILE} {path}"
    try:
        values = settings.parse_json(path.read_bytes(), name)
    except OSError as error:
        raise ConfigError(f"{name} can't be read: {error.strerror}") from None
    if isinstance(values, dict):
        values = _current_names(kind, {key: value for key, value in values.items() if key not in recorded})
    try:
        return from_json(kind, values, defaults)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def from_json(kind: type[T], value: Any, defaults: T | None = None) -> T:
    """Reads a dataclass from parsed JSON in which any setting may be missing.

    Args:
      defaults: for missing settings; otherwise the dataclass's own, and `tyro.MISSING` where it has none.

    Raises:
      ConfigError: a name is unknown, or a value has another type.
    """
    result: T = settings.read(kind, value, _own_defaults(kind) if defaults is None else defaults)
    return result


def _own_defaults(kind: Any) -> Any:
    unset = (dataclasses.MISSING, dataclasses.MISSING)
    required = [f.name for f in dataclasses.fields(kind) if (f.default, f.default_factory) == unset]
    return kind(**dict.fromkeys(required, tyro.MISSING))


def _current_names(kind: Any, values: Any) -> Any:
    """Replaces earlier names of settings, in nested dataclasses too."""
    if not dataclasses.is_dataclass(kind) or not isinstance(values, dict):
        return values
    renamed, hints = _earlier_names(kind), typing.get_type_hints(kind)
    named = {renamed.get(key, key): value for key, value in values.items()}
    return {key: _current_names(hints.get(str(key)), value) for key, value in named.items()}


def _earlier_names(kind: Any) -> dict[str, str]:
    """Returns settings by their earlier names: the aliases of their flags, and the dataclass's `FORMER_NAMES`."""
    found = dict(getattr(kind, "FORMER_NAMES", {}))
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for note in getattr(hint, "__metadata__", ()):
            for alias in getattr(note, "aliases", None) or ():
                found[alias.removeprefix("--").replace("-", "_")] = name
    return found
