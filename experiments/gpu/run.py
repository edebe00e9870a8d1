"""Measures the recognizer on a GPU in one call, in stages.

    python -m experiments gpu [--stages a,b,c] [--output gpu.jsonl] [--dry]

Each row is in the file as soon as it is known, so a run that is killed keeps its rows. The weights of the large model
are random, and their label rate is that of speech. All programs are compiled side by side first, and then measured one
after the other; with JAX_COMPILATION_CACHE_DIR a second run compiles little. `--dry` runs every stage small, on a CPU.
A machine without a network needs the wheels that experiments/gpu/wheels.txt names.

A row's `compiling` is the number of programs that were still being compiled when it was measured: such times are too
long. Where kernels of these programs are in a trace, the row has none.

Stages: a, a GPU's encoder frames and labels against those of the CPU beside it; b, the step by streams, look-ahead and
variant, and the card's ceilings; c, one stream's delay; d, paced streams through the engine; e, whole recordings in
batches; f, a training step; g, transformers on the same card; h, the largest kernels of steps.

Exit codes: 0, all stages ran; 1, a row has an error other than too little memory; 2, the command is wrong.
"""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.gpu import points, programs, report
from experiments.gpu.stage_rows import StageRows
from experiments.harness import checks
from experiments.harness.experiment import PACKAGES, Experiment, Flag
from experiments.harness.machine import device
from experiments.harness.rows import Rows
from nemojax.bundled import SMALL
from nemojax.config import PRESETS, ModelConfig
from nemojax.errors import ConfigError

STAGES = "abcdefgh"
MEMORY_FRACTION = "0.78"  # of the card's, reserved at the start; the rest is for transformers
SPEECH_S = 120.0


@dataclass(frozen=True)
class Settings:
    stages: str = "a,b,h,c,d,e,g,f"
    """Which to run, in that order, separated by commas; a training step takes longest to compile."""
    preset: str = "0.6b"
    """Name of a model's settings."""
    dry: Flag = False
    """Small sizes and a tiny model, on any device."""
    seed: int = 0
    """Of weights, noise and the moments at which streams begin."""
    workers: int = 0
    """Programs compiled side by side; 0 stands for three quarters of the cores."""
    compile_s: float = 240.0
    """Measuring begins after this time even if programs are still being compiled."""
    limit_s: float = 400.0
    """No stage begins after this time."""
    commit: str | None = None
    """Of the sources, where there is no git checkout."""
    output: Path = Path("gpu.jsonl")
    """Rows are appended to this file."""
    sizes: points.Sizes = field(default_factory=points.Sizes)
    """Of the stages; --dry has its own unless they are changed."""

    def check(self) -> None:
        checks.one_of(PRESETS, self, "preset")
        checks.at_least(0, self, "workers")
        if not self.names() or not set(self.names()) <= set(STAGES):
            raise ConfigError(f"--stages: write some of {','.join(STAGES)}, not {self.stages!r}")
        if min(self.compile_s, self.limit_s) <= 0:
            raise ConfigError("--compile-s and --limit-s must be greater than 0")
        config = self.config()
        sizes = self.used_sizes()
        for text in (*sizes.calibration, *sizes.points, *sizes.engine, *sizes.tables):
            config.chunk_frames(points.parse_point(text).lookahead)

    def names(self) -> list[str]:
        """Returns the letters of the stages in their order."""
        return [name.strip() for name in self.stages.split(",") if name.strip()]

    def config(self) -> ModelConfig:
        """Returns the settings of the model that is timed."""
        return PRESETS["tiny" if self.dry else self.preset]

    def used_sizes(self) -> points.Sizes:
        return points.DRY if self.dry and self.sizes == points.Sizes() else self.sizes


def facts(settings: Settings) -> dict[str, Any]:
    """Returns the values that all rows have."""
    values = {"preset": "tiny" if settings.dry else settings.preset, "dtype": "bfloat16", "dry": settings.dry}
    return {**values, "device": device(), **({"commit": settings.commit} if settings.commit else {})}


def measure(settings: Settings, rows: Rows) -> None:
    # before jax is imported
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY_FRACTION)
    from experiments.gpu import stages
    from experiments.speed.profile import read_audio

    staged = StageRows(rows, facts(settings))
    config, names = settings.config(), settings.names()
    two_layers = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, layers=2))
    workers = settings.workers or max(1, (os.cpu_count() or 1) * 3 // 4)
    run = stages.Run(
        config, settings.used_sizes(), "".join(names), settings.dry, settings.seed, staged, workers, settings.limit_s
    )
    try:
        recording = read_audio(SMALL / "example.ogg")
        rate_hz = config.features.sample_rate_hz
        run.prepare(recording, stages.repeated_speech(recording, SPEECH_S, rate_hz, settings.seed), two_layers)
        staged.add("setup", "programs", programs=run.programs.pending, workers=workers)
        if "a" in names:
            run.a()
        pending = run.programs.wait(settings.compile_s - staged.elapsed_s)
        staged.add("setup", "compiled", still_compiling=pending)
        run.calibrate()
        for name in [name for name in names if name != "a"]:
            if staged.elapsed_s > settings.limit_s:
                staged.add(name, "skipped", error=f"{settings.limit_s:.0f} s had passed")
                continue
            begin_s = staged.elapsed_s
            try:
                getattr(run, name)()
            except Exception as error:
                staged.failed(name, "stage", error)
            staged.add(name, "done", seconds=round(staged.elapsed_s - begin_s, 1))
    finally:
        run.close()


EXPERIMENT = Experiment(
    "gpu",
    Settings,
    measure,
    __doc__,
    report.table,
    packages=(*PACKAGES, "jax-cuda13-plugin", "torch", "transformers"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Ends the process at once if programs are still being compiled when it is done."""
    code = EXPERIMENT.main(arguments)
    if programs.still_compiling():
        programs.exit_at_once(code)
    return code
