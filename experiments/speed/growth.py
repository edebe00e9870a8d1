"""How the cost of a step grows: with the number of streams, the left context, the chunk, and a recording's length.

    python -m experiments cost_growth [--preset 0.6b] [--dtype bfloat16] [--plot growth.svg]

Fresh weights of a preset's shapes, made to say nothing, since how much such weights say is arbitrary: what is timed is
a compiled step of live streams (and for lengths, a whole transcription), warmed up, the settings taking turns so that
whatever else the machine does falls on all alike. One thing grows at a time; the others stay at --streams, --lookahead
and the preset's left context. A table goes to standard output, a row for each measurement to JSON lines, after those
that are there.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import plot_format, writable
from nemojax.config import PRESETS, ModelConfig
from nemojax.errors import ConfigError
from nemojax.kernels.selection import for_backend
from nemojax.model.parameters import freeze
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment, init_state, prepare, segments_of, transcribe_scan

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy")
CERTAIN = 1e4  # a bias that makes blank the most likely, whatever else is said
SEGMENT_FRAMES = 70  # of a recording, at a time
AXES = {
    "streams": "live streams in a step",
    "left_context_frames": "left context in frames",
    "lookahead": "look-ahead in frames",
    "seconds": "length of a recording in s",
}
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    preset: str = "0.6b"
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    streams: int = 1
    lookahead: int = 6
    grow_streams: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    grow_left_context_frames: tuple[int, ...] = (14, 28, 70, 140, 280)
    grow_lookahead: tuple[int, ...] = (0, 1, 4, 6, 13, 34)
    grow_seconds: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 80.0)
    repeats: int = 5
    steps: int = 5
    """In each repeat, one after the other."""
    seed: int = 0
    output: Path = Path("cost_growth.jsonl")
    plot: Path | None = None

    def check(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset: {self.preset!r} is none of {', '.join(PRESETS)}")
        if min(self.repeats, self.steps, self.streams, *self.grow_streams) < 1:
            raise ConfigError("--repeats, --steps and numbers of streams must be at least 1")
        for lookahead in (self.lookahead, *self.grow_lookahead):
            PRESETS[self.preset].chunk_frames(lookahead)
        for frames in self.grow_left_context_frames:
            self.config(frames).chunk_frames(self.lookahead)
        if self.plot is not None:
            plot_format(self.plot)

    def config(self, left_context_frames: int | None = None) -> ModelConfig:
        config = PRESETS[self.preset]
        if left_context_frames is None:
            return config
        encoder = dataclasses.replace(
            config.encoder, left_context_frames=left_context_frames, lookaheads=(self.lookahead,)
        )
        return dataclasses.replace(config, encoder=encoder)


class Bench:
    """One set of weights under several settings."""

    def __init__(self, settings: Settings):
        self._settings = settings
        model = Transducer(settings.config(), rngs=nnx.Rngs(settings.seed))
        bias = model.joint.output.bias
        bias[...] = bias[...].at[model.config.blank].set(CERTAIN)
        if settings.dtype == "bfloat16":
            model = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
        self._leaves = jax.tree.leaves(self._suited(model))

    def _suited(self, model: Transducer) -> Transducer:
        """As `nemojax.load` would have it."""
        return for_backend(model, int8=self._settings.dtype == "int8")

    def _model(self, config: ModelConfig):
        """The weights do not depend on the left context."""
        shaped = jax.eval_shape(lambda: self._suited(Transducer(config, rngs=nnx.Rngs(0))))
        return freeze(jax.tree.unflatten(jax.tree.structure(shaped), self._leaves))

    def step(self, streams: int, left_context_frames: int, lookahead: int) -> Callable[[], float]:
        """A function that runs some steps and gives the seconds that each took."""
        config = self._settings.config(left_context_frames)
        model = self._model(config)
        constants = prepare(model)
        state = init_state(model, constants, streams)
        samples = config.chunk_samples(lookahead)
        sound = np.random.default_rng(self._settings.seed).normal(0, 0.05, (streams, samples))
        on = jnp.ones(streams, bool)
        segment = Segment(jnp.asarray(sound, jnp.float32), jnp.full(streams, samples, jnp.int32), on, ~on)

        def run(steps: int = self._settings.steps) -> float:
            nonlocal state
            start = time.perf_counter()
            for _ in range(steps):
                state, emission = step_jit(model, constants, state, segment, lookahead=lookahead)
                jax.device_get(emission.length)
            return (time.perf_counter() - start) / steps

        run(-(-left_context_frames // (lookahead + 1)) + 1)  # compiled, and the caches full
        return run

    def transcription(self, seconds: float) -> Callable[[], float]:
        config, lookahead = self._settings.config(), self._settings.lookahead
        model = self._model(config)
        constants = prepare(model)
        count = round(seconds * config.features.sample_rate_hz)
        sound = jnp.asarray(np.random.default_rng(self._settings.seed).normal(0, 0.05, (1, count)), jnp.float32)
        chunks = SEGMENT_FRAMES // (lookahead + 1)
        segments = segments_of(sound, jnp.full(1, count, jnp.int32), lookahead, chunks, config)

        def run() -> float:
            state = init_state(model, constants, 1)
            start = time.perf_counter()
            jax.block_until_ready(transcribe_scan(model, constants, state, segments, lookahead=lookahead))
            return time.perf_counter() - start

        run()
        return run


def points(settings: Settings, bench: Bench) -> list[tuple[str, float, Callable[[], Callable[[], float]]]]:
    """What grows, to what, and how it is prepared."""
    left, streams, lookahead = settings.config().encoder.left_context_frames, settings.streams, settings.lookahead
    found: list[tuple[str, float, Callable[[], Callable[[], float]]]] = []
    found += [("streams", n, lambda n=n: bench.step(n, left, lookahead)) for n in settings.grow_streams]
    found += [
        ("left_context_frames", n, lambda n=n: bench.step(streams, n, lookahead))
        for n in settings.grow_left_context_frames
    ]
    found += [("lookahead", n, lambda n=n: bench.step(streams, left, n)) for n in settings.grow_lookahead]
    found += [("seconds", n, lambda n=n: bench.transcription(n)) for n in settings.grow_seconds]
    return found


def table(rows: Sequence[Row]) -> str:
    lines = ["| what grows | to | ms: median | range | per unit |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in rows:
        ms = [1000 * s for s in row["seconds"]]
        middle = statistics.median(ms)
        units = row["value"] + 1 if row["grows"] == "lookahead" else row["value"]
        spread = f"{min(ms):.1f} to {max(ms):.1f}"
        lines.append(f"| {AXES[row['grows']]} | {row['value']:g} | {middle:.1f} | {spread} | {middle / units:.2f} |")
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path) -> None:
    """A panel for each thing that grows: medians, and the range over the repeats."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    there = [name for name in AXES if any(row["grows"] == name for row in rows)]
    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 6), layout="constrained")
        panels = figure.subplots(2, 2, squeeze=False).flat
        for name, axes in zip(there, panels, strict=False):
            found = sorted((row for row in rows if row["grows"] == name), key=lambda row: row["value"])
            middle = [1000 * statistics.median(row["seconds"]) for row in found]
            bars = [
                [m - 1000 * min(row["seconds"]) for m, row in zip(middle, found, strict=True)],
                [1000 * max(row["seconds"]) - m for m, row in zip(middle, found, strict=True)],
            ]
            axes.errorbar([row["value"] for row in found], middle, bars, marker="o", capsize=3)
            axes.set_xlabel(AXES[name])
            axes.set_ylabel("ms")
            axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
            axes.grid(alpha=0.3)
        for axes in list(panels):
            axes.set_visible(False)
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def run(settings: Settings) -> int:
    settings.check()
    bench = Bench(settings)
    rows: list[Row] = []
    common = {
        "experiment": "cost_growth",
        **{name: getattr(settings, name) for name in ("preset", "dtype", "streams", "lookahead", "steps", "seed")},
    }
    ready: list[tuple[str, float, Callable[[], float]]] = []
    with writable(settings.output, "a") as output:
        for name, value, prepared in tqdm(points(settings, bench), desc="compiling", disable=None, leave=False):
            ready.append((name, value, prepared()))
        seconds: list[list[float]] = [[] for _ in ready]
        for _ in tqdm(range(settings.repeats), desc="repeats", disable=None, leave=False):
            for index, (_, _, call) in enumerate(ready):
                seconds[index].append(round(call(), 6))
        facts = {**common, "device": device(), **machine(PACKAGES)}
        for (name, value, _), found in zip(ready, seconds, strict=True):
            rows.append({**facts, "grows": name, "value": value, "seconds": found})
            output.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))
    if settings.plot is not None:
        plot(rows, settings.plot)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "cost_growth", __doc__, arguments)
