"""Measures what a search costs: the time of the whole system with a beam, beside greedy search.

    python -m experiments search_cost [MODEL] [--widths 1 2 4 8] [--streams 1 8 32] [--plot search_cost.svg]

Timed are recordings (`transcribe`) and live streams side by side, from samples to text, with everything compiled. The
searches take turns, so that the machine's other load falls on all alike, and each repeat gives a ratio to the greedy
search beside it. A table goes to standard output; a row for each measurement is appended to a file of JSON lines.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, Rows, select
from experiments.speed.side_by_side import ratios, serve
from nemojax.bundled import SMALL

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

GREEDY = 0  # the width that stands for greedy search


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    audio: Path = SMALL / "example.ogg"
    """A recording of speech, for the cost depends on its labels."""
    widths: tuple[int, ...] = (1, 2, 4, 8)
    """Of beams."""
    streams: tuple[int, ...] = (1, 8)
    """Live streams side by side."""
    lookaheads: tuple[int, ...] = (13, 1)
    """Of live streams; of recordings, the first."""
    repeats: int = 7
    """Of every measurement."""
    output: Path = Path("search_cost.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Time relative to greedy search over the width; svg, png or pdf by its name."""

    def check(self) -> None:
        checks.at_least(1, self, "repeats", "widths", "streams")
        checks.at_least(0, self, "lookaheads")


def transcribe(recognizer: "Recognizer", lookahead: int, samples: np.ndarray) -> None:
    recognizer.transcribe(samples, lookahead)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.audio.source import open_audio
    from nemojax.decoding.beam import Beam
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model, settings.dtype)
    samples = open_audio(settings.audio).read(10**8)
    searches = {GREEDY: recognizer} | {width: recognizer.with_search(Beam(width)) for width in settings.widths}
    whats: list[tuple[str, int, int, Callable[[Recognizer], None]]] = [
        ("recording", settings.lookaheads[0], 1, lambda one: transcribe(one, settings.lookaheads[0], samples))
    ]
    for lookahead in settings.lookaheads:
        for streams in settings.streams:
            served = partial(serve, lookahead=lookahead, streams=streams, samples=samples)
            whats.append(("streams", lookahead, streams, served))
    for what, lookahead, streams, run in tqdm(whats, disable=None, leave=False):
        seconds: dict[int, list[float]] = {width: [] for width in searches}
        for repeat in range(settings.repeats + 1):  # the first one compiles
            for width, one in searches.items():
                start = time.perf_counter()
                run(one)
                if repeat:
                    seconds[width].append(round(time.perf_counter() - start, 6))
        for width, found in seconds.items():
            rows.add(
                {
                    "model": str(settings.model.name),
                    "dtype": settings.dtype,
                    "device": device(),
                    "what": what,
                    "lookahead": lookahead,
                    "streams": streams,
                    "width": width,
                    "audio_s": round(len(samples) / recognizer.config.features.sample_rate_hz, 3),
                    "seconds": found,
                }
            )


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        name = "greedy" if row["width"] == GREEDY else f"beam of {row['width']}"
        times = ratios(rows, row, width=GREEDY)
        cells = [f"{row['model']} {row['dtype']}", row["what"], f"{row['lookahead']}", f"{row['streams']}", name]
        cells += [f"{1000 * median(row['seconds']):.1f}", f"{median(times):.2f}"]
        lines.append([*cells, f"{min(times):.2f} to {max(times):.2f}"])
    return markdown(["model", "what", "look-ahead", "streams", "search", "ms", "of greedy", "range"], lines, left=2)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots the time relative to greedy search over the width, a line for each measurement."""
    with drawing(path, 6, 4) as figure:
        axes = figure.subplots()
        for what, lookahead, streams in dict.fromkeys((r["what"], r["lookahead"], r["streams"]) for r in rows):
            found = [r for r in select(rows, what=what, lookahead=lookahead, streams=streams) if r["width"] != GREEDY]
            found.sort(key=lambda row: row["width"])
            label = "a recording" if what == "recording" else f"{streams} streams, look-ahead {lookahead}"
            axes.plot([r["width"] for r in found], [median(ratios(rows, r)) for r in found], marker="o", label=label)
        axes.set_xlabel("width of the beam")
        axes.set_ylabel("time relative to greedy search")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()


EXPERIMENT = Experiment("search_cost", Settings, measure, __doc__, table, plot)
main = EXPERIMENT.main
