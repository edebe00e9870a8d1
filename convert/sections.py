"""Reads settings files strictly: every key is used, is known to have no effect on the output, or is an error.

A `Section` collects its problems, so that one message names all of them. It also collects notes: on settings that the
other toolkit would use, and that nemojax leaves out.
"""

import json
import shlex
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from convert.errors import ConvertError, as_written, listed, reason, short
from nemojax.config import ModelConfig

MAX_SETTINGS_BYTES = 8 << 20  # of a settings file; some list a vocabulary three times
MAX_YAML_NODES = 250_000  # values in a YAML file, with each alias counted as what it stands for
MAX_DIGITS = 1000  # characters of a number; reading longer ones takes time that grows with their square
MAX_NUMBER = 1 << 17  # in any setting of these models; it bounds what is computed from them


class Settings(NamedTuple):
    """Our settings of a model, and notes on what they leave out of the other toolkit's."""

    config: ModelConfig
    notes: list[str]


class Everything:
    """A container that contains every name."""

    def __contains__(self, _: object) -> bool:
        return True


class Section:
    """A mapping in a settings file. Keys that were not read are problems on `close`, and notes on `ignore_rest`.

    Sections of one file share their problems, their notes, and the names of ignored settings.
    """

    def __init__(self, values: Any, where: str = "", outer: "Section | None" = None) -> None:
        self.where = where
        self.problems: list[str] = [] if outer is None else outer.problems
        self.notes: list[str] = [] if outer is None else outer.notes
        self.ignored: list[str] = [] if outer is None else outer.ignored
        self.known: set[Any] = set()
        if not isinstance(values, Mapping):
            self.problems.append(f"{where.removesuffix('.') or 'the file'} must be a mapping, not {short(values)}")
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
        if kind is int and isinstance(value, float) and value.is_integer():  # 16000.0
            value = int(value)
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
            supported = " or ".join(as_written(one) for one in allowed)
            by_default = "" if key in self.values else " (the default)"
            self.problems.append(
                f"{self.where}{key}: {as_written(value)}{by_default} is not supported, only {supported}"
            )

    def require(self, key: str, holds: bool, reason: str) -> None:
        """Adds a problem with the value of a key unless a condition holds."""
        if not holds:
            self.problems.append(f"{self.where}{key}: {as_written(self.values.get(key))} is not supported: {reason}")

    def skip(self, keys: Iterable[str]) -> None:
        """Accepts keys that have no effect on the output."""
        self.known.update(keys)

    def section(self, key: str, optional: bool = False) -> "Section":
        """Returns the mapping under a key. If it is `optional`, it may be absent or null; else that is a problem."""
        self.known.add(key)
        value = self.values.get(key, {})
        if key not in self.values and not optional:
            self.problems.append(f"{self.where}{key} is missing")
        return Section({} if value is None and optional else value, f"{self.where}{key}.", self)

    def leave_out(self, key: str, reason: str) -> None:
        """Adds a note on a key whose value has no effect in nemojax."""
        self.known.add(key)
        self.notes.append(f"{self.where}{key}: {as_written(self.values.get(key))} is left out: {reason}")

    def close(self, skipped: Container[str] = ()) -> None:
        """Adds a problem for each key that was not read, except those that the user skips by full name."""
        for name in self._rest(skipped):
            self.problems.append(f"{name} is an unknown setting (--skip-setting {shlex.quote(name)} ignores it)")

    def ignore_rest(self, skipped: Container[str] = ()) -> None:
        """Ignores each key that was not read; the names of those that the user does not skip are kept for a note."""
        self.ignored += self._rest(skipped)

    def _rest(self, skipped: Container[str]) -> list[str]:
        """Returns the full name, as messages show it, of each key that was neither read nor skipped."""
        names = [
            (f"{self.where}{as_written(key)}", f"{self.where}{key}") for key in self.values if key not in self.known
        ]
        return [shown for shown, name in names if shown not in skipped and name not in skipped]

    def all_notes(self) -> list[str]:
        """Returns the notes of the file, with one on the settings that were ignored."""
        names = listed(self.ignored, ", ")
        return [*self.notes, *([f"settings that nemojax does not use: {names}"] if names else [])]

    def check(self, file: str) -> None:
        """Raises ConvertError if this section or one inside it has problems; the message names them."""
        if self.problems:
            raise ConvertError(f"{file}: {listed(self.problems)}")


# the loader in C is ten times as fast, and bounds how deep a file may be nested
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a key that a mapping has twice, as NeMo's reader does; PyYAML takes the last one."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.YAMLError(f"it has the key {short(twice)} twice")
        return super().construct_mapping(node, deep)


def read_yaml(data: bytes, name: str) -> Any:
    """Parses YAML. Raises ConvertError, with the file's `name`, if it is not valid, or too large to be settings."""
    return _parse(data, name, "YAML", _load_yaml, MAX_SETTINGS_BYTES)


def read_json(data: bytes, name: str, limit: int = MAX_SETTINGS_BYTES) -> Any:
    """Parses JSON. Raises ConvertError, with the file's `name`, if it is not valid, or has more bytes than `limit`."""
    return _parse(data, name, "JSON", json.loads, limit)


def _load_yaml(text: str) -> Any:
    """Returns the plain values of a YAML text after checking how many values it describes."""
    _check_nodes(yaml.parse(text, _Loader))
    return yaml.load(text, _Loader)


def _check_nodes(events: Iterable[yaml.Event]) -> None:
    """Raises yaml.YAMLError for more values than `MAX_YAML_NODES`, a number that is too long, or an endless alias.

    Nested aliases could stand for any number of values, and one inside what it stands for has no end.
    """
    total = 0  # values so far, with aliases expanded
    opened: list[tuple[str | None, int]] = []  # anchor of each open collection, and the total before it
    sizes: dict[str, int] = {}  # values under each anchor
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise yaml.YAMLError(f"the alias {short(event.anchor)} stands for nothing, or for itself")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            if len(event.value) > MAX_DIGITS and event.value[0] in "+-.0123456789" and event.implicit != (False, True):
                raise yaml.YAMLError(f"it has a number of more than {MAX_DIGITS} characters")
        if total > MAX_YAML_NODES:
            raise yaml.YAMLError(f"it has more than {MAX_YAML_NODES:,} values")


def _parse(data: bytes, name: str, language: str, parse: Callable[[str], Any], limit: int) -> Any:
    if len(data) > limit:
        raise ConvertError(f"{name} is larger than {limit >> 20} MB")
    try:
        values = parse(data.decode())
        json.dumps(values, ensure_ascii=False, default=str).encode()  # half of a surrogate pair is no text
        return values
    except RecursionError:
        raise ConvertError(f"{name} is nested too deeply") from None
    # PyYAML raises the last three for values that do not fit their tags, such as `!!timestamp soon`
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, AttributeError, LookupError) as error:
        raise ConvertError(f"{name} is not {language}: {reason(error)}") from None
