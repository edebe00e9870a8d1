"""Reads settings files strictly: every key is used, is known to have no effect on the output, or is an error.

A `Section` collects its problems, so that one message names all of them.
"""

import json
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import yaml

from convert.errors import ConvertError, listed, reason, short

MAX_SETTINGS_BYTES = 64 << 20  # of a settings file; some list a large vocabulary

MAX_NUMBER = 1 << 17  # in any setting of these models; it bounds what is computed from them


class Everything:
    """A container that contains every name."""

    def __contains__(self, _: object) -> bool:
        return True


class Section:
    """A mapping in a settings file. On `close`, each key that was not read is a problem."""

    def __init__(self, values: Any, where: str = "", problems: list[str] | None = None) -> None:
        self.where = where
        self.problems: list[str] = [] if problems is None else problems
        self.known: set[str] = set()
        if not isinstance(values, Mapping):
            self.problems.append(f"{where or 'the file'} must be a mapping, not {short(values)}")
            values = {}
        self.values: Mapping[str, Any] = values

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """Returns the value of a key, or its default. A missing key without default, or another type, is a problem."""
        self.known.add(key)
        if key not in self.values:
            if default is None:
                self.problems.append(f"{self.where}{key} is missing")
                return kind()
            return default
        value = self.values[key]
        try:
            if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
                value = float(value)  # YAML 1.1 reads 1e-5 as a string
        except (ValueError, OverflowError):
            pass
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.problems.append(f"{self.where}{key} must be {kind.__name__}, not {short(value)}")
            return kind()
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
            self.problems.append(f"{self.where}{key}: {short(value)} is out of range")
            return kind()
        return value

    def only(self, key: str, allowed: Iterable[Any], default: Any) -> None:
        """Adds a problem unless the value of a key, or its default, is one of the supported ones."""
        self.known.add(key)
        value = self.values.get(key, default)
        if not any(type(value) is type(one) and value == one for one in allowed):
            supported = " or ".join(_as_written(one) for one in allowed)
            by_default = "" if key in self.values else " (the default)"
            self.problems.append(
                f"{self.where}{key}: {_as_written(value)}{by_default} is not supported, only {supported}"
            )

    def require(self, key: str, holds: bool, reason: str) -> None:
        """Adds a problem with the value of a key unless a condition holds."""
        if not holds:
            self.problems.append(f"{self.where}{key}: {_as_written(self.values.get(key))} is not supported: {reason}")

    def skip(self, keys: Iterable[str]) -> None:
        """Accepts keys that have no effect on the output."""
        self.known.update(keys)

    def section(self, key: str, optional: bool = False) -> "Section":
        """Returns the mapping under a key, empty if it is absent; that is a problem unless it is `optional`."""
        self.known.add(key)
        if key not in self.values and not optional:
            self.problems.append(f"{self.where}{key} is missing")
        return Section(self.values.get(key, {}), f"{self.where}{key}.", self.problems)

    def close(self, skipped: Container[str] = ()) -> None:
        """Adds a problem for each key that was not read, except those that the user skips by full name."""
        for key in self.values:
            if key not in self.known and f"{self.where}{key}" not in skipped:
                name = f"{self.where}{_as_written(key)}"
                self.problems.append(f"{name} is an unknown setting (--skip-setting {name} ignores it)")

    def check(self, file: str) -> None:
        """Raises ConvertError if this section or one inside it has problems; the message names them."""
        if self.problems:
            raise ConvertError(f"{file}: {listed(self.problems)}")


def _as_written(value: Any) -> str:
    """Returns a value as a settings file writes it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else short(value).strip("'")


class _Loader(yaml.SafeLoader):
    """Loads YAML's plain types. Aliases are refused: NeMo writes none, and nested ones can expand without limit."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            loader: Any = self  # whose methods have no types
            mark = loader.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases are refused", mark)
        return super().compose_node(parent, index)


def read_yaml(data: bytes, name: str) -> Any:
    """Parses YAML. Raises ConvertError, with the file's `name`, if it is not valid."""
    return _parse(data, name, "YAML", lambda text: yaml.load(text, _Loader))


def read_json(data: bytes, name: str) -> Any:
    """Parses JSON. Raises ConvertError, with the file's `name`, if it is not valid."""
    return _parse(data, name, "JSON", json.loads)


def _parse(data: bytes, name: str, language: str, parse: Callable[[str], Any]) -> Any:
    if len(data) > MAX_SETTINGS_BYTES:
        raise ConvertError(f"{name} is larger than {MAX_SETTINGS_BYTES >> 20} MB")
    try:
        return parse(data.decode())
    except RecursionError:
        raise ConvertError(f"{name} is nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ConvertError(f"{name} is not {language}: {reason(error)}") from None
