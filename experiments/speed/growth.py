"""Measures how the cost of a step grows: with threads, streams, left context, chunk, and a recording's length.

    python -m experiments cost_growth [--preset 0.6b] [--dtype bfloat16] [--plot growth.svg]

The weights are fresh, of a preset's shapes, with a bias that makes every label blank, since the number of labels of
fresh weights is arbitrary. Timed is a compiled and warm step of live streams; for streams in an engine, a chunk of all
of them, from samples to text; and for lengths a whole transcription. Each number of threads has a process of its own,
on that many cores, and is left out where the machine has fewer.
The settings take turns, so that the machine's other load falls on all alike. One thing grows at a time; the others stay
at --streams, --lookahead and the preset's left context. A table goes to standard output; a row for each measurement is
appended to a file of JSON lines.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple

from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, Rows, select
from experiments.speed import growth_threads
from nemojax.config import PRESETS, ModelConfig

if TYPE_CHECKING:  # jax is imported only where a model runs
    from experiments.speed.growth_bench import Bench

AXES = {
    "streams": "live streams in a step",
    "engine_streams": "live streams in an engine",
    "threads": "threads",
    "left_context_frames": "left context in frames",
    "lookahead": "look-ahead in frames",
    "seconds": "length of a recording in s",
}
LOGARITHMIC = ("streams", "engine_streams", "seconds")  # of a wide range
LONG_S = 30.0  # a measurement that takes longer is not repeated


@dataclass(frozen=True)
class Settings:
    preset: str = "0.6b"
    """Name of a model's settings."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    streams: int = 1
    """Live streams in a step, where another thing grows."""
    lookahead: int = 6
    """In encoder frames, where another thing grows."""
    grow_streams: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    grow_engine_streams: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    grow_threads: tuple[int, ...] = (1, 2, 4, 8)
    grow_left_context_frames: tuple[int, ...] = (14, 28, 70, 140, 280)
    grow_lookahead: tuple[int, ...] = (0, 1, 4, 6, 13, 34)
    grow_seconds: tuple[float, ...] = (1.0, 5.0, 20.0, 80.0, 300.0, 3600.0)
    repeats: int = 5
    """Of every measurement."""
    steps: int = 5
    """In each repeat, one after the other."""
    seed: int = 0
    """Of weights and samples."""
    output: Path = Path("cost_growth.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Cost against each thing that grows; svg, png or pdf by its name."""

    def check(self) -> None:
        checks.one_of(PRESETS, self, "preset")
        checks.at_least(1, self, "repeats", "steps", "streams", "grow_streams", "grow_engine_streams", "grow_threads")
        for lookahead in (self.lookahead, *self.grow_lookahead):
            PRESETS[self.preset].chunk_frames(lookahead)
        for frames in self.grow_left_context_frames:
            self.config(frames).chunk_frames(self.lookahead)

    def config(self, left_context_frames: int | None = None) -> ModelConfig:
        """Returns the preset's settings, with another left context if given."""
        config = PRESETS[self.preset]
        if left_context_frames is None:
            return config
        encoder = dataclasses.replace(
            config.encoder, left_context_frames=left_context_frames, lookaheads=(self.lookahead,)
        )
        return dataclasses.replace(config, encoder=encoder)


class Point(NamedTuple):
    """A measurement to make; `prepare` compiles it and returns the function that measures seconds."""

    grows: str
    value: float
    prepare: Callable[[], Callable[[], float]]


def points(settings: Settings, bench: "Bench", processes: ExitStack) -> list[Point]:
    """Returns what is measured; processes that it needs end with `processes`."""
    config, streams, lookahead = settings.config(), settings.streams, settings.lookahead
    found = [Point("streams", n, partial(bench.step, n, config, lookahead)) for n in settings.grow_streams]
    found += [Point("engine_streams", n, partial(bench.engine, n, lookahead)) for n in settings.grow_engine_streams]
    cores = len(os.sched_getaffinity(0))
    for threads in (n for n in settings.grow_threads if n <= cores):
        arguments = processes, threads, streams, config, lookahead, bench.arguments
        found.append(Point("threads", threads, partial(growth_threads.step, *arguments)))
    for frames in settings.grow_left_context_frames:
        prepare = partial(bench.step, streams, settings.config(frames), lookahead)
        found.append(Point("left_context_frames", frames, prepare))
    found += [Point("lookahead", n, partial(bench.step, streams, config, n)) for n in settings.grow_lookahead]
    found += [Point("seconds", s, partial(bench.transcription, s, lookahead)) for s in settings.grow_seconds]
    return found


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        ms = [1000 * seconds for seconds in row["seconds"]]
        units = row["value"] + 1 if row["grows"] == "lookahead" else row["value"]
        cells = [AXES[row["grows"]], f"{row['value']:g}", f"{median(ms):.1f}", f"{min(ms):.1f} to {max(ms):.1f}"]
        lines.append([*cells, f"{median(ms) / units:.2f}"])
    return markdown(["what grows", "to", "ms: median", "range", "per unit"], lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots a panel for each thing that grows: medians, and the range over the repeats."""
    with drawing(path, 11, 6) as figure:
        panels = figure.subplots(2, 3, squeeze=False).flat
        for name, axes in zip([name for name in AXES if select(rows, grows=name)], panels, strict=False):
            found = sorted(select(rows, grows=name), key=lambda row: row["value"])
            middle = [1000 * median(row["seconds"]) for row in found]
            bars = [
                [m - 1000 * min(row["seconds"]) for m, row in zip(middle, found, strict=True)],
                [1000 * max(row["seconds"]) - m for m, row in zip(middle, found, strict=True)],
            ]
            axes.errorbar([row["value"] for row in found], middle, bars, marker="o", capsize=3)
            axes.set_xlabel(AXES[name])
            axes.set_ylabel("ms")
            if name in LOGARITHMIC:
                axes.set_xscale("log")
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
                axes.set_xlim(left=0)
            axes.grid(alpha=0.3)
        for axes in list(panels):
            axes.set_visible(False)


def measure(settings: Settings, rows: Rows) -> None:
    from experiments.speed.growth_bench import Bench

    bench = Bench(settings.config(), settings.dtype, settings.steps, settings.seed)
    with ExitStack() as processes:
        wanted = points(settings, bench, processes)
        ready = [point.prepare() for point in tqdm(wanted, desc="compiling", disable=None, leave=False)]
        seconds: list[list[float]] = [[] for _ in ready]
        for _ in tqdm(range(settings.repeats), desc="repeats", disable=None, leave=False):
            for found, run in zip(seconds, ready, strict=True):
                if not found or found[0] < LONG_S:
                    found.append(round(run(), 6))
    common = {name: getattr(settings, name) for name in ("preset", "dtype", "streams", "lookahead", "steps")}
    for point, found in zip(wanted, seconds, strict=True):
        rows.add({**common, "device": device(), "grows": point.grows, "value": point.value, "seconds": found})


EXPERIMENT = Experiment("cost_growth", Settings, measure, __doc__, table, plot)
main = EXPERIMENT.main
