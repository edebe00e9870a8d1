"""Live steps: their programs, their time, and the labels that they emit."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import weights
from experiments.gpu.kernels import Kernel, busy_ns, record
from experiments.gpu.points import Point
from experiments.gpu.programs import Programs
from experiments.gpu.variants import variant
from experiments.roofline import tree_bytes
from nemojax import streaming
from nemojax.config import ModelConfig
from nemojax.streaming import Segment, StreamState, init_state, prepare
from nemojax.transducer import FrozenModel, freeze, thaw

SECONDS, FEWEST, MOST = 0.6, 8, 60  # of timed steps
TRACED = 4
SEGMENTS = 4  # inputs that take turns


def encoder_step(model, constants, state: StreamState, segment: Segment, lookahead: int):
    """A step without its search for labels: the state after it, and encoder frames."""
    encoded, _, state = streaming.encode(thaw(model), constants, state, segment, lookahead)
    return state, encoded


def gpu_options() -> dict[str, Any] | None:
    return streaming.GPU_OPTIONS if jax.default_backend() == "gpu" else None


class Bench:
    """One set of weights on the device, in all variants, and the jitted functions that are timed.

    Args:
      speech: samples that all streams hear, each from another place.
    """

    def __init__(self, config: ModelConfig, arrays: weights.Arrays, speech: np.ndarray, dtype: Any, seed: int):
        self.config, self._speech, self._dtype, self._seed = config, speech, dtype, seed
        self._arrays = arrays
        self._kept: tuple[Any, list[Segment]] | None = None
        self._load()
        self.bias: dict[int, float] = {}  # on blank, by look-ahead
        jitted = lambda function, options: jax.jit(
            function, static_argnames="lookahead", donate_argnames="state", compiler_options=options
        )
        self._functions = {
            ("step", True): streaming.compiled_step(),
            ("step", False): jitted(streaming.step, None),
            ("encoder", True): jitted(encoder_step, gpu_options()),
            ("encoder", False): jitted(encoder_step, None),
        }

    def _load(self) -> None:
        model = weights.placed(self.config, self._arrays, self._dtype)
        self.models: dict[str, FrozenModel] = {name: freeze(variant(model, name)) for name in ("plain", "fused")}
        if self._dtype == jnp.bfloat16:
            self.models["narrow"] = freeze(variant(model, "narrow"))
        self.constants = prepare(self.models["plain"])

    @cached_property
    def weights_bytes(self) -> int:
        return tree_bytes(self.models["plain"]) + tree_bytes(self.constants)

    @cached_property
    def state_bytes(self) -> int:
        """Of one stream."""
        return tree_bytes(self.state_shape(1))

    def state_shape(self, streams: int) -> Any:
        return jax.eval_shape(lambda m, c: init_state(m, c, streams), self.models["plain"], self.constants)

    def model(self, point: Point) -> FrozenModel:
        """Of the point's variant, with the bias on blank of its look-ahead."""
        model = self.models[point.variant]
        bias = self.bias.get(point.lookahead, next(iter(self.bias.values()), None))
        return model if bias is None else weights.with_blank_bias(model, bias)

    def lower(self, point: Point, samples: int | None = None) -> Any:
        """A point's step for `Programs`; `samples` of a segment that is not one chunk."""
        shape, streams = jax.ShapeDtypeStruct, point.streams
        samples = samples or self.config.chunk_samples(point.lookahead)
        flags = shape((streams,), jnp.bool)
        segment = Segment(shape((streams, samples), jnp.float32), shape((streams,), jnp.int32), flags, flags)
        function = self._functions[point.part, point.buffers]
        state = self.state_shape(streams)
        return function.lower(self.models[point.variant], self.constants, state, segment, lookahead=point.lookahead)

    def balance(self, point: Point, steps: int = 40) -> None:
        """Makes labels depend on frames and earlier labels, from some steps of an encoder point."""
        live, frames = Live(self, point), []
        live.warm_up()  # frames of a stream that has just begun differ
        for _ in range(steps):
            frames.append(np.asarray(live.step(), np.float32).reshape(-1, self.config.encoder.width))
        predicted = weights.predictions(thaw(self.models["plain"]), 128, 16, self._seed)
        sample = np.random.default_rng(self._seed).permutation(np.concatenate(frames))[: len(predicted)]
        self._arrays |= weights.balance_joint(self._arrays, sample, predicted, self.config.blank)
        self._load()

    def calibrate(self, point: Point) -> tuple[float, float]:
        """Sets the bias on blank of a point's look-ahead: the bias and the label rate that it gives."""
        live = Live(self, point)
        live.warm_up()
        frames = self.config.chunk_frames(point.lookahead)
        settling, counted = max(2, 6 // frames), max(2, 8 // frames)

        def rate(bias: float) -> float:
            live.model = weights.with_blank_bias(live.model, bias)
            for _ in range(settling):
                live.step()
            return live.rate([live.step() for _ in range(counted)])

        self.bias[point.lookahead], found = weights.calibrated(rate, -weights.LARGEST_BIAS, weights.LARGEST_BIAS)
        return self.bias[point.lookahead], found

    def chunk(self, streams: int, lookahead: int, number: int) -> np.ndarray:
        """Samples of all streams in one chunk, [streams, N]."""
        size = self.config.chunk_samples(lookahead)
        begins = np.arange(streams)[:, None] * 7919 + number * size
        return self._speech[(begins + np.arange(size)) % len(self._speech)]

    def segments(self, point: Point) -> list[Segment]:
        """The inputs that take turns, the same for all variants; those of the last point are kept."""
        size = (point.streams, point.lookahead, point.active)
        if self._kept is None or self._kept[0] != size:
            self._kept = None  # its memory first
            self._kept = size, [self._segment(point, number) for number in range(SEGMENTS)]
        return self._kept[1]

    def _segment(self, point: Point, number: int) -> Segment:
        samples = self.chunk(point.streams, point.lookahead, number)
        active = np.arange(point.streams) < (point.active or point.streams)
        length = np.full(point.streams, samples.shape[1], np.int32)
        return Segment(*map(jnp.asarray, (samples, length, active, np.zeros(point.streams, bool))))


class Live:
    """A state and the segments that take turns; a step ends when its result is ready."""

    def __init__(self, bench: Bench, point: Point):
        self.model, self.point, self._bench = bench.model(point), point, bench
        self._function = bench._functions[point.part, point.buffers]
        self._segments = bench.segments(point)
        self._state = init_state(self.model, bench.constants, point.streams)
        self._number = 0

    def dispatch(self) -> Any:
        segment = self._segments[self._number % SEGMENTS]
        self._number += 1
        self._state, out = self._function(
            self.model, self._bench.constants, self._state, segment, lookahead=self.point.lookahead
        )
        return out

    def step(self) -> Any:
        """The labels' counts of all streams, or encoder frames."""
        out = self.dispatch()
        return jax.device_get(out.length) if self.point.part == "step" else jax.block_until_ready(out)

    def warm_up(self) -> None:
        """Steps until the caches are full."""
        left = self._bench.config.encoder.left_context_frames
        for _ in range(left // (self.point.lookahead + 1)):
            self.dispatch()
        self.step()

    def rate(self, lengths: Sequence[np.ndarray]) -> float:
        """Labels per frame of the active streams."""
        active = self.point.active or self.point.streams
        return float(np.sum(lengths)) / (active * (self.point.lookahead + 1) * len(lengths))


def timed(call: Callable[[], Any], count: int) -> tuple[list[float], list[Any]]:
    seconds, results = [], []
    for _ in range(count):
        begin = time.perf_counter()
        results.append(call())
        seconds.append(time.perf_counter() - begin)
    return seconds, results


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    values = np.percentile(seconds, (50, 95, 99))
    return {f"p{p}_ms": round(1000 * float(value), 3) for p, value in zip((50, 95, 99), values, strict=True)}


def measure(bench: Bench, point: Point, programs: Programs) -> tuple[dict[str, Any], list[Kernel]]:
    """A point's times and the kernels of `TRACED` steps. Raises what compiling or running it raised."""
    program = programs.result(point)
    live = Live(bench, point)
    live.warm_up()
    (first_s, *_), _ = timed(live.step, 3)
    seconds, results = timed(live.step, int(np.clip(SECONDS / first_s, FEWEST, MOST)))
    begin = time.perf_counter()
    for _ in range(len(seconds) // 2):
        out = live.dispatch()
    jax.block_until_ready(out)
    streamed_s = (time.perf_counter() - begin) / (len(seconds) // 2)
    kernels = record(live.step, TRACED)
    busy_ms = busy_ns(kernels) / TRACED / 1e6
    if programs.pending and busy_ms > 1000 * float(np.median(seconds)):
        kernels = []  # those of programs that are being tuned are among them
    row: dict[str, Any] = {
        "steps": len(seconds),
        **percentiles_ms(seconds),
        "back_to_back_ms": round(1000 * streamed_s, 3),
        "kernels_ms": round(busy_ms, 3) if kernels else None,
        "kernel_runs": len(kernels) / TRACED or None,
        "labels_per_frame": round(live.rate(results), 3) if point.part == "step" else None,
        "most_labels": round(float(np.mean([result.max() for result in results])), 2) if point.part == "step" else None,
        "lower_s": round(program.lower_s, 1),
        "compile_s": round(program.compile_s, 1),
        **program.memory(),
    }
    return row, kernels


def one_stream(bench: Bench, lookahead: int, name: str, steps: int) -> dict[str, float]:
    """Percentiles of a single stream's step, from samples on the host to labels on the host."""
    point = Point(1, lookahead, name)
    live = Live(bench, point)
    live.warm_up()
    chunks = [bench.chunk(1, lookahead, number) for number in range(steps)]
    on, length = np.ones(1, bool), np.full(1, chunks[0].shape[1], np.int32)
    seconds = []
    for chunk in chunks:
        begin = time.perf_counter()
        segment = Segment(*map(jnp.asarray, (chunk, length, on, ~on)))
        live._state, emission = live._function(live.model, bench.constants, live._state, segment, lookahead=lookahead)
        jax.device_get(emission)
        seconds.append(time.perf_counter() - begin)
    return percentiles_ms(seconds)
