"""Compiles many programs side by side, in threads: XLA compiles without Python's lock."""

import os
import sys
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, NoReturn

_unfinished: set[Future[Any]] = set()  # of all `Programs` of this process


class Program(NamedTuple):
    """A compiled program and the times that it took. Later calls of the jitted function do not compile again."""

    compiled: Any
    lower_s: float
    compile_s: float

    def memory(self) -> dict[str, int]:
        """Returns the bytes of arguments, outputs, temporary buffers, and of outputs that reuse arguments' memory."""
        analysis = self.compiled.memory_analysis()
        names = ("argument", "output", "temp", "alias")
        return {f"{name}_bytes": int(getattr(analysis, f"{name}_size_in_bytes")) for name in names} if analysis else {}


def compile_program(lower: Callable[[], Any]) -> Program:
    """Lowers and compiles a program."""
    begin = time.perf_counter()
    lowered = lower()
    middle = time.perf_counter()
    compiled = lowered.compile()
    return Program(compiled, middle - begin, time.perf_counter() - middle)


class Programs:
    """Jobs that run in threads; each has a key, by which its result is looked up."""

    def __init__(self, workers: int):
        self._pool = ThreadPoolExecutor(workers)
        self._jobs: dict[Hashable, Future[Any]] = {}

    def add(self, key: Hashable, lower: Callable[[], Any]) -> None:
        """Lowers and compiles a program; an earlier one with the same key stays."""
        self.submit(key, lambda: compile_program(lower))

    def submit(self, key: Hashable, job: Callable[[], Any]) -> None:
        """Runs a job; an earlier one with the same key stays."""
        if key not in self._jobs:
            future = self._jobs[key] = self._pool.submit(job)
            _unfinished.add(future)
            future.add_done_callback(_unfinished.discard)

    def result(self, key: Hashable, timeout_s: float | None = None) -> Any:
        """Waits for a job and returns its result. Raises what the job raised, or TimeoutError."""
        return self._jobs[key].result(timeout_s)

    @property
    def pending(self) -> int:
        """The number of jobs that are not done."""
        return sum(not job.done() for job in self._jobs.values())

    def wait(self, timeout_s: float) -> int:
        """Waits for all jobs, at most that long, and returns the number that are not done."""
        return len(wait(list(self._jobs.values()), max(timeout_s, 0)).not_done)

    def close(self) -> None:
        """Cancels jobs that have not begun, and does not wait for the others."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def still_compiling() -> bool:
    """Returns whether a job of this process is not done."""
    return bool(_unfinished)


def exit_at_once(code: int) -> NoReturn:
    """Ends the process without waiting for its threads: XLA can't be interrupted, and may compile for minutes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
