"""Time and peak memory of the RNN-T loss, forward and with its gradients, against other ways to compute it.

    python -m experiments benchmark_loss

Every form starts from the joint network's projections and ends with their gradients and those of the output
layer. Each measurement is a process of its own, so that its memory is its own; forms take turns, so that
what else the machine does falls on all of them. Memory is what the first call adds to what is there before
it: compiled code, inputs and libraries do not count. Results are JSON lines, and a table at the end.

The torch forms are measured where torch, torchaudio and NeMo can be imported, as in the `parity` environment.
"""

import dataclasses
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.harness import machine
from experiments.harness.command import command
from nemojax.errors import ConfigError


@dataclass(frozen=True)
class Size:
    rows: int
    frames: int
    labels: int
    vocabulary: int
    joint_width: int


SIZES = {
    "small": Size(2, 50, 20, 129, 256),
    "medium": Size(4, 250, 80, 1025, 640),  # four utterances of 20 s, the released models' joint
    "large": Size(32, 250, 80, 1025, 640),  # a batch of a large accelerator
}
PACKAGES = ("jax", "jaxlib", "numpy", "torch", "torchaudio", "nemo_toolkit", "numba")
PASSES = ("forward", "gradient")
TOLERANCE = 1e-4  # relative, between the losses of two forms


@dataclass(frozen=True)
class Settings:
    forms: tuple[str, ...] = ("fused", "logits", "autodiff", "torchaudio", "nemo_numba", "nemo_pytorch")
    sizes: tuple[str, ...] = ("small", "medium")
    repeats: int = 3
    """Processes per form."""
    seconds: float = 2.0
    """Each process repeats its call for so long, and at least once, and reports the fastest."""
    limit_s: float = 120.0
    """What takes longer, start included, is not tried again."""
    frames_per_block: int | None = None
    seed: int = 0
    output: Path = Path("benchmark_loss.jsonl")
    measure: tuple[str, str, str] | None = None
    """Form, size and pass to measure in this process; the command calls itself so."""


