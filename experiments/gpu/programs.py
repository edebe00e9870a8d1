"""Compiles many programs side by side: XLA compiles without Python's lock, so threads do."""

import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A compiled program, and what is known of it. A later call of the jitted function does not compile again."""

    compiled: Any
    lower_s: float
    compile_s: float

    def memory(self) -> dict[str, int]:
        """Bytes of arguments, outputs, temporary buffers, and of outputs that lie where arguments did."""
        found = self.compiled.memory_analysis()
        names = ("argument", "output", "temp", "alias")
        return {f"{name}_bytes": int(getattr(found, f"{name}_size_in_bytes")) for name in names} if found else {}


def compiled(lower: Callable[[], Any]) -> Program:
    begin = time.perf_counter()
    lowered = lower()
    middle = time.perf_counter()
    program = lowered.compile()
    return Program(program, middle - begin, time.perf_counter() - middle)


class Programs:
    """Jobs in threads, found again by their keys."""

    def __init__(self, workers: int):
        self._pool = ThreadPoolExecutor(workers)
        self._jobs: dict[Hashable, Any] = {}

    def add(self, key: Hashable, lower: Callable[[], Any]) -> None:
        """Lowers and compiles a program; a key that is there stays as it is."""
        self.submit(key, lambda: compiled(lower))

    def submit(self, key: Hashable, job: Callable[[], Any]) -> None:
        if key not in self._jobs:
            self._jobs[key] = self._pool.submit(job)

    def result(self, key: Hashable, timeout_s: float | None = None) -> Any:
        """What a job gave. Raises what it raised, or TimeoutError."""
        return self._jobs[key].result(timeout_s)

    @property
    def pending(self) -> int:
        return sum(not job.done() for job in self._jobs.values())

    def wait(self, timeout_s: float, keys: Iterable[Hashable] | None = None) -> int:
        """Waits for jobs, all by default, at most that long; gives how many are not done."""
        jobs = list(self._jobs.values()) if keys is None else [self._jobs[key] for key in keys]
        return len(wait(jobs, max(timeout_s, 0)).not_done)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
