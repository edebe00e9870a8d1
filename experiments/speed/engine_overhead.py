"""Measures how many chunks a second the engine's own work allows: threads, samples and text, with a device that costs no time.

    python -m experiments engine_overhead [MODEL] [--lookaheads 0 1 6 13] [--streams 2400 5600 10000 10000]

All streams push chunks as fast as they can. A step's labels are random, at the rate of speech, and ready at once. A
live stream brings one chunk in each chunk's duration, so the chunks a second that are reached must be more than those
needed; the difference is left for the device's calls and for the program around the engine. A table goes to standard
output; a row for each look-ahead is appended to a file of JSON lines.
"""  # noqa: E501

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown, median_and_range
from experiments.harness.rows import Row, Rows
from nemojax.bundled import SMALL
from nemojax.errors import ConfigError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer
    from nemojax.serving.step_report import StepReport


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint, for its tokenizer and its chunks."""
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    """In encoder frames."""
    streams: tuple[int, ...] = (2400, 5600, 10_000, 10_000)
    """At each look-ahead."""
    chunks: int = 12
    """Of each stream, in a repeat."""
    repeats: int = 3
    """At each look-ahead, after one that only warms up."""
    labels_per_frame: float = 0.3
    """Mean number of labels in an encoder frame."""
    seed: int = 0
    """Of samples and labels."""
    output: Path = Path("engine_overhead.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        check_pairs(self.lookaheads, self.streams)
        checks.at_least(1, self, "chunks", "repeats")
        if not 0 <= self.labels_per_frame <= 10:
            raise ConfigError(f"--labels-per-frame must be from 0 to 10, not {self.labels_per_frame}")


def check_pairs(lookaheads: Sequence[int], streams: Sequence[int]) -> None:
    if len(lookaheads) != len(streams) or min(streams, default=0) < 1:
        raise ConfigError("--streams takes a number for each of --lookaheads, at least 1")


async def serve(recognizer: "Recognizer", lookahead: int, streams: int, settings: Settings) -> list[float]:
    """Returns the chunks a second of each repeat, after one that only warms up."""
    from experiments.speed.zero_cost_engine import synthetic_emission, zero_cost_engine

    done_chunks = 0

    def count(step: "StepReport") -> None:
        nonlocal done_chunks
        done_chunks += len(step.streams)

    rates = []
    emission = synthetic_emission(recognizer, lookahead, streams, settings.labels_per_frame, settings.seed)
    async with zero_cost_engine(recognizer, lookahead, emission, on_step=count) as engine:
        chunk = np.random.default_rng(settings.seed).normal(0, 0.05, engine.chunk_samples).astype(np.float32)
        opened = [engine.open() for _ in range(streams)]
        for repeat in range(settings.repeats + 1):
            done_chunks, start = 0, time.perf_counter()
            for _ in range(settings.chunks):
                for number, stream in enumerate(opened):
                    await stream.push(chunk)
                    if number % 64 == 0:
                        await asyncio.sleep(0)  # as a program does that waits for its streams' packets
            while done_chunks < streams * settings.chunks:
                await asyncio.sleep(0.001)
            if repeat:
                rates.append(streams * settings.chunks / (time.perf_counter() - start))
        for stream in opened:
            stream.close()
    return rates


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cells = [f"{row['chunk_ms']:.0f} ms", f"{row['streams']:,}", f"{row['needed']:,.0f}"]
        cells += [median_and_range(row["chunks_per_second"], "{:,.0f}")]
        lines.append([*cells, median_and_range([rate / row["needed"] for rate in row["chunks_per_second"]])])
    return markdown(["chunk", "streams", "chunks a second needed", "reached", "times"], lines)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    pairs = list(zip(settings.lookaheads, settings.streams, strict=True))
    for lookahead, streams in tqdm(pairs, disable=None, leave=False):
        rates = asyncio.run(serve(recognizer, recognizer.lookahead(lookahead), streams, settings))
        chunk_ms = recognizer.config.chunk_ms(lookahead)
        rows.add(
            {
                "chunks": settings.chunks,
                "labels_per_frame": settings.labels_per_frame,
                "lookahead": lookahead,
                "chunk_ms": chunk_ms,
                "streams": streams,
                "needed": 1000 * streams / chunk_ms,
                "chunks_per_second": [round(rate, 1) for rate in rates],
            }
        )


EXPERIMENT = Experiment(
    "engine_overhead",
    Settings,
    measure,
    __doc__,
    table,
    packages=("nemojax", "jax", "numpy", "sentencepiece"),
)
main = EXPERIMENT.main
