"""Rows of a run in stages, each with its stage, its kind and the time since the start."""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from experiments.harness.rows import Rows


def first_line(error: BaseException) -> str:
    """Returns an error as one line of at most 300 characters, its type first."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error of XLA or torch says that memory did not suffice."""
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


class StageRows:
    """Adds rows to the harness's `Rows` and prints each on standard error.

    A row with an error is reported, so the run ends with exit code 1, unless only memory did not suffice.

    Args:
      rows: of the harness.
      facts: values that every row has; a row's own values come before them.
    """

    def __init__(self, rows: Rows, facts: Mapping[str, Any]):
        self._rows, self._facts, self._begin_s = rows, facts, time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._begin_s

    def add(self, stage: str, kind: str, **values: Any) -> None:
        """Adds a row."""
        begin = {"stage": stage, "kind": kind}
        self._rows.add({**self._facts, **begin, **values, "elapsed_s": round(self.elapsed_s, 1)})
        shown = {name: value for name, value in values.items() if not isinstance(value, list | dict)}
        tqdm.write(f"[{self.elapsed_s:6.1f} s] {stage} {kind}: {json.dumps(shown)[:400]}", file=sys.stderr)
        if "error" in values and not values.get("out_of_memory"):
            self._rows.report(f"stage {stage}: {values['error']}")

    def failed(self, stage: str, kind: str, error: BaseException, **values: Any) -> None:
        """Adds the row of a measurement that raised an error."""
        self.add(stage, kind, **values, out_of_memory=is_out_of_memory(error), error=first_line(error))