def inputs(size: Size, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    normal = lambda *shape, scale=1.0: (scale * rng.standard_normal(shape)).astype(np.float32)
    return {
        "encoded": normal(size.rows, size.frames, size.joint_width),
        "predicted": normal(size.rows, size.labels + 1, size.joint_width),
        "kernel": normal(size.joint_width, size.vocabulary, scale=size.joint_width**-0.5),
        "bias": normal(size.vocabulary, scale=0.1),
        "labels": rng.integers(0, size.vocabulary - 1, (size.rows, size.labels), np.int32),
        "frame_lengths": np.full(size.rows, size.frames, np.int32),
        "label_lengths": np.full(size.rows, size.labels, np.int32),
    }


# Each form is a call of no arguments that returns the loss, and what its compiler says of its memory.


def jax_form(
    form: str, size: Size, arrays: dict[str, np.ndarray], gradient: bool, settings: Settings
) -> tuple[Callable[[], float], dict[str, int]]:
    """`fused` is nemojax's loss. The others hold all logits: `logits` with its gradient by hand, `autodiff` without."""
    import jax
    import jax.numpy as jnp

    from nemojax.model.layers import broadcast_vector, einsum
    from nemojax.training.lattice import lattice_loss
    from nemojax.training.rnnt_loss import rnnt_loss, rnnt_loss_logits

    given: dict[str, Any] = {name: jnp.asarray(array) for name, array in arrays.items()}
    weights = {name: given.pop(name) for name in ("encoded", "predicted", "kernel", "bias")}
    blank = size.vocabulary - 1

    def joint_logits(encoded, predicted, kernel, bias):
        hidden = jax.nn.relu(encoded[:, :, None] + predicted[:, None])
        return einsum("btsj,jv->btsv", hidden, kernel) + broadcast_vector(bias, 4)

    def fused(weights):
        return rnnt_loss(**weights, **given, blank=blank, frames_per_block=settings.frames_per_block)

    def logits(weights):
        return rnnt_loss_logits(joint_logits(**weights), **given, blank=blank)

    def autodiff(weights):
        log_probs = jax.nn.log_softmax(joint_logits(**weights))
        labels = jnp.pad(given["labels"], ((0, 0), (0, 1)))[:, None, :, None]
        labels = jnp.broadcast_to(labels, (*log_probs.shape[:3], 1))
        log_label = jnp.take_along_axis(log_probs, labels, axis=-1)[..., 0]
        return lattice_loss(log_probs[..., blank], log_label, given["frame_lengths"], given["label_lengths"]).mean()

    loss = {"fused": fused, "logits": logits, "autodiff": autodiff}[form]
    compiled = jax.jit(jax.value_and_grad(loss) if gradient else loss).lower(weights).compile()
    call = lambda: float(jax.tree.leaves(jax.block_until_ready(compiled(weights)))[0])
    analysis = compiled.memory_analysis()
    return call, {"compiled_bytes": analysis.temp_size_in_bytes} if analysis else {}


def torch_form(
    form: str, size: Size, arrays: dict[str, np.ndarray], gradient: bool, settings: Settings
) -> tuple[Callable[[], float], dict[str, int]]:
    """The joint network and one of three losses, on the GPU where torch has one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    weights = [given.pop(name).requires_grad_(gradient) for name in ("encoded", "predicted", "kernel", "bias")]
    blank = size.vocabulary - 1
    if form == "torchaudio":
        from torchaudio.functional import rnnt_loss  # type: ignore[import-not-found]

        loss = partial(rnnt_loss, blank=blank, reduction="none")
        lengths = [given[name] for name in ("labels", "frame_lengths", "label_lengths")]
    else:
        from nemo.collections.asr.losses.rnnt import resolve_rnnt_loss

        loss = resolve_rnnt_loss({"nemo_numba": "warprnnt_numba", "nemo_pytorch": "pytorch"}[form], blank)
        loss.reduction = None
        lengths = [given[name].long() for name in ("labels", "frame_lengths", "label_lengths")]

    def call() -> float:
        encoded, predicted, kernel, bias = weights
        logits = torch.relu(encoded[:, :, None] + predicted[:, None]) @ kernel + bias
        value = loss(logits, *lengths).mean()
        if gradient:
            torch.autograd.grad(value, weights)
        return value.item()

    return call, {}


FORMS = {
    "fused": jax_form,
    "logits": jax_form,
    "autodiff": jax_form,
    "torchaudio": torch_form,
    "nemo_numba": torch_form,
    "nemo_pytorch": torch_form,
}


# One measurement, in a process of its own.


class PeakMemory:
    """The most memory in use since the last reset, less what was in use then."""

    def __init__(self, form: str):
        self.gpu: Any = None
        if FORMS[form] is jax_form:
            import jax

            self.gpu = jax.devices()[0] if jax.default_backend() != "cpu" else None

    def _process(self, field: str) -> int:
        return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]

    def reset(self) -> None:
        if self.gpu:
            self.start = self.gpu.memory_stats()["bytes_in_use"]
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self.start = self._process("VmRSS")

    def bytes(self) -> int:
        peak = self.gpu.memory_stats()["peak_bytes_in_use"] if self.gpu else self._process("VmHWM")
        return peak - self.start


def measure(form: str, size: str, which: str, settings: Settings) -> dict[str, Any]:
    arrays = inputs(SIZES[size], settings.seed)
    call, extra = FORMS[form](form, SIZES[size], arrays, which == "gradient", settings)
    memory = PeakMemory(form)
    memory.reset()
    loss = call()
    peak_bytes = memory.bytes()
    times: list[float] = []
    while not times or sum(times) < settings.seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"loss": loss, "seconds": min(times), "calls": len(times), "peak_bytes": peak_bytes, **extra, **device(form)}


def device(form: str) -> dict[str, Any]:
    if FORMS[form] is torch_form:
        import torch

        return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
    return {"device": machine.device()}


# The command.


def run(form: str, size: str, which: str, settings: Settings) -> dict[str, Any]:
    """`measure` in a new process; its result, or why there is none."""
    ourselves = [sys.executable, "-m", "experiments", "benchmark_loss", "--measure", form, size, which]
    ourselves += ["--seed", str(settings.seed), "--seconds", str(settings.seconds)]
    ourselves += ["--frames-per-block", str(settings.frames_per_block)]
    try:
        done = subprocess.run(
            ourselves, capture_output=True, text=True, timeout=settings.limit_s, cwd=Path(__file__).parents[2]
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"more than {settings.limit_s:g} s"}
    if done.returncode:
        return {"skipped": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def table(results: list[dict[str, Any]]) -> list[str]:
    """Median, smallest and largest over the repeats."""
    lines = [f"{'size':<8} {'form':<13} {'pass':<9} {'ms: median':>11} {'(range)':>19} {'peak MiB':>10}"]
    for key in dict.fromkeys((r["size"], r["form"], r["pass"]) for r in results):
        found = [r for r in results if (r["size"], r["form"], r["pass"]) == key]
        line = "{:<8} {:<13} {:<9}".format(*key)
        if any("skipped" in r for r in found):
            lines.append(f"{line} {next(r['skipped'] for r in found if 'skipped' in r)}")
            continue
        times = [1000 * r["seconds"] for r in found]
        peak = statistics.median(r["peak_bytes"] for r in found) / 2**20
        spread = f"({min(times):,.1f} to {max(times):,.1f})"
        lines.append(f"{line} {statistics.median(times):>11,.1f} {spread:>19} {peak:>10,.1f}")
    return lines


def benchmark(settings: Settings) -> None:
    for given, known in ((settings.forms, FORMS), (settings.sizes, SIZES)):
        for name in given:
            if name not in known:
                raise ConfigError(f"{name!r} is none of {', '.join(known)}")
    common = {"benchmark": "rnnt_loss", "seed": settings.seed, **machine.machine(PACKAGES)}
    cells = [(size, form, which) for size in settings.sizes for form in settings.forms for which in PASSES]
    results: list[dict[str, Any]] = []
    given_up = set()
    with settings.output.open("a") as file, tqdm(total=len(cells) * settings.repeats) as progress:
        for repeat in range(settings.repeats):
            for size, form, which in cells:
                progress.set_description(f"{size} {form} {which}")
                progress.update()
                if (size, form, which) in given_up:
                    continue
                result = run(form, size, which, settings)
                if "skipped" in result:
                    given_up.add((size, form, which))
                row = {"size": size, "form": form, "pass": which, "repeat": repeat, **result}
                results.append(row)
                row = row | {"shape": dataclasses.asdict(SIZES[size]), **common, "load": machine.load_average()}
                file.write(json.dumps(row) + "\n")
                file.flush()
    print("\n".join(table(results)))
    for size in settings.sizes:
        values = {r["form"]: r["loss"] for r in results if r["size"] == size and "loss" in r}
        if values and max(values.values()) - min(values.values()) > TOLERANCE * min(values.values()):
            raise SystemExit(f"the losses of size {size} differ: {values}")


def measure_or_benchmark(settings: Settings) -> int:
    if settings.measure:
        print(json.dumps(measure(*settings.measure, settings)))
    else:
        benchmark(settings)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, measure_or_benchmark, "benchmark_loss", __doc__, arguments)
