"""How many live streams one device serves: paced speech through `nemojax.serving.engine`, more and more of it.

    python -m experiments benchmark_streams MODEL MANIFEST... [--lookaheads 1 13] [--plot streams.svg]

Every stream speaks in real time, a packet of one chunk at a time, beginning at a moment of its own. The latency of a
chunk runs from when its packet was due, so a generator that falls behind counts against the engine too, until its
text is out. A number of streams is served if 99 % of chunks take less than a chunk's duration, none is refused, and
every text is, label for label, that of the recording transcribed alone. The largest such number is sought by doubling,
then by bisection. Results go to a table, to JSON lines, after those that are there, and to a plot.

Exit codes: 0, all is done; 1, a text differed; 2, the command, the model or the speech is wrong.
"""

import asyncio
import heapq
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import plot_format, writable
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.errors import AudioError, Backlog, ConfigError
from nemojax.recognition.recognizer import Recognizer, load
from nemojax.serving.engine import Engine
from nemojax.serving.live_stream import LiveStream
from nemojax.text.transcript import Transcript

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy")
PERCENTILES = (50, 95, 99)
BACKLOG = 8  # chunks; streams so far behind are not live


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    first: int = 8
    """Streams to begin with."""
    most: int = 16_384
    """Streams to end with, even if more could be served."""
    resolution: float = 0.1
    """The search ends when the largest number served and the smallest not served are this close, relatively."""
    seconds: float = 15.0
    """Of speech in every stream."""
    voices: int = 16
    """Different recordings of that length, made by joining those of the manifests; streams share them."""
    patience_ms: float = 5.0
    """How long a step waits for streams whose chunk is not there yet."""
    dtype: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    seed: int = 0
    output: Path = Path("benchmark_streams.jsonl")
    plot: Path | None = None
    """Latency against streams; svg, png or pdf by its name."""

    def check(self) -> None:
        if not self.manifests:
            raise ConfigError("name at least one manifest")
        if not 1 <= self.first <= self.most or self.voices < 1 or self.seconds <= 0 or not 0 < self.resolution < 1:
            raise ConfigError("--first, --most, --voices, --seconds or --resolution is not a number that can be tried")
        if self.plot is not None:
            plot_format(self.plot)


