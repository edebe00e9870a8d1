"""Compares the time of a step of many streams in several versions of nemojax, in one run.

    git worktree add ../before 13911f8
    python -m experiments compare_versions before=../before after=.

Each version is a directory that holds the package `nemojax`, such as a worktree of an earlier commit. Each runs in a
process of its own, with the same weights and the same noise, and they take turns, so that the machine's other load
falls on all alike. Timed is a compiled and warm step, from samples on the host to labels on the host. A table goes to
standard output; a row for each version, look-ahead and number of streams is appended to a file of JSON lines.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Annotated, Literal

import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown, median_and_range
from experiments.harness.rows import Row, Rows, distinct, select
from nemojax.bundled import SMALL
from nemojax.errors import ConfigError, NemojaxError
from nemojax.hub import resolve

WORKER = Path(__file__).with_name("versions_worker.py")


@dataclass(frozen=True)
class Settings:
    versions: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=DIRECTORY...")]]
    """Each a name and a directory that holds the package; the others are compared with the first."""
    model: Path = SMALL
    """A native checkpoint."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    lookaheads: tuple[int, ...] = (0, 6)
    """In encoder frames."""
    streams: tuple[int, ...] = (64, 256, 1024)
    """Live streams in a step."""
    repeats: int = 5
    """Of every measurement."""
    steps: int = 5
    """In each repeat, one after the other."""
    seed: int = 0
    """Of the noise."""
    output: Path = Path("compare_versions.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.at_least(1, self, "streams", "repeats", "steps")
        checks.at_least(0, self, "lookaheads")
        if not self.versions:
            raise ConfigError("name at least one version, as NAME=DIRECTORY")
        for name, directory in map(parse, self.versions):
            if not (directory / "nemojax" / "__init__.py").is_file():
                raise ConfigError(f"{name}: there is no package nemojax in {directory}")


def parse(version: str) -> tuple[str, Path]:
    """Splits NAME=DIRECTORY. Raises ConfigError."""
    name, equals, directory = version.partition("=")
    if not (name and equals and directory):
        raise ConfigError(f"{version!r} is not a version: write NAME=DIRECTORY")
    return name, Path(directory).resolve()


class VersionError(NemojaxError):
    """Reports a version whose process has ended; says why."""


class Version:
    """A version of the package in a process of its own; it is ready when the constructor returns."""

    def __init__(self, name: str, directory: Path, settings: Settings):
        self.name, self.commit = name, described(directory)
        given = [str(resolve(settings.model).absolute()), settings.dtype, str(settings.steps), str(settings.seed)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), *given],  # -P: the directory of the script is not imported from
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(directory)},
        )
        package = Path(self._answer()["package"])
        if directory not in package.parents:
            self.close()
            raise VersionError(f"{name}: {package} was imported in place of the package in {directory}")

    def step(self, lookahead: int, streams: int) -> Row:
        """Returns the mean `seconds` of a step, and `chunk_ms`; the first call compiles. Raises VersionError."""
        print(
            json.dumps({"lookahead": lookahead, "streams": streams}), file=self._pipe(self._process.stdin), flush=True
        )
        return self._answer()

    def _answer(self) -> Row:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise VersionError(f"{self.name}: its process ended with exit code {self._process.wait()}")
        answer: Row = json.loads(line)
        return answer

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def close(self) -> None:
        """Ends the process."""
        self._pipe(self._process.stdin).close()
        self._process.wait()


def described(directory: Path) -> str | None:
    """Returns the commit of a directory, None outside of a checkout."""
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def table(rows: Sequence[Row]) -> str:
    versions, lines = distinct(rows, "version"), []
    for lookahead in distinct(rows, "lookahead"):
        for streams in distinct(select(rows, lookahead=lookahead), "streams"):
            cells, middles = [], []
            for version in versions:
                [row] = select(rows, lookahead=lookahead, streams=streams, version=version)
                ms = [1000 * seconds for seconds in row["seconds"]]
                cells.append(median_and_range(ms, "{:.0f}" if min(ms) >= 100 else "{:.1f}"))
                middles.append(median(ms))
            shares = [f"{one / middles[0]:.2f}" for one in middles[1:]]
            lines.append([f"{row['chunk_ms']:.0f} ms", f"{streams:,}", *cells, *shares])
    heads = ["chunk", "streams", *(f"{name}, ms" for name in versions)]
    return markdown([*heads, *(f"{name} / {versions[0]}" for name in versions[1:])], lines)


def measure(settings: Settings, rows: Rows) -> None:
    points = [(lookahead, streams) for lookahead in settings.lookaheads for streams in settings.streams]
    with ExitStack() as stack:
        versions = []
        for name, directory in map(parse, settings.versions):
            versions.append(Version(name, directory, settings))
            stack.callback(versions[-1].close)
        found: dict[tuple[str, int, int], list[Row]] = {}
        total = len(points) * len(versions) * (1 + settings.repeats)
        with tqdm(desc="steps", total=total, disable=None, leave=False) as bar:
            for repeat in range(1 + settings.repeats):
                for point in points:
                    for version in versions:
                        answer = version.step(*point)
                        bar.update()
                        if repeat:  # the first one compiles
                            found.setdefault((version.name, *point), []).append(answer)
    common = {"model": settings.model.name, "dtype": settings.dtype, "steps": settings.steps}
    for lookahead, streams in points:
        for version in versions:
            answers = found[version.name, lookahead, streams]
            row = {"version": version.name, "version_commit": version.commit, "lookahead": lookahead}
            row |= {"chunk_ms": answers[0]["chunk_ms"], "streams": streams}
            rows.add({**common, **row, "seconds": [round(answer["seconds"], 6) for answer in answers]})


EXPERIMENT = Experiment("compare_versions", Settings, measure, __doc__, table)
main = EXPERIMENT.main
