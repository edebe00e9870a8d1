"""Settings as JSON: writes frozen dataclasses, and reads them back with strict types. Nothing here imports jax.

Settings are made of dataclasses, named tuples, tuples, unions, literals, paths, texts, numbers and booleans. Every
problem is a ConfigError of one sentence that names the place, such as `model.encoder.lookaheads[1]`.
"""

import dataclasses
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from nemojax.errors import ConfigError, shown

MAX_FLOAT = sys.float_info.max
MAX_SHOWN, MAX_NAMES = 200, 8  # characters of a value, and names, in a message
DESCRIPTIONS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    types.NoneType: "null",
}
T = TypeVar("T")


def to_json(settings: Any) -> str:
    """Writes all settings of a dataclass, nested ones included."""
    return json.dumps(dataclasses.asdict(settings), indent=2, default=str) + "\n"


def parse_json(text: str | bytes, name: str) -> Any:
    """Parses JSON in UTF-8. Raises ConfigError with the document's `name` where it is not JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not JSON: {error}") from None
    except ValueError:
        raise ConfigError(f"{name} has a number of thousands of digits") from None


def read(kind: type[T], value: Any, defaults: T | None = None) -> T:
    """Reads a dataclass from parsed JSON.

    Args:
      kind: the dataclass; its own checks run as usual.
      value: an object with a value for each field.
      defaults: values for the fields that `value` lacks, at any depth; without it no field may be missing.

    Raises:
      ConfigError: a name is unknown or missing, or a value has another type. A whole number passes for a number;
        nothing else is converted.
    """
    result: T = _dataclass(kind, value, defaults, "")
    return result


def _dataclass(kind: Any, value: Any, defaults: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{place or 'the whole'} must be an object with settings by name, not {_shown(value)}")
    defaults = defaults if isinstance(defaults, kind) else None
    hints, prefix = typing.get_type_hints(kind), f"{place}." if place else ""
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := [prefix + name for name in value if name not in names]:
        raise ConfigError(f"unknown settings: {_listed(unknown)}; the settings here are {', '.join(names)}")
    if defaults is None and (missing := [prefix + name for name in names if name not in value]):
        raise ConfigError(f"missing settings: {', '.join(missing)}")
    read = {name: _value(hints[name], one, getattr(defaults, name, None), prefix + name) for name, one in value.items()}
    return kind(**read) if defaults is None else dataclasses.replace(defaults, **read)


def _value(kind: Any, value: Any, defaults: Any, place: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, defaults, place)
    if _is_union(kind):
        for one in inner:
            if isinstance(value, dict) and dataclasses.is_dataclass(one):
                return _dataclass(one, value, defaults, place)  # its error names the place inside
            try:
                return _value(one, value, None, place)
            except ConfigError:
                continue
    elif origin is Literal:
        if any(type(value) is type(one) and value == one for one in inner):
            return value
    elif isinstance(value, list) and origin is tuple and inner[1:] == (...,):
        return tuple(_value(inner[0], one, None, f"{place}[{index}]") for index, one in enumerate(value))
    elif isinstance(value, list) and len(parts := _parts(kind)) == len(value) > 0:
        pairs = enumerate(zip(parts, value, strict=True))
        read = [_value(part, one, None, f"{place}[{index}]") for index, (part, one) in pairs]
        return tuple(read) if origin is tuple else kind(*read)
    elif kind is types.NoneType and value is None:
        return None
    elif kind is float and type(value) is int and abs(value) <= MAX_FLOAT:
        return float(value)
    elif kind in (bool, int, float, str, Path) and type(value) is (str if kind is Path else kind):
        return kind(value)
    raise ConfigError(f"{place} must be {_description(kind)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    """Returns a value for a message, as JSON has it; a long one loses its middle."""
    try:
        return shown(json.dumps(value), MAX_SHOWN)
    except RecursionError:
        return "something nested too deeply"


def _listed(names: list[str]) -> str:
    """Returns names for a message; the first eight, and how many more there are."""
    more = f", and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(shown(name, MAX_SHOWN) for name in names[:MAX_NAMES]) + more


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def _parts(kind: Any) -> list[Any]:
    """Returns the types in a tuple of fixed length, named or not; an empty list for every other type."""
    if typing.get_origin(kind) is tuple:
        return list(typing.get_args(kind))
    return list(typing.get_type_hints(kind).values()) if hasattr(kind, "_fields") else []


def _description(kind: Any) -> str:
    inner = typing.get_args(kind)
    if _is_union(kind):
        return " or ".join(map(_description, inner))
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(json.dumps, inner))}"
    if inner[1:] == (...,):
        return "a list"
    return f"a list of {len(parts)}" if (parts := _parts(kind)) else DESCRIPTIONS.get(kind, "an object")
