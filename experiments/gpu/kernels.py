"""The time of a GPU's kernels, read from a profiler's trace."""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.trace import NO_SCOPE, Operation

DEVICE, STREAM = "/device:GPU", "Stream"


class Kernel(NamedTuple):
    """One run of a kernel, or of a copy; `operation` is XLA's name for what it belongs to."""

    name: str
    operation: str
    begin_ns: float
    end_ns: float


def read(directory: Path) -> list[Kernel]:
    """All kernels in the last trace below a directory."""
    from jax.profiler import ProfileData

    files = sorted(directory.glob("plugins/profile/*/*.xplane.pb"))
    found = []
    for plane in ProfileData.from_file(str(files[-1])).planes if files else ():
        lines = list(plane.lines) if plane.name.startswith(DEVICE) else []
        for line in [line for line in lines if line.name.startswith(STREAM)]:
            for event in line.events:
                stats = dict(event.stats)
                found.append(Kernel(event.name, str(stats.get("hlo_op", "")), event.start_ns, event.end_ns))
    return found


def busy_ns(kernels: Iterable[Kernel]) -> float:
    """The time in which at least one kernel runs."""
    total, until = 0.0, float("-inf")
    for kernel in sorted(kernels, key=lambda kernel: kernel.begin_ns):
        total += max(0.0, kernel.end_ns - max(kernel.begin_ns, until))
        until = max(until, kernel.end_ns)
    return total


def largest(kernels: Iterable[Kernel], steps: int, count: int) -> list[dict[str, Any]]:
    """The kernels that take longest, by name: milliseconds a step, and how often each runs in a step."""
    spent: dict[str, float] = defaultdict(float)
    runs: dict[str, int] = defaultdict(int)
    for kernel in kernels:
        spent[kernel.name] += kernel.end_ns - kernel.begin_ns
        runs[kernel.name] += 1
    order = sorted(spent, key=lambda name: -spent[name])[:count]
    return [
        {"name": name[:120], "ms": round(spent[name] / steps / 1e6, 4), "runs": round(runs[name] / steps, 2)}
        for name in order
    ]


def by_scope(kernels: Iterable[Kernel], steps: int, known: Mapping[str, Operation]) -> dict[str, float]:
    """Milliseconds a step in each named scope, all blocks together, the largest first."""
    spent: dict[str, float] = defaultdict(float)
    named = {name.replace(".", "_"): operation for name, operation in known.items()}  # as kernels are
    for kernel in kernels:
        operation = known.get(kernel.operation) or named.get(kernel.name)
        scope = operation.scope if operation is not None else None
        spent[re.sub(r"\bblock\d+", "blocks", scope or NO_SCOPE)] += kernel.end_ns - kernel.begin_ns
    order = sorted(spent, key=lambda scope: -spent[scope])
    return {scope: round(spent[scope] / steps / 1e6, 4) for scope in order}


def record(call: Callable[[], Any], steps: int) -> list[Kernel]:
    """The kernels of some calls, each of which must end when its result is ready."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # these would slow the steps down
    options.host_tracer_level = 1
    directory = Path(tempfile.mkdtemp(prefix="gpu-trace-"))
    try:
        with jax.profiler.trace(str(directory), profiler_options=options):
            for _ in range(steps):
                call()
        return read(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
