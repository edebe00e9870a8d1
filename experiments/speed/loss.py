"""Measures time and peak memory of the RNN-T loss, forward and with its gradients, against other ways to compute it.

    python -m experiments benchmark_loss

Every form starts from the joint network's projections and ends with their gradients and those of the output layer. Each
measurement runs in a process of its own, so that its memory is its own. The forms take turns, so that the machine's
other load falls on all alike. Memory is what the first call adds: compiled code, inputs and libraries do not count. A
table goes to standard output; a row for each measurement is appended to a file of JSON lines.

The torch forms need torch, torchaudio and NeMo, as in the environment of `make parity`; elsewhere they are skipped.
Exit codes: 0, all done; 1, two forms have different losses; 2, the command is wrong.
"""

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.harness import checks
from experiments.harness import machine as harness_machine
from experiments.harness.command import command
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown, median_and_range
from experiments.harness.rows import Row, Rows, select
from experiments.speed.loss_forms import FORMS, JAX_FORMS, SIZES, inputs

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchaudio", "nemo_toolkit", "numba")
PASSES = ("forward", "gradient")
TOLERANCE = 1e-4  # relative, between the losses of two forms


@dataclass(frozen=True)
class Settings:
    forms: tuple[str, ...] = tuple(FORMS)
    """Ways to compute the loss."""
    sizes: tuple[str, ...] = ("small", "medium")
    """Of the inputs: small, medium, large."""
    repeats: int = 3
    """Processes per form."""
    seconds: float = 2.0
    """Each process repeats its call for this duration, at least once, and reports the fastest."""
    limit_s: float = 120.0
    """A measurement that takes longer, start included, is not repeated."""
    frames_per_block: int | None = None
    """Of the fused form; by default its own."""
    seed: int = 0
    """Of the inputs."""
    output: Path = Path("benchmark_loss.jsonl")
    """Rows are appended to this file."""
    measure: tuple[str, str, str] | None = None
    """Internal: form, size and pass to measure in this process."""

    def check(self) -> None:
        checks.one_of(FORMS, self, "forms")
        checks.one_of(SIZES, self, "sizes")
        checks.at_least(1, self, "repeats", "frames_per_block")


# One measurement, in a process of its own.


class PeakMemory:
    """The peak of memory in use since `reset`, less the memory in use then."""

    def __init__(self, form: str):
        self.gpu: Any = None
        if form in JAX_FORMS:
            import jax

            self.gpu = jax.devices()[0] if jax.default_backend() != "cpu" else None

    def _process(self, field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def reset(self) -> None:
        if self.gpu:
            self.start = int(self.gpu.memory_stats()["bytes_in_use"])
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self.start = self._process("VmRSS")

    def bytes(self) -> int:
        peak = int(self.gpu.memory_stats()["peak_bytes_in_use"]) if self.gpu else self._process("VmHWM")
        return peak - self.start


def measure_here(form: str, size: str, which: str, settings: Settings) -> Row:
    """Measures a form in this process."""
    arrays = inputs(SIZES[size], settings.seed)
    call, facts = FORMS[form](SIZES[size], arrays, which == "gradient", settings.frames_per_block)
    memory = PeakMemory(form)
    memory.reset()
    loss = call()
    peak_bytes = memory.bytes()
    times: list[float] = []
    while not times or sum(times) < settings.seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    row = {"loss": loss, "seconds": min(times), "calls": len(times), "peak_bytes": peak_bytes}
    return {**row, **facts, "device": device(form)}


def device(form: str) -> str:
    if form in JAX_FORMS:
        return harness_machine.device()
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


# The command.


def measure_in_process(form: str, size: str, which: str, settings: Settings) -> Row:
    """Runs `measure_here` in a new process; returns its row, or the reason why there is none as `skipped`."""
    child = [sys.executable, "-m", "experiments", "benchmark_loss", "--measure", form, size, which]
    child += ["--seed", str(settings.seed), "--seconds", str(settings.seconds)]
    child += ["--frames-per-block", str(settings.frames_per_block)]
    try:
        done = subprocess.run(
            child, capture_output=True, text=True, timeout=settings.limit_s, cwd=Path(__file__).parents[2]
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"more than {settings.limit_s:g} s"}
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def table(rows: Sequence[Row]) -> str:
    """Shows medians over the repeats with their range, or why a form was skipped."""
    lines = []
    for size, form, which in dict.fromkeys((row["size"], row["form"], row["pass"]) for row in rows):
        found = select(rows, size=size, form=form, **{"pass": which})
        skipped = next((row["skipped"] for row in found if "skipped" in row), None)
        if skipped is not None:
            lines.append([size, form, which, skipped, ""])
            continue
        times = median_and_range([1000 * row["seconds"] for row in found], "{:,.1f}")
        peak = statistics.median(row["peak_bytes"] for row in found) / 2**20
        lines.append([size, form, which, times, f"{peak:,.1f}"])
    return markdown(["size", "form", "pass", "ms", "peak, MiB"], lines, left=3)


def measure(settings: Settings, rows: Rows) -> None:
    cells = [(size, form, which) for size in settings.sizes for form in settings.forms for which in PASSES]
    skipped = set()
    with tqdm(total=len(cells) * settings.repeats) as progress:
        for repeat in range(settings.repeats):
            for size, form, which in cells:
                progress.set_description(f"{size} {form} {which}")
                progress.update()
                if (size, form, which) in skipped:
                    continue
                result = measure_in_process(form, size, which, settings)
                if "skipped" in result:
                    skipped.add((size, form, which))
                row = {"benchmark": "rnnt_loss", "size": size, "form": form, "pass": which, "repeat": repeat}
                rows.add({**row, **result, "shape": dataclasses.asdict(SIZES[size])})
    for size in settings.sizes:
        values = {row["form"]: row["loss"] for row in select(rows.rows, size=size) if "loss" in row}
        if values and max(values.values()) - min(values.values()) > TOLERANCE * min(values.values()):
            rows.report(f"the losses of size {size} differ: {values}")


EXPERIMENT = Experiment("benchmark_loss", Settings, measure, __doc__, table, packages=PACKAGES)


def run(settings: Settings) -> int:
    if settings.measure is not None:
        print(json.dumps(measure_here(*settings.measure, settings)))
        return 0
    return EXPERIMENT.run(settings)


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, EXPERIMENT.name, __doc__, arguments)
