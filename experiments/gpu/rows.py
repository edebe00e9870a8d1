"""Rows of results, each in the file as soon as it is known."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any

from experiments.machine import load

FIELDS = ("name", "driver_version", "memory.total", "clocks.max.sm", "power.limit")


def card(run: Callable[..., Any] = subprocess.run) -> dict[str, str] | None:
    """What the driver says of the first GPU; None where there is no driver."""
    try:
        asked = [f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]
        said = run(["nvidia-smi", *asked], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = said.stdout.strip().splitlines()
    values = [value.strip() for value in lines[0].split(",")] if said.returncode == 0 and lines else []
    return dict(zip(FIELDS, values, strict=True)) if len(values) == len(FIELDS) else None


def first_line(error: BaseException) -> str:
    """An error in one line of at most 300 characters, its type first."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:300]


def is_out_of_memory(error: BaseException) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


class Rows:
    """Writes rows to a file of JSON lines and flushes after each; every row carries the facts of the run."""

    def __init__(self, file: IO[str], facts: dict[str, Any]):
        self._file, self._facts, self._begin_s = file, facts, time.perf_counter()
        self.rows: list[dict[str, Any]] = []

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._begin_s

    def add(self, stage: str, kind: str, **values: Any) -> None:
        moment = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "elapsed_s": round(self.elapsed_s, 1)}
        row = {"experiment": "gpu", "stage": stage, "kind": kind, **values}
        self.rows.append({**self._facts, **row, **moment, "load": load()})
        self._file.write(json.dumps(self.rows[-1]) + "\n")
        self._file.flush()
        shown = {name: value for name, value in values.items() if not isinstance(value, list | dict)}
        print(f"[{self.elapsed_s:6.1f} s] {stage} {kind}: {json.dumps(shown)[:400]}", file=sys.stderr, flush=True)

    def failed(self, stage: str, kind: str, error: BaseException, **values: Any) -> None:
        self.add(stage, kind, **values, out_of_memory=is_out_of_memory(error), error=first_line(error))
