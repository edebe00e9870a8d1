"""Results as JSON lines: each row is a measurement with the facts that it depends on, appended to a file at once."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tqdm import tqdm

from experiments.harness.machine import machine
from experiments.harness.output import open_for_writing

Row = dict[str, Any]


def write_line(file: IO[str], values: Mapping[str, Any]) -> None:
    """Writes one JSON line and flushes it. Raises ValueError for numbers that JSON lacks: NaN and infinity."""
    file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


class Rows:
    """The rows of one run, and the problems that it met; a context manager.

    Attributes:
      rows: all that were added, complete.
      problems: each problem once.

    Args:
      path: the file that rows are appended to. It is opened on entry, before any work begins, and a file without rows
        is not left behind.
      facts: values that every row has; a row's own values come before them.
      packages: whose versions every row has.

    Raises:
      ConfigError: on entry, where the file can't be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], packages: Sequence[str]):
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self._path, self._facts, self._packages = path, facts, packages
        self._file: IO[str] | None = None

    def __enter__(self) -> "Rows":
        self._existed = self._path.exists()
        self._file = open_for_writing(self._path, "a")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()
        if not self._existed and not self.rows:
            self._path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> Row:
        """Completes a row, appends it to the file, and returns it."""
        assert self._file is not None
        complete = {**self._facts, **machine(self._packages), **row}
        write_line(self._file, complete)
        self.rows.append(complete)
        return complete

    def report(self, problem: Exception | str) -> None:
        """Writes a problem to standard error, once however often it comes; the run then ends with exit code 1."""
        if str(problem) not in self.problems:
            tqdm.write(f"error: {problem}", file=sys.stderr)
            self.problems.append(str(problem))


def select(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Returns the rows that have all of these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def distinct(rows: Iterable[Row], key: str) -> list[Any]:
    """Returns the values of a key, each once, in the rows' order; rows without the key are passed over."""
    return list(dict.fromkeys(row[key] for row in rows if key in row))
