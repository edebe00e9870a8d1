"""Settings as JSON: a frozen dataclass written down, and read again with a sentence for all that does not fit."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from nemojax.errors import ConfigError

SIMPLE = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
T = TypeVar("T")


def to_json(settings: Any) -> str:
    """All settings of a dataclass; `from_json` is the way back."""
    return json.dumps(dataclasses.asdict(settings), indent=2, default=str) + "\n"


def load(path: Path, kind: type[T], default: T | None = None, recorded: frozenset[str] = frozenset()) -> T:
    """Settings from a file of JSON; see `from_json`. Raises ConfigError, naming the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings {path} can't be read: {error.strerror}") from None
    except ValueError as error:  # of the encoding, too
        raise ConfigError(f"the settings {path} are not JSON: {error}") from None
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if key not in recorded}
    try:
        return from_json(kind, values, default)
    except ConfigError as error:
        raise ConfigError(f"the settings {path}: {error}") from None


def from_json(kind: Any, value: Any, default: Any = None, name: str = "") -> Any:
    """A value of a type from what JSON makes of it: settings from a dictionary, and all that settings are made of.

    Args:
      kind: a dataclass, a named tuple, or one of bool, int, float, str, Path, Literal, tuples and unions of those.
      default: of a dataclass, what is not in `value`; else its own defaults, and `tyro.MISSING` where it has none.
      name: of the setting, for messages.

    Raises:
      ConfigError: a name is unknown, or a value is of another type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, default, name)
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            if (value is None) == (one is types.NoneType):
                try:
                    return from_json(one, value, name=name)
                except ConfigError:
                    continue
    elif kind is types.NoneType and value is None:
        return None
    elif origin is Literal and any(type(value) is type(one) and value == one for one in inner):
        return value
    elif isinstance(value, list) and origin is tuple and inner[1:] == (...,):
        return tuple(from_json(inner[0], one, name=f"{name}[{index}]") for index, one in enumerate(value))
    elif isinstance(value, list) and (parts := _parts(kind)) and len(value) == len(parts):
        read = [
            from_json(part, one, name=f"{name}[{i}]") for i, (part, one) in enumerate(zip(parts, value, strict=True))
        ]
        return tuple(read) if origin is tuple else kind(*read)
    elif kind in SIMPLE:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is (str if kind is Path else kind):
            return kind(value)
    raise ConfigError(f"{name} must be {_called(kind)}, not {json.dumps(value)}")


def _dataclass(kind: Any, value: Any, default: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{name or 'all of it'} must be settings by name, not {json.dumps(value)}")
    hints, prefix = typing.get_type_hints(kind), f"{name}." if name else ""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    value = {getattr(kind, "FORMER_NAMES", {}).get(key, key): one for key, one in value.items()}
    for key in value:
        if key not in fields:
            raise ConfigError(f"{prefix}{key} is not a setting; those here are {', '.join(fields)}")
    if default is None or default is tyro.MISSING:
        unset = (dataclasses.MISSING, dataclasses.MISSING)
        needed = [key for key, field in fields.items() if (field.default, field.default_factory) == unset]
        default = kind(**dict.fromkeys(needed, tyro.MISSING))
    read = {key: from_json(hints[key], one, getattr(default, key), f"{prefix}{key}") for key, one in value.items()}
    return dataclasses.replace(default, **read)


def _parts(kind: Any) -> list[Any]:
    """The types in a tuple of fixed length, named or not; none of what is no such tuple."""
    if typing.get_origin(kind) is tuple:
        return list(typing.get_args(kind))
    return list(typing.get_type_hints(kind).values()) if hasattr(kind, "_fields") else []


def _called(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_called, inner))
    if origin is Literal:
        return f"one of {', '.join(map(json.dumps, inner))}"
    if origin is tuple and inner[1:] == (...,):
        return "a list"
    return f"a list of {len(parts)}" if (parts := _parts(kind)) else SIMPLE.get(kind, "null")
