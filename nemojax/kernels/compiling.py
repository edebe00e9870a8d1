"""Compiles the C++ kernels into one library. It imports nothing but Python's own modules, so that a build can."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.cc")))
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
FLAGS = ("-O3", "-falign-loops=32", "-ffp-contract=fast", "-std=c++17", "-fPIC")


class CompileError(Exception):
    """Reports that the sources could not be compiled, and why."""


def compile_library(command: Sequence[str], library: Path, link: Sequence[str] = ()) -> None:
    """Compiles all sources into one library.

    Args:
      command: the compiler and its options.
      library: is written.
      link: options for linking.

    Raises:
      CompileError: the compiler failed.
    """
    compile_program(command, SOURCES, library, ("-shared", *link))


def compile_program(command: Sequence[str], sources: Sequence[Path], program: Path, link: Sequence[str]) -> None:
    """Compiles sources at the same time, each by a process of its own, and links them; see `compile_library`."""
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        objects = [str(Path(scratch) / f"{source.stem}.o") for source in sources]
        made = zip(sources, objects, strict=True)
        _run([[*command, *FLAGS, "-c", str(source), "-o", target] for source, target in made])
        _run([[*command, *FLAGS, *objects, "-o", str(program), *link]])


def _run(commands: Sequence[Sequence[str]]) -> None:
    """Runs commands at the same time. Raises CompileError, which has the first message of one that failed."""
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate()[1] for process in running]
    for command, process, error in zip(commands, running, errors, strict=True):
        if process.returncode:
            message = next((line for line in error.splitlines() if "error" in line), error.strip())
            raise CompileError(f"{command[0]} failed: {message}")
