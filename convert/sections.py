"""What a settings file may say. Every key is taken, or known to change nothing that is computed, or refused.

A `Section` collects all that is wrong with it, so that one message names it all.
"""

import json
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import yaml

from convert.errors import ConvertError, listed, reason, short

SETTINGS_BYTES = 64 << 20  # of a settings file at most; large vocabularies are spelt out in them

LARGEST = 1 << 17  # number in any setting of these models; what is computed of them stays within bounds


class Everything:
    """Contains any name."""

    def __contains__(self, _: object) -> bool:
        return True


class Section:
    """A mapping of a settings file. Keys that were not asked for are problems when it is `close`d."""

    def __init__(self, values: Any, where: str = "", problems: list[str] | None = None):
        self.where = where
        self.problems: list[str] = [] if problems is None else problems
        self.known: set[str] = set()
        if not isinstance(values, Mapping):
            self.problems.append(f"{where or 'the file'} must be a mapping, not {short(values)}")
            values = {}
        self.values: Mapping[str, Any] = values

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, or its default; a problem where it is missing, without default, or of another type."""
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
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            self.problems.append(f"{self.where}{key}: {short(value)} is beyond reason")
            return kind()
        return value

    def only(self, key: str, allowed: Iterable[Any], default: Any) -> None:
        """A problem unless the value of the key, or its default, is one of those that are supported."""
        self.known.add(key)
        value = self.values.get(key, default)
        if not any(type(value) is type(one) and value == one for one in allowed):
            supported = " or ".join(_spelt(one) for one in allowed)
            by_default = "" if key in self.values else " (the default)"
            self.problems.append(f"{self.where}{key}: {_spelt(value)}{by_default} is not supported, only {supported}")

    def require(self, key: str, holds: bool, reason: str) -> None:
        """A problem with the value of a key that was taken."""
        if not holds:
            self.problems.append(f"{self.where}{key}: {_spelt(self.values.get(key))} is not supported: {reason}")

    def skip(self, keys: Iterable[str]) -> None:
        """Keys that change nothing that is computed."""
        self.known.update(keys)

    def section(self, key: str, optional: bool = False) -> "Section":
        self.known.add(key)
        if key not in self.values and not optional:
            self.problems.append(f"{self.where}{key} is missing")
        return Section(self.values.get(key, {}), f"{self.where}{key}.", self.problems)

    def close(self, skipped: Container[str] = ()) -> None:
        """Every key left is unknown, except those that the user has named as harmless."""
        for key in self.values:
            if key not in self.known and f"{self.where}{key}" not in skipped:
                name = f"{self.where}{_spelt(key)}"
                self.problems.append(f"{name} is an unknown setting (--skip-setting {name} passes over it)")

    def check(self, file: str) -> None:
        """Raises ConvertError with the problems of this section and of those in it."""
        if self.problems:
            raise ConvertError(f"{file}: {listed(self.problems)}")


def _spelt(value: Any) -> str:
    """A value as settings files spell it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else short(value).strip("'")


class _Loader(yaml.SafeLoader):
    """YAML's plain types, without aliases: NeMo writes none, and a few of them can stand for a great deal."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are refused", self.peek_event().start_mark)
        return super().compose_node(parent, index)


def read_yaml(data: bytes, name: str) -> Any:
    return _parse(data, name, "YAML", lambda text: yaml.load(text, _Loader))


def read_json(data: bytes, name: str) -> Any:
    return _parse(data, name, "JSON", json.loads)


def _parse(data: bytes, name: str, language: str, parse: Callable[[str], Any]) -> Any:
    if len(data) > SETTINGS_BYTES:
        raise ConvertError(f"{name} is larger than {SETTINGS_BYTES >> 20} MB")
    try:
        return parse(data.decode())
    except RecursionError:
        raise ConvertError(f"{name} is nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ConvertError(f"{name} is not {language}: {reason(error)}") from None
