"""Measures where the time of a streaming step goes: a profiler's trace of steps, and a table of its named scopes.

    python -m experiments profile_step [MODEL] [--lookahead 1] [--dtype int8] [--streams 8 --chunks 5] [--by-kind]

Steps of a real recording run until the left context is full, then without and with the profiler. One stream and one
chunk a step is live streaming; a batch transcription is the same step with many of both. The trace in the output
directory is for xprof, TensorBoard and Perfetto; `step.hlo` beside it is the compiled step. The table's row is appended
to `profile.jsonl` there. experiments/speed/README.md explains how to read them.

Exit codes: 0, all done; 2, the command, the model or the recording is wrong.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.harness import checks
from experiments.harness.experiment import Experiment, Flag
from experiments.harness.machine import device
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from experiments.speed.trace import faster_half
from nemojax.audio.source import read_all
from nemojax.bundled import SMALL
from nemojax.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint; by default the small model that comes with nemojax."""
    audio: Path = SMALL / "example.ogg"
    """A recording, repeated without end; every stream begins at another place of it."""
    lookahead: int | None = None
    """In encoder frames; by default the model's default."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    streams: int = 1
    """Side by side in a step."""
    chunks: int = 1
    """Of each stream in a step; one is live streaming."""
    steps: int = 20
    """Steps with the profiler, and as many without."""
    each_block: Flag = False
    """A line for every block of the encoder, instead of one for all blocks together."""
    by_kind: Flag = False
    """A line for each kind of operation: products, attention, norms, and so on."""
    output: Path = Path("profile")
    """A directory; an earlier trace in it stays."""

    def check(self) -> None:
        checks.at_least(1, self, "streams", "chunks", "steps")
        if self.by_kind and self.each_block:
            raise ConfigError("--by-kind and --each-block ask for different tables; give one of them")


def read_audio(path: Path) -> np.ndarray:
    """Reads a recording. Raises AudioError where it can't be read, ConfigError where it is empty."""
    samples = read_all(path)
    if not len(samples):
        raise ConfigError(f"{path} holds no samples; give --audio a recording of speech")
    return np.asarray(samples, np.float32)


def rows_path(settings: Settings) -> Path:
    """Makes the output directory, and returns the file for rows in it."""
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{settings.output} can't be written ({error.strerror})") from None
    return settings.output / "profile.jsonl"


def table(rows: Sequence[Row]) -> str:
    """Shows milliseconds a step in each scope, and its share of the step."""
    (row,) = rows
    scopes = [*row["scopes_ms"].items(), ("the whole step", row["traced_ms"])]
    lines = [[scope, f"{ms:.3f}", f"{100 * ms / row['traced_ms']:.1f}"] for scope, ms in scopes]
    return (
        f"{markdown(['scope', 'ms a step', '%'], lines)}\n\n"
        f"Means of the faster half of {row['steps']} steps. Without the profiler such a step takes "
        f"{row['plain_ms']:.3f} ms, on {row['cores_used']:.2f} cores. Operations without a name from the compiler, "
        f"{100 * row['inferred_ms'] / row['traced_ms']:.1f} % of the step, count for the scope of the operations that "
        "they are made of or read."
    )


def measure(settings: Settings, rows: Rows) -> None:
    from experiments.speed.profiled_step import ProfiledStep, record
    from nemojax.recognition.recognizer import load

    recognizer, samples = load(settings.model, settings.dtype), read_audio(settings.audio)
    lookahead = recognizer.lookahead(settings.lookahead)
    step = ProfiledStep(recognizer, samples, lookahead, settings.streams, settings.chunks)
    (settings.output / "step.hlo").write_text(step.text)
    step.warm_up()
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    plain_s = statistics.mean(faster_half([step() for _ in range(settings.steps)], lambda seconds: seconds))
    cores = (time.process_time() - begin_cpu_s) / (time.perf_counter() - begin_s)
    by = "kind" if settings.by_kind else "block" if settings.each_block else "scope"
    times = record(step, settings.steps, settings.output, by)
    rows.add(
        {
            "experiment": "profile",  # as in earlier rows
            "model": str(settings.model),
            "parameters": recognizer.parameters,
            "dtype": recognizer.dtype,
            "audio": settings.audio.name,
            "lookahead": lookahead,
            "chunk_ms": recognizer.config.chunk_ms(lookahead),
            **{name: getattr(settings, name) for name in ("streams", "chunks", "steps")},
            "by": by,
            "cores_used": round(cores, 2),
            "plain_ms": round(1000 * plain_s, 4),
            "traced_ms": round(1000 * times.whole_s, 4),
            "inferred_ms": round(1000 * times.inferred_s, 4),
            "scopes_ms": {scope: round(1000 * seconds, 4) for scope, seconds in times.scopes.items()},
            "device": device(),
        }
    )


EXPERIMENT = Experiment("profile_step", Settings, measure, __doc__, table, rows_path=rows_path)
main = EXPERIMENT.main
