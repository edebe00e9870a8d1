"""Measures how many live streams a device serves: paced speech through `nemojax.serving.engine`, in growing numbers.

    python -m experiments benchmark_streams MODEL MANIFEST... [--lookaheads 1 13] [--plot streams.svg]

Every stream speaks in real time, a packet of one chunk at a time, and begins at a moment of its own. The latency of a
chunk runs from when its packet was due until its text is out, so a load generator that falls behind counts against the
engine too. A number of streams is served if 99 % of chunks take less than a chunk's duration, none is refused, and
every text is, label for label, that of the recording transcribed alone. The largest such number is searched for by
doubling, then by bisection. Results go to a table and a plot; a row for each number that was tried is appended to a
file of JSON lines.

Exit codes: 0, all done; 1, a text differed; 2, the command, the model or the speech is wrong.
"""

import asyncio
import heapq
import itertools
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, Rows, distinct, select
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.errors import AudioError, ConfigError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer
    from nemojax.serving.live_stream import LiveStream
    from nemojax.serving.step_report import StepReport
    from nemojax.text.transcript import Transcript

PERCENTILES = (50, 95, 99)
BACKLOG = 8  # chunks; a stream this far behind is not live
TOGETHER = 256  # packets that are due and are pushed at once


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    min_streams: Annotated[int, tyro.conf.arg(aliases=["--first"])] = 8
    """The number that the search begins with."""
    max_streams: Annotated[int, tyro.conf.arg(aliases=["--most"])] = 16_384
    """The largest number to try, even if more could be served."""
    resolution: float = 0.1
    """The search ends when the largest number served and the smallest not served are this close, relatively."""
    seconds: float = 15.0
    """Of speech in every stream."""
    voices: int = 16
    """Different recordings of that length, made by joining those of the manifests; streams share them."""
    patience_ms: float = 5.0
    """How long a step waits for streams whose chunk has not arrived."""
    dtype: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    """Of the weights."""
    seed: int = 0
    """Of the moments at which streams begin."""
    output: Path = Path("benchmark_streams.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Latency against streams; svg, png or pdf by its name."""

    def check(self) -> None:
        checks.check_manifests(self.manifests)
        checks.at_least(1, self, "min_streams", "voices")
        checks.at_least(self.min_streams, self, "max_streams")
        if self.seconds <= 0 or not 0 < self.resolution < 1:
            raise ConfigError("--seconds must be more than 0, and --resolution between 0 and 1")


def read_voices(settings: Settings, rate_hz: int) -> list[np.ndarray]:
    """Joins recordings and cuts them into pieces of equal length. Raises ConfigError where they are too short."""
    samples, needed = round(settings.seconds * rate_hz), settings.voices
    pieces: list[np.ndarray] = []
    total = 0
    for manifest in settings.manifests:
        for entry in expand_manifest(manifest):
            if total < samples * needed and not isinstance(entry, AudioError):
                pieces.append(read_all(entry))
                total += len(pieces[-1])
    if total < samples:
        raise ConfigError(f"the manifests have {total / rate_hz:.1f} s of speech; {settings.seconds:g} s are needed")
    speech = np.concatenate(pieces)
    return [speech[at : at + samples] for at in range(0, min(total, samples * needed) - samples + 1, samples)]


async def serve(
    recognizer: "Recognizer", lookahead: int, voices: Sequence[np.ndarray], count: int, settings: Settings
) -> tuple[Row, list[tuple[int, ...]]]:
    """Serves `count` streams at once; returns the measurements, and the labels of each stream."""
    from nemojax.serving.engine import Engine

    loop = asyncio.get_running_loop()
    begin_s: dict[LiveStream, float] = {}
    latencies_s: list[float] = []
    chunk_s = recognizer.config.chunk_ms(lookahead) / 1000

    def note(step: "StepReport") -> None:
        now = loop.time()
        latencies_s.extend(
            now - begin_s[stream] - min(stream.chunks_done * chunk_s, settings.seconds) for stream in step.streams
        )

    rng, refused = random.Random(settings.seed), 0
    async with Engine(recognizer, lookahead, (count,), settings.patience_ms / 1000, BACKLOG, on_step=note) as engine:
        streams, start_s = [engine.open() for _ in range(count)], loop.time() + 0.1
        due = []  # a heap: when a packet is due, of which stream, and its first sample
        for index, stream in enumerate(streams):
            begin_s[stream] = start_s + rng.random() * chunk_s
            due.append((begin_s[stream] + chunk_s, index, 0))
        heapq.heapify(due)
        finishing: dict[int, asyncio.Task[Transcript]] = {}  # by the stream's index: they end in another order
        size = engine.chunk_samples
        while due and not refused:
            await asyncio.sleep(max(0.0, due[0][0] - loop.time()))  # lets the engine publish its updates, too
            packets: list[tuple[float, int, int]] = []
            while due and due[0][0] <= loop.time() and len(packets) < TOGETHER:
                packets.append(heapq.heappop(due))
            for length, group in itertools.groupby(packets, lambda packet: min(size, len(voices[0]) - packet[2])):
                members = list(group)
                samples = np.stack([voices[index % len(voices)][at : at + length] for _, index, at in members])
                refused += len(engine.push_nowait([streams[index] for _, index, _ in members], samples))
                for moment_s, index, at in members:
                    if at + length < len(voices[0]):
                        next_s = min(moment_s + chunk_s, begin_s[streams[index]] + settings.seconds)
                        heapq.heappush(due, (next_s, index, at + length))
                    else:
                        finishing[index] = asyncio.create_task(streams[index].finish())
        transcripts = [] if refused else await asyncio.gather(*(finishing[index] for index in range(count)))
        steps = engine.steps
    measured: Row = {"streams": count, "chunks": len(latencies_s), "refused": refused, "steps": steps}
    for p in PERCENTILES:
        measured[f"p{p}_ms"] = round(1000 * float(np.percentile(latencies_s, p)), 3) if latencies_s else None
    return measured, [transcript.tokens for transcript in transcripts]


def search(serves: Callable[[int], bool], first: int, last: int, resolution: float) -> int:
    """Returns the largest number that is served, 0 for none: doubles until one is not served, then bisects."""
    good, bad = 0, last + 1
    number = first
    while number < bad and number > good:
        if serves(number):
            good = number
        else:
            bad = number
        number = min(2 * good, last) if bad > last else (good + bad) // 2 if bad - good > resolution * bad else good
    return good


def measure_lookahead(
    recognizer: "Recognizer",
    lookahead: int,
    voices: Sequence[np.ndarray],
    settings: Settings,
    add: Callable[[Row], object],
) -> None:
    """Searches for the largest number of streams that is served at a look-ahead; adds a row for each number tried."""
    transcripts = recognizer.transcribe(list(voices), lookahead)
    assert isinstance(transcripts, list)
    alone = [transcript.tokens for transcript in transcripts]
    chunk_ms = recognizer.config.chunk_ms(lookahead)

    def serves(count: int) -> bool:
        measured, labels = asyncio.run(serve(recognizer, lookahead, voices, count, settings))
        differing = sum(found != alone[index % len(alone)] for index, found in enumerate(labels))
        in_time = measured["p99_ms"] is not None and measured["p99_ms"] < chunk_ms
        served = in_time and not measured["refused"] and not differing
        add({"lookahead": lookahead, "chunk_ms": chunk_ms, **measured, "differing": differing, "served": served})
        return served

    search(serves, settings.min_streams, settings.max_streams, settings.resolution)


def table(rows: Sequence[Row]) -> str:
    """Shows every number that was tried."""
    heads = [
        "look-ahead",
        "chunk, ms",
        "streams",
        *(f"p{p}, ms" for p in PERCENTILES),
        "refused",
        "differing",
        "served",
    ]
    lines = []
    for row in sorted(rows, key=lambda row: (-row["lookahead"], row["streams"])):
        latencies = ["" if row[f"p{p}_ms"] is None else f"{row[f'p{p}_ms']:.1f}" for p in PERCENTILES]
        counts = [str(row[name]) for name in ("refused", "differing")]
        cells = [str(row["lookahead"]), f"{row['chunk_ms']:.0f}", str(row["streams"]), *latencies, *counts]
        lines.append([*cells, "yes" if row["served"] else "no"])
    return markdown(heads, lines, left=0)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots the 99th percentile of latency, as a share of a chunk, against streams."""
    with drawing(path, 6.4, 4.2) as figure:
        axes = figure.add_subplot()
        measured = [row for row in rows if row["p99_ms"] is not None]
        for lookahead in distinct(measured, "lookahead"):
            found = sorted(select(measured, lookahead=lookahead), key=lambda row: row["streams"])
            shares = [row["p99_ms"] / row["chunk_ms"] for row in found]
            axes.plot([row["streams"] for row in found], shares, marker="o", label=f"R = {lookahead}")
        axes.axhline(1, color="gray", linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("live streams")
        axes.set_ylabel("p99 latency / chunk")
        axes.legend()


def measure(settings: Settings, rows: Rows) -> int:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model, settings.dtype)
    voices = read_voices(settings, recognizer.config.features.sample_rate_hz)
    requested = settings.lookaheads or recognizer.config.encoder.lookaheads
    common: dict[str, Any] = {
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "seconds": settings.seconds,
        "voices": len(voices),
        "patience_ms": settings.patience_ms,
        "device": device(),
    }

    def add(row: Row) -> None:
        rows.add({**common, **row})
        latency = "no latency" if row["p99_ms"] is None else f"p99 {row['p99_ms']:.1f} ms of {row['chunk_ms']:.0f}"
        tqdm.write(f"look-ahead {row['lookahead']}: {row['streams']} streams, {latency}", file=sys.stderr)

    for lookahead in [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(requested)]:
        measure_lookahead(recognizer, lookahead, voices, settings, add)
    return 1 if any(row["differing"] for row in rows.rows) else 0


EXPERIMENT = Experiment("benchmark_streams", Settings, measure, __doc__, table, plot)
main = EXPERIMENT.main