def read_voices(settings: Settings, rate_hz: int) -> list[np.ndarray]:
    """Recordings one after the other, cut into pieces of equal length. Raises ConfigError where there is too little."""
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
    recognizer: Recognizer, lookahead: int, voices: Sequence[np.ndarray], count: int, settings: Settings
) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    """`count` streams at once: what was measured, and the labels of each stream."""
    loop, begun_s = asyncio.get_running_loop(), {}
    latencies_s: list[float] = []
    chunk_s = recognizer.config.chunk_ms(lookahead) / 1000

    def note(streams: Sequence[LiveStream]) -> None:
        now = loop.time()
        latencies_s.extend(
            now - begun_s[stream] - min(stream.chunks_heard * chunk_s, settings.seconds) for stream in streams
        )

    rng, refused = random.Random(settings.seed), 0
    async with Engine(recognizer, lookahead, (count,), settings.patience_ms / 1000, BACKLOG, on_step=note) as engine:
        streams, start_s = [engine.open() for _ in range(count)], loop.time() + 0.1
        due = []  # a heap: when a packet is, whose, and where it begins
        for index, stream in enumerate(streams):
            begun_s[stream] = start_s + rng.random() * chunk_s
            due.append((begun_s[stream] + chunk_s, index, 0))
        heapq.heapify(due)
        finishing: dict[int, asyncio.Task[Transcript]] = {}  # by the stream's index: they end in another order
        while due:
            moment_s, index, at = due[0]
            if (wait_s := moment_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
                continue
            stream, voice, size = streams[index], voices[index % len(voices)], engine.chunk_samples
            try:
                stream.push_nowait(voice[at : at + size])
            except Backlog:
                refused += 1
                break  # these streams are not live any more
            if at + size < len(voice):
                heapq.heapreplace(
                    due, (min(moment_s + chunk_s, begun_s[streams[index]] + settings.seconds), index, at + size)
                )
            else:
                heapq.heappop(due)
                finishing[index] = asyncio.create_task(stream.finish())
            if not len(due) % 64:
                await asyncio.sleep(0)  # what has been heard is told meanwhile
        transcripts = [] if refused else await asyncio.gather(*(finishing[index] for index in range(count)))
        steps = engine.steps
    percentiles = np.percentile(latencies_s, PERCENTILES) if latencies_s else [np.inf] * len(PERCENTILES)
    measured = {
        "streams": count,
        "chunks": len(latencies_s),
        "refused": refused,
        "steps": steps,
        **{f"p{p}_ms": round(1000 * float(value), 3) for p, value in zip(PERCENTILES, percentiles, strict=True)},
    }
    return measured, [transcript.tokens for transcript in transcripts]


def search(serves: Callable[[int], bool], first: int, most: int, resolution: float) -> int:
    """The largest number that is served, 0 for none: doubled until one is not, then bisected."""
    good, bad = 0, most + 1
    number = first
    while number < bad and number > good:
        if serves(number):
            good = number
        else:
            bad = number
        number = min(2 * good, most) if bad > most else (good + bad) // 2 if bad - good > resolution * bad else good
    return good


def measure(
    recognizer: Recognizer,
    lookahead: int,
    voices: Sequence[np.ndarray],
    settings: Settings,
    note: Callable[[dict[str, Any]], object],
) -> None:
    alone = [t.tokens for t in recognizer.transcribe(list(voices), lookahead)]
    chunk_ms = recognizer.config.chunk_ms(lookahead)

    def serves(count: int) -> bool:
        measured, labels = asyncio.run(serve(recognizer, lookahead, voices, count, settings))
        differing = sum(heard != alone[index % len(alone)] for index, heard in enumerate(labels))
        served = not measured["refused"] and not differing and measured["p99_ms"] < chunk_ms
        note({"lookahead": lookahead, "chunk_ms": chunk_ms, **measured, "differing": differing, "served": served})
        return served

    search(serves, settings.first, settings.most, settings.resolution)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: every number that was tried."""
    heads = [
        "look-ahead",
        "chunk, ms",
        "streams",
        *(f"p{p}, ms" for p in PERCENTILES),
        "refused",
        "differing",
        "served",
    ]
    lines = [heads, ["---:"] * len(heads)]
    for row in sorted(rows, key=lambda row: (-row["lookahead"], row["streams"])):
        latencies = [f"{row[f'p{p}_ms']:.1f}" for p in PERCENTILES]
        counts = [str(row[name]) for name in ("refused", "differing")]
        served = "yes" if row["served"] else "no"
        lines.append(
            [str(row["lookahead"]), f"{row['chunk_ms']:.0f}", str(row["streams"]), *latencies, *counts, served]
        )
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """The 99th percentile of latency, as a share of a chunk, against streams."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for lookahead in dict.fromkeys(row["lookahead"] for row in rows):
            points = sorted(
                (row["streams"], row["p99_ms"] / row["chunk_ms"]) for row in rows if row["lookahead"] == lookahead
            )
            axes.plot(*zip(*points, strict=True), marker="o", label=f"R = {lookahead}")
        axes.axhline(1, color="grey", linestyle="--")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("live streams")
        axes.set_ylabel("p99 latency / chunk")
        axes.legend()
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def run(settings: Settings) -> int:
    settings.check()
    recognizer = load(settings.model, settings.dtype)
    voices = read_voices(settings, recognizer.config.features.sample_rate_hz)
    asked = settings.lookaheads or recognizer.config.encoder.lookaheads
    fixed = {
        "experiment": "benchmark_streams",
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "seconds": settings.seconds,
        "voices": len(voices),
        "patience_ms": settings.patience_ms,
        "device": device(),
    }
    rows: list[dict[str, Any]] = []
    with writable(settings.output, "a") as output:

        def note(row: dict[str, Any]) -> None:
            rows.append({**fixed, **row, **machine(PACKAGES)})
            output.write(json.dumps(rows[-1]) + "\n")
            output.flush()
            latency = f"p99 {row['p99_ms']:.1f} ms of {row['chunk_ms']:.0f}"
            tqdm.write(f"look-ahead {row['lookahead']}: {row['streams']} streams, {latency}", file=sys.stderr)

        for lookahead in [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(asked)]:
            measure(recognizer, lookahead, voices, settings, note)
    print(table(rows))
    if settings.plot:
        plot(rows, settings.plot)
    return 1 if any(row["differing"] for row in rows) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "benchmark_streams", __doc__, arguments)
