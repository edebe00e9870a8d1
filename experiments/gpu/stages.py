"""The stages of a run, each of which adds its rows as soon as it knows them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import calibration, ceilings, correctness, kernels, live, peer, serving, training_step, weights
from experiments.gpu.bench import Bench
from experiments.gpu.points import Point, Sizes, parse_point
from experiments.gpu.programs import Programs
from experiments.gpu.stage_rows import StageRows
from experiments.speed.trace import operations
from nemojax import checkpoint
from nemojax.bundled import SMALL
from nemojax.config import ModelConfig
from nemojax.model.transducer import Transducer

LARGEST = 8  # kernels in a row of stage b
TABLE = 30  # kernels in a row of stage h
OFFLINE_LOOKAHEAD = 13
PEER_TIMEOUT_S = 90.0
BENCH_STAGES, LABEL_STAGES = frozenset("bcdefh"), frozenset("bcdeh")  # that need weights, and a label rate


class Run:
    """What the stages share: programs, weights on the device, and the rows.

    Args:
      stages: their letters.
      dry: everything is small, and runs on a CPU.
      workers: programs compiled side by side.
      limit_s: a training step is given up when it is not compiled by then.
    """

    def __init__(
        self,
        config: ModelConfig,
        sizes: Sizes,
        stages: str,
        dry: bool,
        seed: int,
        rows: StageRows,
        workers: int,
        limit_s: float,
    ):
        self.config, self.sizes, self.stages, self.dry, self.seed, self.rows = config, sizes, stages, dry, seed, rows
        self.programs, self._checks = Programs(workers), Programs(max(1, workers // 3))
        self._limit_s = limit_s
        self._kernels: dict[Point, list[kernels.Kernel]] = {}
        self._ceilings: ceilings.Ceilings | None = None

    def points(self) -> dict[str, list[Point]]:
        """Returns the points by their use, where a stage needs them."""
        sizes, stages = self.sizes, set(self.stages)
        uses = {
            "calibration": sizes.calibration if stages & LABEL_STAGES else (),
            "steps": sizes.points if "b" in stages else (),
            "engine": sizes.engine if "d" in stages else (),
            "tables": sizes.tables if "h" in stages else (),
        }
        points = {use: [parse_point(text) for text in texts] for use, texts in uses.items()}
        lookaheads = dict.fromkeys(parse_point(text).lookahead for text in sizes.calibration)
        points["one"] = [Point(1, r, name) for r in lookaheads if "c" in stages for name in ("plain", "fused")]
        return points

    def prepare(self, recording: np.ndarray, speech: np.ndarray, two_layers: ModelConfig) -> None:
        """Draws the weights, and begins to compile all programs.

        Args:
          recording: the input of stage a.
          speech: the input of all other stages.
          two_layers: the config of stage a's "wide" model.
        """
        small, tokenizer = small_model()
        if "a" in self.stages:
            self._checks.submit("wide", lambda: correctness.balanced(two_layers, recording, self.seed))
            models = {"small": lambda: small, "wide": lambda: self._checks.result("wide")}
            for case, job in correctness.jobs(self.dry, models, recording).items():
                self._checks.submit(case, job)
        if not set(self.stages) & BENCH_STAGES:
            return
        arrays = weights.draw(self.config, self.seed)
        self.tokenizer = weights.tokenizer(tokenizer, self.config.vocabulary)
        self.bench = Bench(self.config, arrays, speech, jnp.bfloat16)
        self.rows.add("setup", "weights", parameters=sum(value.size for value in arrays.values()))
        self._balancing = parse_point(self.sizes.calibration[0])._replace(part="encoder")
        if set(self.stages) & LABEL_STAGES:
            self.programs.add(self._balancing, partial(self.bench.lower, self._balancing))
        for points in self.points().values():
            for point in points:
                self.programs.add(point, partial(self.bench.lower, point._replace(active=0)))  # of the same shapes
        for point in self._offline_points():
            for samples in serving.offline_segments(self.config, self.tokenizer, self.sizes.offline_s):
                self.programs.add((point, samples), partial(self.bench.lower, point, samples))

    def close(self) -> None:
        """Gives up programs that are not compiled."""
        self.programs.close()
        self._checks.close()

    def calibrate(self) -> None:
        """Fits the label rate of each look-ahead; a look-ahead that fails uses the bias of another."""
        if not set(self.stages) & LABEL_STAGES:
            return
        try:
            self.programs.result(self._balancing)
            calibration.balance(self.bench, self._balancing, self.seed)
        except Exception as error:
            self.rows.failed("setup", "balance", error)
        for point in self.points()["calibration"]:
            try:
                self.programs.result(point)
                bias, rate = calibration.calibrate(self.bench, point)
                self.rows.add("setup", "calibration", point=str(point), bias=bias, labels_per_frame=round(rate, 3))
            except Exception as error:
                self.rows.failed("setup", "calibration", error, point=str(point))

    def a(self) -> None:
        """Compares a GPU's encoder frames and labels with those of the CPU beside it."""
        outputs: dict[correctness.Case, correctness.Output] = {}
        for case in correctness.cases(self.dry):
            facts = case._asdict()
            try:
                outputs[case] = self._checks.result(case)
            except Exception as error:
                self.rows.failed("a", "correctness", error, **facts)
                continue
            for reference in correctness.references(case):
                if reference in outputs:
                    compared = correctness.compare(outputs[case], outputs[reference])
                    self.rows.add("a", "correctness", **facts, reference=f"cpu {reference.dtype}", **compared)

    def b(self) -> None:
        """Measures the card's ceilings, and steps by streams, look-ahead and variant."""
        self._ceilings = ceilings.measure(self.sizes.product_width, self.sizes.copy_bytes)
        self.rows.add("b", "ceilings", **self._ceilings._asdict())
        for point in self.points()["steps"]:
            self._measure("b", "step", point, partial(self._step, point))

    def _step(self, point: Point) -> dict[str, Any]:
        row, self._kernels[point] = live.measure(self.bench, point, self.programs)
        row["largest"] = kernels.largest(self._kernels[point], live.TRACED, LARGEST)
        if self._ceilings is not None and point.part == "step":
            total = point.streams * ceilings.operations(self.config, point.lookahead)
            moved = self.bench.weights_bytes, self.bench.state_bytes(point.lookahead)
            floor = ceilings.floor(*moved, point.streams, total, self._ceilings)
            row["operations"] = total
            row["floor_bytes_ms"] = round(floor.bytes_ms, 4)
            row["floor_operations_ms"] = round(floor.operations_ms, 4)
            row["floor_share"] = round(floor.sum_ms / (row["kernels_ms"] or row["p50_ms"]), 4)
        return row

    def _measure(self, stage: str, kind: str, point: Point, call: Callable[[], dict[str, Any]]) -> None:
        """Adds the row of a point; `compiling` is the number of programs that are compiled meanwhile."""
        facts = {"point": str(point), **point._asdict(), "chunk_ms": self.config.chunk_ms(point.lookahead)}
        facts["compiling"] = self.programs.pending
        try:
            row = call()
        except Exception as error:
            self.rows.failed(stage, kind, error, **facts)
        else:
            self.rows.add(stage, kind, **{**facts, **row})

    def c(self) -> None:
        """Measures the delay of one stream."""
        for point in self.points()["one"]:
            call = partial(live.one_stream, self.bench, point, self.sizes.one_stream_steps)
            self._measure("c", "one stream", point, call)

    def d(self) -> None:
        """Measures paced streams through the engine."""
        for point in self.points()["engine"]:
            call = partial(serving.paced, self.bench, point, self.tokenizer, self.sizes.engine_s, self.seed)
            self._measure("d", "paced", point, call)

    def _offline_points(self) -> list[Point]:
        return [Point(batch, OFFLINE_LOOKAHEAD) for batch in self.sizes.offline if "e" in self.stages]

    def e(self) -> None:
        """Measures whole recordings in batches."""
        for number, point in enumerate(self._offline_points()):
            call = partial(serving.offline, self.bench, point, self.sizes.offline_s, self.tokenizer, not number)
            self._measure("e", "offline", point, call)

    def f(self) -> None:
        """Measures a training step; only here is it compiled, because other stages would wait for it."""
        remats = (True,) if self.dry else (True, False)  # without remat it takes a CPU a minute to compile
        for remat in remats:
            lower = partial(training_step.lower, self.config, self.sizes, self.seed, remat)
            self.programs.add(("training", remat), lower)
        for remat in remats:
            try:
                program = self.programs.result(("training", remat), max(self._limit_s - self.rows.elapsed_s, 1.0))
                row = training_step.measure(self.config, self.bench.arrays, self.sizes, self.seed, remat, program)
                self.rows.add("f", "training", **row)
            except Exception as error:
                self.rows.failed("f", "training", error, remat=remat)

    def g(self) -> None:
        """Measures transformers on the same card."""
        rows, problem = peer.run(self.sizes, self.dry, PEER_TIMEOUT_S)
        for row in rows:
            self.rows.add("g", "peer", **row)
        if problem is not None:
            self.rows.add("g", "peer", error=problem)

    def h(self) -> None:
        """Lists the largest kernels and the named scopes of steps."""
        for point in self.points()["tables"]:
            self._measure("h", "table", point, partial(self._table, point))

    def _table(self, point: Point) -> dict[str, Any]:
        if point not in self._kernels:
            _, self._kernels[point] = live.measure(self.bench, point, self.programs)
        traced = self._kernels[point]
        text = self.programs.result(point).compiled.as_text()
        return {
            "kernels_ms": round(kernels.busy_ns(traced) / live.TRACED / 1e6, 3),
            "runs": len(traced) / live.TRACED,
            "table": kernels.largest(traced, live.TRACED, TABLE),
            "scopes_ms": kernels.by_scope(traced, live.TRACED, operations(text)[1]),
        }


def repeated_speech(recording: np.ndarray, seconds: float, rate_hz: int, seed: int) -> np.ndarray:
    """Repeats a recording, each time with new noise."""
    count = round(seconds * rate_hz)
    noise = np.random.default_rng(seed).standard_normal(count, np.float32)
    return np.asarray(np.resize(recording, count) + 0.01 * noise, np.float32)


def small_model() -> tuple[Transducer, bytes]:
    """Loads the small model in float32, on the host, and its tokenizer."""
    model, _, tokenizer, _ = checkpoint.load(SMALL, jnp.float32)
    return jax.tree.map(np.asarray, model), tokenizer
