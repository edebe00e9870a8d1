"""Live steps: their time, their kernels, and the labels that they emit."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from experiments.gpu.bench import SEGMENTS, Bench
from experiments.gpu.kernels import Kernel, busy_ns, record
from experiments.gpu.points import Point
from experiments.gpu.programs import Program, Programs
from nemojax.recognition.stream_batch import StepInput, StreamBatch

SECONDS, MIN_STEPS, MAX_STEPS = 0.6, 8, 60  # of timed steps
TRACED = 4  # steps


class Live:
    """The streams of a point: a state, and segments on the device that take turns."""

    def __init__(self, bench: Bench, point: Point):
        self.model, self.point, self._bench = bench.model(point), point, bench
        self._function, self._segments = bench.function(point), bench.segments(point)
        self._state = bench.state(point)
        self._number = 0

    def dispatch(self) -> Any:
        """Starts a step and returns its result, which may not be ready."""
        segment = self._segments[self._number % SEGMENTS]
        self._number += 1
        self._state, result = self._function(self.model, self._bench.constants, self._state, segment)
        return result

    def step(self) -> np.ndarray:
        """Runs a step to its end; returns the number of labels of each stream, or encoder frames."""
        result = self.dispatch()
        if self.point.part == "step":
            return np.asarray(jax.device_get(result.length))
        return jax.block_until_ready(result)  # type: ignore[no-any-return]  # frames stay on the device

    def warm_up(self) -> None:
        """Runs steps until the caches are full."""
        left = self._bench.config.encoder.left_context_frames
        for _ in range(left // (self.point.lookahead + 1)):
            self.dispatch()
        self.step()

    def rate(self, lengths: Sequence[np.ndarray]) -> float:
        """Returns the labels per frame of the active streams, from the label counts of steps."""
        active = self.point.active or self.point.streams
        return float(np.sum(lengths)) / (active * (self.point.lookahead + 1) * len(lengths))


def timed(call: Callable[[], Any], count: int) -> tuple[list[float], list[Any]]:
    """Returns the seconds and the results of `count` calls."""
    seconds, results = [], []
    for _ in range(count):
        begin = time.perf_counter()
        results.append(call())
        seconds.append(time.perf_counter() - begin)
    return seconds, results


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Returns the median and two high percentiles in milliseconds."""
    values = np.percentile(seconds, (50, 95, 99))
    return {f"p{p}_ms": round(1000 * float(value), 3) for p, value in zip((50, 95, 99), values, strict=True)}


def measure(bench: Bench, point: Point, programs: Programs) -> tuple[dict[str, Any], list[Kernel]]:
    """Measures a point; returns its row and the kernels of `TRACED` steps.

    `back_to_back_ms` is the time a step if the host does not wait for each. Raises what compiling or running raised.
    """
    program: Program = programs.result(point)
    live = Live(bench, point)
    live.warm_up()
    (first_s, *_), _ = timed(live.step, 3)
    seconds, results = timed(live.step, int(np.clip(SECONDS / first_s, MIN_STEPS, MAX_STEPS)))
    half = len(seconds) // 2
    begin = time.perf_counter()
    for _ in range(half - 1):
        live.dispatch()
    live.step()
    back_to_back_s = (time.perf_counter() - begin) / half
    kernels = record(live.step, TRACED)
    busy_ms = busy_ns(kernels) / TRACED / 1e6
    if programs.pending and busy_ms > 1000 * float(np.median(seconds)):
        kernels = []  # kernels of programs that are being tuned are among them
    labels = point.part == "step"
    row: dict[str, Any] = {
        "steps": len(seconds),
        **percentiles_ms(seconds),
        "back_to_back_ms": round(1000 * back_to_back_s, 3),
        "kernels_ms": round(busy_ms, 3) if kernels else None,
        "kernel_runs": len(kernels) / TRACED or None,
        "labels_per_frame": round(live.rate(results), 3) if labels else None,
        "most_labels": round(float(np.mean([result.max() for result in results])), 2) if labels else None,
        "lower_s": round(program.lower_s, 1),
        "compile_s": round(program.compile_s, 1),
        **program.memory(),
    }
    return row, kernels


def one_stream(bench: Bench, point: Point, steps: int) -> dict[str, float]:
    """Returns percentiles of a single stream's step, from samples on the host to labels on the host."""
    options = bench.options(point)
    batch = StreamBatch(bench.model(point), bench.constants, point.lookahead, 1, compiler_options=options)
    warming = bench.config.encoder.left_context_frames // bench.config.chunk_frames(point.lookahead) + 1
    seconds = []
    for number in range(warming + steps):
        samples = bench.chunk(1, point.lookahead, number)[0]
        begin = time.perf_counter()
        given = StepInput.empty(bench.config, 1, batch.chunk_samples)
        given.fill(0, samples[: given.room(number == 0)], first=number == 0)
        jax.device_get(batch.step(given))
        seconds.append(time.perf_counter() - begin)
    return percentiles_ms(seconds[warming:])
