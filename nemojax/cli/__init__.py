"""The command line: `nemojax transcribe`, `evaluate`, `info`, `lm`, `warm`, `doctor`, `convert` and `experiments`.

Text goes to standard output; changes made to the audio, errors and progress go to standard error.
Exit codes: 0, everything is done; 1, some recordings could not be transcribed; 2, the command or the model is wrong;
130 and 143, it was ended by SIGINT (Ctrl-C) or SIGTERM. Then --stream, --live and a pipe have finished their text.
"""

import io
import os
import sys
from collections.abc import Callable, Sequence

import tyro

from nemojax import __version__, companions
from nemojax.cli.companion_commands import COMMANDS as COMPANIONS
from nemojax.cli.doctor import doctor
from nemojax.cli.evaluate import evaluate
from nemojax.cli.info import info
from nemojax.cli.lm import lm
from nemojax.cli.transcribe import transcribe
from nemojax.cli.warm import warm
from nemojax.errors import NemojaxError, shown

DESCRIPTION = "A cache-aware streaming speech recognizer. `nemojax --version` prints the version."


def set_compilation_cache() -> None:
    """Makes jax keep compiled programs of whatever size; `load` chooses the directory, see `nemojax.compilation`.

    It has an effect only before jax is imported.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    set_compilation_cache()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files need not be valid UTF-8
    arguments = sys.argv[1:] if arguments is None else arguments
    if list(arguments) == ["--version"]:
        print(f"nemojax {__version__}")
        return 0
    commands: dict[str, Callable[..., int]] = {
        "transcribe": transcribe,
        "evaluate": evaluate,
        "info": info,
        "lm": lm,
        "warm": warm,
        "doctor": doctor,
        **COMPANIONS,
    }
    try:
        if arguments and arguments[0] in COMPANIONS:  # which read the other arguments themselves
            return companions.run(arguments[0], arguments[1:])
        code: int = tyro.extras.subcommand_cli_from_dict(
            commands, prog="nemojax", description=DESCRIPTION, args=arguments
        )
        return code
    except NemojaxError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
