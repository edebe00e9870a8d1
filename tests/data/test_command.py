"""The entry point of the package's commands: exit codes, messages, and flags that had another name."""

import io
import sys

import pytest

from nemojax.data.command import INTERRUPTED, Flag, current_flags, run_command
from nemojax.errors import ConfigError

FORMER = {"--old-name": "--new-name", "--no-old-name": "--no-new-name"}


@pytest.mark.parametrize(
    "given,current",
    [
        ("--old-name", "--new-name"),
        ("--old_name", "--new-name"),
        ("--no-old-name", "--no-new-name"),
        ("--old-name=a_b=c", "--new-name=a_b=c"),
        ("--other_name=1", "--other_name=1"),
        ("old-name", "old-name"),
        ("", ""),
    ],
)
def test_former_names_of_flags(given, current):
    assert current_flags(["first", given], FORMER) == ["first", current]
    assert current_flags([given], {}) == [given]


def command(name: str, /, new_name: Flag = False) -> int:
    if name == "stop":
        raise KeyboardInterrupt
    if name == "wrong":
        raise ConfigError("it is wrong")
    print(name)
    return 7 if new_name else 0


def test_exit_codes(capsys, monkeypatch):
    assert run_command(command, "prog", ["é"]) == 0
    assert run_command(command, "prog", ["é", "--old-name"], FORMER) == 7
    assert capsys.readouterr() == ("é\n" * 2, "")
    assert run_command(command, "prog", ["wrong"]) == 2 and capsys.readouterr() == ("", "error: it is wrong\n")
    assert run_command(command, "prog", ["stop"]) == INTERRUPTED == 130
    monkeypatch.setattr(sys, "argv", ["prog", "é", "--old-name"])
    assert run_command(command, "prog", former_flags=FORMER) == 7
    with pytest.raises(SystemExit) as stopped:
        run_command(command, "prog", ["--help"])
    assert stopped.value.code == 0 and "usage: prog " in capsys.readouterr().out


def test_characters_that_the_terminal_does_not_have(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    assert run_command(command, "prog", ["é"]) == 0
    sys.stdout.flush()
    assert written.getvalue() == b"\\xe9\n"
