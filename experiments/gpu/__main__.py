"""Measures the recognizer on a GPU in one call, in stages of growing value.

    python -m experiments.gpu [--stages a,b,c] [--output gpu.jsonl] [--dry]

Each row is in the file as soon as it is known, after those that are there: a run that is killed keeps what it did. The
weights of the large model are random, and their label rate is that of speech. All programs are compiled side by side
first, and then measured one after the other. `--dry` runs every stage small, on a CPU. A machine without a network
needs the wheels that experiments/gpu/wheels.txt names. With JAX_COMPILATION_CACHE_DIR a second run compiles little.

A step that was timed while programs were still being compiled says how many, in `compiling`; its kernels are left out
where those of other programs were among them.

Stages: a, right: a GPU's frames and labels against those of the CPU beside it; b, the step by streams, look-ahead and
variant, and the card's ceilings; c, one stream's delay; d, paced streams through the engine; e, whole recordings in
batches; f, a training step; g, transformers on the same card; h, the largest kernels of some steps.

Exit codes: 0, all stages ran; 1, a row has an error other than too little memory; 2, the command is wrong.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.command import command
from experiments.evaluate import Flag, writable
from experiments.gpu import points, rows, stages
from experiments.machine import device, machine
from experiments.profile_step import read_audio
from nemojax.bundled import SMALL
from nemojax.config import PRESETS, ConfigError, ModelConfig

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy", "jax-cuda13-plugin", "torch", "transformers")
MEMORY_FRACTION = "0.78"  # of the card's, taken at once; the rest is for transformers
SPEECH_S = 120.0


@dataclass(frozen=True)
class Settings:
    stages: str = "a,b,h,c,d,e,g,f"
    """Which to run, in that order, joined by commas; a training step takes longest to compile."""
    preset: str = "0.6b"
    dry: Flag = False
    """Everything small, with a tiny model, on whatever is there."""
    seed: int = 0
    workers: int = 0
    """Programs compiled side by side; by default three quarters of the cores."""
    compile_s: float = 240.0
    """Measuring begins after this time even if programs are still being compiled."""
    limit_s: float = 400.0
    """No stage begins after this time."""
    commit: str | None = None
    """Of the sources, where there is no git checkout."""
    output: Path = Path("gpu.jsonl")
    sizes: points.Sizes = field(default_factory=points.Sizes)

    def check(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset: {self.preset!r} is none of {', '.join(PRESETS)}")
        unknown = [name for name in self.names() if name not in stages.STAGES]
        if unknown or not self.names():
            raise ConfigError(f"--stages: write some of {','.join(stages.STAGES)}, not {self.stages!r}")
        if self.workers < 0 or min(self.compile_s, self.limit_s) <= 0:
            raise ConfigError("--workers must be at least 0, --compile-s and --limit-s greater than 0")

    def names(self) -> list[str]:
        return [name.strip() for name in self.stages.split(",") if name.strip()]


def configurations(settings: Settings) -> tuple[ModelConfig, ModelConfig]:
    """The model that is timed, and the one of its shapes with two layers that is checked."""
    config = PRESETS["tiny" if settings.dry else settings.preset]
    return config, dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=2))


def facts(settings: Settings) -> dict[str, Any]:
    found = machine(PACKAGES)
    del found["time"], found["load"]
    found["commit"] = settings.commit or found["commit"]
    model = {"preset": "tiny" if settings.dry else settings.preset, "dtype": "bfloat16"}
    return {**model, "dry": settings.dry, "seed": settings.seed, "device": device(), "card": rows.card(), **found}


def measured(settings: Settings, written: rows.Rows) -> None:
    config, two_layers = configurations(settings)
    sizes = points.DRY if settings.dry and settings.sizes == points.Sizes() else settings.sizes
    workers = settings.workers or max(1, (os.cpu_count() or 1) * 3 // 4)
    run = stages.Run(config, sizes, "".join(settings.names()), settings.dry, settings.seed, written, workers)
    run.limit_s = settings.limit_s
    try:
        recording = read_audio(SMALL / "example.ogg")
        run.prepare(recording, stages.speech(SPEECH_S, settings.seed, recording), two_layers)
        written.add("setup", "programs", programs=run.programs.pending, workers=workers)
        if "a" in settings.names():
            run.a()
        left = run.programs.wait(settings.compile_s - written.elapsed_s)
        written.add("setup", "compiled", still_compiling=left)
        run.calibrate()
        for name in [name for name in settings.names() if name != "a"]:
            if written.elapsed_s > settings.limit_s:
                written.add(name, "skipped", error=f"{settings.limit_s:.0f} s had passed")
                continue
            begin = written.elapsed_s
            try:
                getattr(run, name)()
            except Exception as error:
                written.failed(name, "stage", error)
            written.add(name, "done", seconds=round(written.elapsed_s - begin, 1))
    finally:
        run.close()


def table(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: the steps of stage b, as far as they were measured."""
    lines = [["point", "p50, ms", "kernels, ms", "floor, ms", "labels a frame"], ["---", *["---:"] * 4]]
    for row in found:
        if row["kind"] == "step" and "p50_ms" in row:
            floor = row.get("floor_bytes_ms", 0.0) + row.get("floor_operations_ms", 0.0)
            cells = [row["p50_ms"], row["kernels_ms"], floor or None, row["labels_per_frame"]]
            lines.append([row["point"], *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def run(settings: Settings) -> int:
    settings.check()
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY_FRACTION)
    with writable(settings.output, "a") as output:
        written = rows.Rows(output, facts(settings))
        measured(settings, written)
    print(table(written.rows))
    wrong = [row for row in written.rows if "error" in row and not row.get("out_of_memory")]
    for row in wrong:
        print(f"{row['stage']}: {json.dumps(row['error'])}", file=sys.stderr)
    return 1 if wrong else 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "gpu", __doc__, arguments)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads that still compile would be waited for
