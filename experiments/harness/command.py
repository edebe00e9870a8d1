"""What the command lines of `experiments` share: settings that are printed, kept and used again, and how they end.

    python -m experiments evaluate MODEL MANIFEST --stream --print-settings > settings.json
    python -m experiments evaluate --settings settings.json --lookaheads 6

Flags go before the file, the file before the defaults; a file may leave settings out. Paths in it are relative to where
the command is run. `--help` beside `--settings` shows what the file sets.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from experiments.harness.settings import load, to_json
from nemojax.errors import AudioError, CheckpointError, ConfigError, TokenizerError

ERRORS: tuple[type[Exception], ...] = (AudioError, CheckpointError, ConfigError, TokenizerError)
INTERRUPTED = 128 + 2
ABOUT = "Besides: --print-settings prints all settings as JSON and ends; --settings FILE has those as the defaults."
T = TypeVar("T")


def command(
    kind: type[T],
    run: Callable[[T], int],
    name: str,
    description: str | None,
    arguments: Sequence[str] | None = None,
    *,
    presets: Mapping[str, tuple[str, T]] | None = None,
    recorded: frozenset[str] = frozenset(),
    catch: tuple[type[Exception], ...] = (),
) -> int:
    """A whole command line, from arguments to exit code.

    Args:
      kind: a frozen dataclass of settings.
      run: what the command does; returns its exit code.
      name: of the command, as `python -m experiments` lists it.
      presets: descriptions and settings by the name that the command line begins with; beside --settings it may be
        left out.
      recorded: what --settings passes over, because a saved run has it beside its settings.
      catch: further errors that are sentences for the user; they end with 2, as `ERRORS` do.
    """

    def parsed_and_run() -> int:
        settings, only_print = parse(kind, name, description, arguments, presets, recorded)
        if only_print:
            print(to_json(settings), end="")
            return 0
        return run(settings)

    return ending(parsed_and_run, (*ERRORS, *catch))


def ending(call: Callable[[], int | None], errors: tuple[type[Exception], ...] = ERRORS, code: int = 2) -> int:
    """The exit code of a call, 0 for None; `errors` become a line on standard error, and `code`."""
    try:
        return call() or 0
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return code
    except KeyboardInterrupt:
        return INTERRUPTED


def parse(
    kind: type[T],
    name: str,
    description: str | None = None,
    arguments: Sequence[str] | None = None,
    presets: Mapping[str, tuple[str, T]] | None = None,
    recorded: frozenset[str] = frozenset(),
) -> tuple[T, bool]:
    """The settings of a command line, and whether they are only to be printed. Arguments as those of `command`."""
    prog = f"python -m experiments {name}"
    ours = argparse.ArgumentParser(prog, f"{prog} ... [--settings FILE] [--print-settings]", add_help=False)
    ours.allow_abbrev = False
    ours.add_argument("--settings", type=Path)
    ours.add_argument("--print-settings", action="store_true")
    asked, rest = ours.parse_known_args(arguments)
    options: dict[str, Any] = {"prog": prog, "description": f"{description or ''}\n\n{ABOUT}".strip(), "args": rest}
    if presets is not None and (asked.settings is None or (rest and rest[0] in presets)):
        if asked.settings is not None:
            file = asked.settings
            presets = {key: (what, load(file, kind, value, recorded)) for key, (what, value) in presets.items()}
        return tyro.extras.overridable_config_cli(presets, **options), asked.print_settings
    if asked.settings is not None:
        options["default"] = load(asked.settings, kind, recorded=recorded)
    return tyro.cli(kind, config=(tyro.conf.AvoidSubcommands,), **options), asked.print_settings
