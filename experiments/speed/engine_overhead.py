"""Measures how many chunks a second the engine's own work allows, with a device that costs no time.

    python -m experiments engine_overhead [MODEL] [--lookaheads 0 1 6 13] [--streams 8000 10000 14000 14000]

All streams push chunks as fast as they can, and all text is read. A step's labels are random, at the rate of
speech, and ready at once. A live stream brings one chunk in each chunk's duration, so that an engine serves live
streams only if it reaches more chunks a second than they need; the difference is left for the device's calls and for
the program around the engine. The floor is what a program without an engine reaches in the same event loop: a call for
each chunk, and one copy of its samples. A table goes to standard output; a row for each look-ahead is appended to a
file of JSON lines.
"""

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
from nemojax.errors import ConfigError, EngineError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer
    from nemojax.serving.engine import Engine
    from nemojax.serving.live_stream import LiveStream
    from nemojax.serving.step_report import StepReport

TURN = 64  # streams that are pushed before others get their turn


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint, for its tokenizer and its chunks."""
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    """In encoder frames."""
    streams: tuple[int, ...] = (8000, 10_000, 14_000, 14_000)
    """At each look-ahead."""
    together: bool = True
    """Push a packet of all streams at once, as a front process hands them over; else one by one."""
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


@dataclass
class Rates:
    """Chunks a second of each repeat, and the processor time of all threads for a chunk, in microseconds."""

    wall: list[float]
    cpu_us: list[float]


async def serve(recognizer: "Recognizer", lookahead: int, streams: int, settings: Settings) -> Rates:
    """Serves repeats as fast as it can, after one that only warms up."""
    from experiments.speed.zero_cost_engine import synthetic_emission, zero_cost_engine

    done_chunks = 0

    def count(step: "StepReport") -> None:
        nonlocal done_chunks
        done_chunks += len(step.streams)
        for stream in step.changed:
            stream.read_nowait()

    rates, total = Rates([], []), streams * settings.chunks
    emission = synthetic_emission(recognizer, lookahead, streams, settings.labels_per_frame, settings.seed)
    async with zero_cost_engine(recognizer, lookahead, emission, on_step=count) as engine:
        chunk = np.random.default_rng(settings.seed).normal(0, 0.05, engine.chunk_samples).astype(np.float32)
        opened = [engine.open() for _ in range(streams)]
        for repeat in range(settings.repeats + 1):
            done_chunks, start, start_cpu = 0, time.perf_counter(), time.process_time()
            for _ in range(settings.chunks):
                if settings.together:
                    await push_together(engine, opened, chunk)
                else:
                    await push_each(opened, chunk)
            while done_chunks < total:
                await asyncio.sleep(0.001)
            if repeat:
                rates.wall.append(total / (time.perf_counter() - start))
                rates.cpu_us.append(1e6 * (time.process_time() - start_cpu) / total)
        for stream in opened:
            stream.close()
    return rates


async def push_each(streams: Sequence["LiveStream"], chunk: np.ndarray) -> None:
    for number, stream in enumerate(streams):
        await stream.push(chunk)
        if number % TURN == 0:
            await asyncio.sleep(0)  # as a program does that waits for its streams' packets


async def push_together(engine: "Engine", streams: Sequence["LiveStream"], chunk: np.ndarray) -> None:
    packets = np.tile(chunk, (TURN, 1))
    for begin in range(0, len(streams), TURN):
        waiting = streams[begin : begin + TURN]
        while waiting := engine.push_nowait(waiting, packets[: len(waiting)]):
            if waiting[0].ended:
                raise EngineError("the engine has ended its streams")
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


async def floor(samples: int, streams: int, settings: Settings) -> list[float]:
    """Returns the chunks a second that a call of each chunk and one copy of its samples allow, for each repeat."""
    inputs = np.zeros((streams, samples), np.float32)
    chunk = np.random.default_rng(settings.seed).normal(0, 0.05, samples).astype(np.float32)

    async def push(row: int) -> None:
        inputs[row] = chunk

    rates = []
    for repeat in range(settings.repeats + 1):
        start = time.perf_counter()
        for _ in range(settings.chunks):
            for row in range(streams):
                await push(row)
        if repeat:
            rates.append(streams * settings.chunks / (time.perf_counter() - start))
    return rates


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cells = [f"{row['chunk_ms']:.0f} ms", f"{row['streams']:,}", f"{row['needed']:,.0f}"]
        cells += [median_and_range(row["chunks_per_second"], "{:,.0f}")]
        cells += [median_and_range([rate / row["needed"] for rate in row["chunks_per_second"]])]
        cells += [median_and_range(row["cpu_us_per_chunk"]), f"{np.median(row['floor_per_second']):,.0f}"]
        lines.append(cells)
    heads = [
        "chunk",
        "streams",
        "chunks a second needed",
        "reached",
        "times",
        "CPU µs a chunk",
        "floor, chunks a second",
    ]
    return markdown(heads, lines)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    pairs = list(zip(settings.lookaheads, settings.streams, strict=True))
    for lookahead, streams in tqdm(pairs, disable=None, leave=False):
        lookahead = recognizer.lookahead(lookahead)
        floors = asyncio.run(floor(recognizer.config.chunk_samples(lookahead), streams, settings))
        rates = asyncio.run(serve(recognizer, lookahead, streams, settings))
        chunk_ms = recognizer.config.chunk_ms(lookahead)
        rows.add(
            {
                "together": settings.together,
                "chunks": settings.chunks,
                "labels_per_frame": settings.labels_per_frame,
                "lookahead": lookahead,
                "chunk_ms": chunk_ms,
                "streams": streams,
                "needed": 1000 * streams / chunk_ms,
                "chunks_per_second": [round(rate, 1) for rate in rates.wall],
                "cpu_us_per_chunk": [round(cpu_us, 2) for cpu_us in rates.cpu_us],
                "floor_per_second": [round(rate, 1) for rate in floors],
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
