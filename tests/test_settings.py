"""Settings as JSON: there and back, and a sentence that names the place of each problem."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

from nemojax.errors import ConfigError
from nemojax.settings import parse_json, read, to_json
from tests.helpers.messages import whole


class Pair(NamedTuple):
    one: int
    two: float


@dataclass(frozen=True)
class Inner:
    number: int
    size: int = 3

    def __post_init__(self):
        if self.number < 0:
            raise ConfigError(f"number must be at least 0, not {self.number}")


@dataclass(frozen=True)
class Outer:
    path: Path
    inner: Inner = Inner(1, 2)
    other: Inner | None = None
    pairs: tuple[Pair, ...] = ()
    both: tuple[int, str] | None = None
    kind: Literal["a", 1] = "a"
    many: tuple[tuple[Path, ...], ...] = ()
    either: int | str = 0
    flag: bool = False
    numbers: tuple[float, ...] = field(default_factory=lambda: (1.0, float("inf")))


FULL = Outer(Path("p"), Inner(5), Inner(6), (Pair(1, 2.0),), (1, "x"), 1, ((Path("a"),), ()), "text", True, (2.5,))


@pytest.mark.parametrize("settings", [FULL, Outer(Path("p"))])
def test_there_and_back(settings):
    again = read(Outer, parse_json(to_json(settings), "it"))
    assert again == settings and to_json(again) == to_json(settings)
    assert [type(pair) for pair in again.pairs] == [Pair] * len(settings.pairs)
    assert all(type(path) is type(Path()) for path in (again.path, *(path for paths in again.many for path in paths)))


def test_whole_numbers_are_numbers_and_nothing_else_is_converted():
    values = json.loads(to_json(FULL))
    found = read(Outer, values | {"numbers": [1, 2.5], "pairs": [[1, 2]]})
    assert [type(x) for x in (*found.numbers, found.pairs[0].two)] == [float] * 3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"flag": 1}, "flag must be true or false, not 1"),
        ({"flag": "true"}, 'flag must be true or false, not "true"'),
        ({"path": None}, "path must be a path, not null"),
        ({"path": 5}, "path must be a path, not 5"),
        ({"inner": {"number": "1", "size": 3}}, 'inner.number must be a whole number, not "1"'),
        ({"inner": {"number": True, "size": 3}}, "inner.number must be a whole number, not true"),
        ({"inner": {"number": 1.0, "size": 3}}, "inner.number must be a whole number, not 1.0"),
        ({"inner": {"number": 1}}, "missing settings: inner.size"),
        (
            {"inner": {"number": 1, "size": 3, "depth": 2}},
            "unknown settings: inner.depth; the settings here are number, size",
        ),
        ({"inner": []}, "inner must be an object with settings by name, not []"),
        ({"flag": "x" * 300}, 'flag must be true or false, not "' + "x" * 99 + " ... " + "x" * 99 + '"'),
        (
            {f"n{i}": 1 for i in range(10)},
            f"unknown settings: {', '.join(f'n{i}' for i in range(8))}, and 2 more; the settings here are path, inner, "
            "other, pairs, both, kind, many, either, flag, numbers",
        ),
        ({"numbers": [10**400]}, f"numbers[0] must be a number, not 1{'0' * 99} ... {'0' * 100}"),
        ({"inner": {"number": -1, "size": 3}}, "number must be at least 0, not -1"),
        ({"inner": None}, "inner must be an object with settings by name, not null"),
        ({"other": {"number": 1, "size": None}}, "other.size must be a whole number, not null"),
        ({"other": 4}, "other must be an object or null, not 4"),
        ({"pairs": [[1, 2.0], [1]]}, "pairs[1] must be a list of 2, not [1]"),
        ({"pairs": [[1, "2"]]}, 'pairs[0][1] must be a number, not "2"'),
        ({"pairs": {"0": [1, 2]}}, 'pairs must be a list, not {"0": [1, 2]}'),
        ({"both": [1]}, "both must be a list of 2 or null, not [1]"),
        ({"kind": True}, 'kind must be one of "a", 1, not true'),
        ({"either": 1.5}, "either must be a whole number or a text, not 1.5"),
        ({"many": [["a"], "b"]}, 'many[1] must be a list, not "b"'),
        ({"numbers": [1.0, False]}, "numbers[1] must be a number, not false"),
    ],
)
def test_problems_name_their_place(changes, message):
    values = json.loads(to_json(FULL)) | changes
    with pytest.raises(ConfigError) as error:
        read(Outer, values)
    assert str(error.value) == message


def test_missing_settings_are_those_of_the_defaults():
    defaults = dataclasses.replace(FULL, kind="a")
    assert read(Outer, {}, defaults) == defaults
    assert read(Outer, {"inner": {"size": 9}}, defaults) == dataclasses.replace(defaults, inner=Inner(5, 9))
    with pytest.raises(ConfigError, match=r"^missing settings: other\.size$"):  # it has no default to take it from
        read(Outer, {"other": {"number": 1}}, Outer(Path("p")))
    with pytest.raises(ConfigError, match=whole("number must be at least 0, not -1")):  # the checks run on the result
        read(Outer, {"inner": {"number": -1}}, defaults)
    with pytest.raises(
        ConfigError, match=whole("missing settings: path, inner, other, pairs, both, kind, many, either, flag, numbers")
    ):
        read(Outer, {})


@pytest.mark.parametrize("text", ["{", b"\xff", ""])
def test_a_document_that_is_not_json_is_named(text):
    with pytest.raises(ConfigError, match=r"^config\.json is not JSON: "):
        parse_json(text, "config.json")


def test_no_jax_is_needed():
    program = "import sys; import nemojax.config, nemojax.settings; assert 'jax' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
