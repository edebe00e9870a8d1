"""The entry point that the commands of this package share."""

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import tyro

from nemojax.errors import NemojaxError

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
INTERRUPTED = 128 + 2


def run_command(
    function: Callable[..., int],
    prog: str,
    arguments: Sequence[str] | None = None,
    former_flags: Mapping[str, str] | None = None,
) -> int:
    """Parses a command line, calls the function, and returns the exit code: 2 for an error, after printing it.

    Args:
      prog: how the command is called, for its help.
      arguments: None for those of the process.
      former_flags: see `current_flags`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not have every character
    arguments = current_flags(sys.argv[1:] if arguments is None else arguments, former_flags or {})
    try:
        return tyro.cli(function, prog=prog, args=arguments)
    except NemojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def current_flags(arguments: Sequence[str], former_flags: Mapping[str, str]) -> list[str]:
    """Replaces former names of flags by their current names, so that earlier command lines keep working."""

    def current(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        return former_flags.get(flag.replace("_", "-"), flag) + equals + value

    return [current(argument) for argument in arguments]
