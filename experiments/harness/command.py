"""The command line of an experiment: settings that can be printed, kept and used again, and exit codes.

    python -m experiments evaluate MODEL MANIFEST --stream --print-settings > settings.json
    python -m experiments evaluate --settings settings.json --lookaheads 6

Precedence: flags, then the file, then the defaults. A file may be partial. Paths in it are relative to where the
command is run. `--help` beside `--settings` shows the file's values.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TypeVar

import tyro

from experiments.harness.flag_names import with_flags
from experiments.harness.settings import FILE, load, to_json
from nemojax import companions
from nemojax.errors import ConfigError, NemojaxError

ERRORS: tuple[type[Exception], ...] = (NemojaxError,)
INTERRUPTED = 128 + 2
IN_A_CLONE = "python -m experiments"
PROGRAM = "nemojax experiments" if companions.installed() else IN_A_CLONE
ABOUT = (
    "Besides: --print-settings prints all settings as JSON and does nothing else; --settings FILE takes defaults from "
    "such a file, which may be partial."
)
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
    """Runs a command line, from arguments to exit code.

    Args:
      kind: a frozen dataclass of settings.
      run: runs the command on its settings and returns the exit code.
      name: of the command, as `python -m experiments` lists it.
      presets: descriptions and settings by the name that comes first on the command line; beside --settings the name
        is optional.
      recorded: names in a settings file to ignore, because a saved run has them beside its settings.
      catch: further errors whose message is for the user; they end with exit code 2, as `ERRORS` do.
    """

    def parse_and_run() -> int:
        settings, only_print = parse(kind, name, description, arguments, presets, recorded)
        if only_print:
            print(to_json(settings), end="")
            return 0
        return run(settings)

    return ending(parse_and_run, (*ERRORS, *catch), kind=kind)


def ending(
    call: Callable[[], int | None],
    errors: tuple[type[Exception], ...] = ERRORS,
    code: int = 2,
    kind: type | None = None,
) -> int:
    """Returns the exit code of a call, 0 for None; `errors` are printed as a line, and give `code`.

    Args:
      kind: the dataclass of the settings; a ConfigError names them by their flags.
    """
    try:
        return call() or 0
    except errors as error:
        message = str(error)
        if kind is not None and isinstance(error, ConfigError) and not message.startswith(FILE):
            message = with_flags(message, kind)
        print(f"error: {message}", file=sys.stderr)
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
    """Returns the settings of a command line, and whether to print them only. Arguments as in `command`."""
    prog = f"{PROGRAM} {name}"
    ours = argparse.ArgumentParser(prog, f"{prog} ... [--settings FILE] [--print-settings]", add_help=False)
    ours.allow_abbrev = False
    ours.add_argument("--settings", type=Path)
    ours.add_argument("--print-settings", action="store_true")
    given, rest = ours.parse_known_args(arguments)
    options: dict[str, Any] = {
        "prog": prog,
        "description": f"{(description or '').replace(IN_A_CLONE, PROGRAM)}\n\n{ABOUT}".strip(),
        "args": rest,
    }
    if presets is not None and (given.settings is None or (rest and rest[0] in presets)):
        if given.settings is not None:
            file = given.settings
            presets = {key: (text, load(file, kind, value, recorded)) for key, (text, value) in presets.items()}
        named = dict(presets)
        return _with_own_errors(lambda: tyro.extras.overridable_config_cli(named, **options)), given.print_settings
    if given.settings is not None:
        options["default"] = load(given.settings, kind, recorded=recorded)
    settings = _with_own_errors(lambda: tyro.cli(kind, config=(tyro.conf.AvoidSubcommands,), **options))
    return settings, given.print_settings


class _Held(io.StringIO):
    """Standard error that is held back; it is in color where standard error is a terminal."""

    def isatty(self) -> bool:
        return sys.__stderr__ is not None and sys.__stderr__.isatty()


def _with_own_errors(call: Callable[[], T]) -> T:
    """Returns what tyro parses; raises the NemojaxError of a setting's check, which tyro would show in its own form."""
    held = _Held()
    try:
        with redirect_stderr(held):
            return call()
    except SystemExit as exit:
        error: BaseException | None = exit
        while error is not None and not isinstance(error, NemojaxError):
            error = error.__context__
        if error is not None:
            held.truncate(0)
            raise error from None
        raise
    finally:
        sys.stderr.write(held.getvalue())
