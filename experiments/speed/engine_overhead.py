"""How many chunks a second the engine's own work allows, with a device that costs nothing: threads, samples and text.

    python -m experiments engine_overhead [MODEL] [--lookaheads 0 1 6 13] [--streams 2400 5600 10000 10000]

All streams push a chunk as fast as they can, again and again; a step's labels are there at once, made up at the rate of
speech. Live streams bring a chunk each in its duration: what the engine can do, over what they need, must be more than
one; the rest is left for the device's calls and for the program around it. A table goes to standard output, a row for
each look-ahead to JSON lines, after those that are there.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness.command import command
from experiments.harness.machine import machine
from experiments.harness.output import markdown, writable
from experiments.latency.report import spread
from nemojax.bundled import SMALL
from nemojax.decoding.state import Emission
from nemojax.errors import ConfigError
from nemojax.recognition.recognizer import Recognizer, load
from nemojax.serving.engine import Engine
from nemojax.serving.live_stream import LiveStream

PACKAGES = ("nemojax", "jax", "numpy", "sentencepiece")
BACKLOG = 4
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """Whose tokenizer and chunks are used."""
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    streams: tuple[int, ...] = (2400, 5600, 10_000, 10_000)
    """At each look-ahead."""
    chunks: int = 12
    """Of each stream, in a repeat."""
    repeats: int = 3
    labels_per_frame: float = 0.3
    seed: int = 0
    output: Path = Path("engine_overhead.jsonl")

    def check(self) -> None:
        if len(self.lookaheads) != len(self.streams) or min(self.streams, default=0) < 1:
            raise ConfigError("--streams takes a number for each of --lookaheads, at least 1")
        if min(self.chunks, self.repeats) < 1 or not 0 <= self.labels_per_frame <= 10:
            raise ConfigError("--chunks and --repeats must be at least 1, --labels-per-frame from 0 to 10")


def made_up(recognizer: Recognizer, lookahead: int, streams: int, settings: Settings) -> Emission:
    """A step's labels: as many as speech has, at random."""
    rng, frames = np.random.default_rng(settings.seed), lookahead + 1
    shape = (streams, frames * recognizer.config.max_symbols_per_frame)
    length = np.minimum(rng.poisson(settings.labels_per_frame * frames, streams), shape[1])
    labels = rng.integers(0, recognizer.config.blank, shape, np.int32)
    return Emission(labels, np.zeros(shape, np.int32), np.zeros(shape, np.float32), length.astype(np.int32))


class Idle(Engine):
    """An engine whose device has done each step before it is asked to."""

    def __init__(self, recognizer: Recognizer, lookahead: int, emission: Emission, **settings: Any):
        streams = len(emission.length)
        super().__init__(recognizer, lookahead, (1,), backlog=BACKLOG, **settings)
        self.sizes, self._free, self._emission = (streams,), list(range(streams)), emission
        self._state = self._state._replace(position=np.zeros(streams, np.int32))

    def _compile(self) -> None:
        self._allocate()

    def _advance(self, *arrays: np.ndarray) -> Emission:
        return self._emission


async def serve(recognizer: Recognizer, lookahead: int, streams: int, settings: Settings) -> list[float]:
    """Chunks a second, in each repeat, after one that only warms up."""
    heard = 0

    def note(those: Sequence[LiveStream]) -> None:
        nonlocal heard
        heard += len(those)

    rates = []
    emission = made_up(recognizer, lookahead, streams, settings)
    async with Idle(recognizer, lookahead, emission, on_step=note) as engine:
        chunk = np.random.default_rng(settings.seed).normal(0, 0.05, engine.chunk_samples).astype(np.float32)
        opened = [engine.open() for _ in range(streams)]
        for repeat in range(settings.repeats + 1):
            heard, start = 0, time.perf_counter()
            for _ in range(settings.chunks):
                for number, stream in enumerate(opened):
                    await stream.push(chunk)
                    if number % 64 == 0:
                        await asyncio.sleep(0)  # as a program would that waits for its streams' packets
            while heard < streams * settings.chunks:
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
        cells += [spread(row["chunks_per_second"], "{:,.0f}")]
        lines.append([*cells, spread([rate / row["needed"] for rate in row["chunks_per_second"]], "{:.1f}")])
    return markdown(["chunk", "streams", "chunks a second needed", "can be had", "times"], lines)


def run(settings: Settings) -> int:
    settings.check()
    recognizer = load(settings.model)
    rows: list[Row] = []
    pairs = list(zip(settings.lookaheads, settings.streams, strict=True))
    with writable(settings.output, "a") as output:
        for lookahead, streams in tqdm(pairs, disable=None, leave=False):
            rates = asyncio.run(serve(recognizer, recognizer.lookahead(lookahead), streams, settings))
            chunk_ms = recognizer.config.chunk_ms(lookahead)
            row = {"lookahead": lookahead, "chunk_ms": chunk_ms, "streams": streams}
            row |= {"needed": 1000 * streams / chunk_ms, "chunks_per_second": [round(rate, 1) for rate in rates]}
            same = {"chunks": settings.chunks, "labels_per_frame": settings.labels_per_frame, "seed": settings.seed}
            rows.append({"experiment": "engine_overhead", **same, **row, **machine(PACKAGES)})
            output.write(json.dumps(rows[-1]) + "\n")
            output.flush()
    print(table(rows))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "engine_overhead", __doc__, arguments)
