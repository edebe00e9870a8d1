"""The stages of a run, each of which adds its rows as soon as it knows them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import card, kernels, learning, live, peer, right, serving, weights
from experiments.gpu.points import Point, Sizes, parse_point
from experiments.gpu.programs import Programs
from experiments.gpu.rows import Rows
from experiments.trace import operations
from nemojax import checkpoint
from nemojax.bundled import SMALL
from nemojax.config import ModelConfig

STAGES = {
    "a": "right: a GPU's frames and labels against those of the CPU beside it",
    "b": "the step by streams, look-ahead and variant; the card's ceilings",
    "c": "one stream's delay",
    "d": "paced streams through the engine",
    "e": "whole recordings in batches",
    "f": "a training step",
    "g": "transformers on the same card",
    "h": "the largest kernels of some steps",
}
LARGEST = 8  # kernels in a row of stage b
TABLE = 30  # in one of stage h
OFFLINE_LOOKAHEAD = 13


class Run:
    """All that stages share: programs, weights on the device, and where rows go."""

    def __init__(self, config: ModelConfig, sizes: Sizes, stages: str, dry: bool, seed: int, rows: Rows, workers: int):
        self.config, self.sizes, self.stages, self.dry, self.seed, self.rows = config, sizes, stages, dry, seed, rows
        self.programs, self._checks = Programs(workers), Programs(max(1, workers // 3))
        self.tables: dict[Point, Any] = {}
        self.limit_s = float("inf")
        self._ceilings: card.Ceilings | None = None

    def points(self) -> dict[str, list[Point]]:
        """The points of each use, whose stages are asked for."""
        sizes, asked = self.sizes, set(self.stages)
        found = {
            "calibration": [parse_point(text) for text in sizes.calibration if asked & set("bcdeh")],
            "points": [parse_point(text) for text in sizes.points if "b" in asked],
            "tables": [parse_point(text) for text in sizes.tables if "h" in asked],
            "engine": [parse_point(text) for text in sizes.engine if "d" in asked],
        }
        lookaheads = dict.fromkeys(parse_point(text).lookahead for text in sizes.calibration)
        found["one"] = [Point(1, r, name) for r in lookaheads if "c" in asked for name in ("plain", "fused")]
        return found

    def prepare(self, recording: np.ndarray, sound: np.ndarray, two_layers: ModelConfig) -> None:
        """Draws the weights, and hands all programs to threads.

        Args:
          recording: what the models that are checked hear.
          sound: what the large model hears.
          two_layers: of the large model's shapes.
        """
        small, tokenizer = small_model()
        if "a" in self.stages:
            self._checks.submit("wide", lambda: right.balanced(two_layers, recording, self.seed))
            models = {"small": lambda: small, "wide": lambda: self._checks.result("wide")}
            for case, job in right.jobs(self.dry, models, recording).items():
                self._checks.submit(case, job)
        if not set(self.stages) & set("bcdefh"):
            return
        arrays = weights.draw(self.config, self.seed)
        self.tokenizer = weights.tokenizer(tokenizer, self.config.vocabulary)
        self.bench = live.Bench(self.config, arrays, sound, jnp.bfloat16, self.seed)
        self.rows.add("setup", "weights", parameters=sum(value.size for value in arrays.values()))
        uses = self.points()
        first = parse_point(self.sizes.calibration[0])
        self._balancing = first._replace(part="encoder")
        self.programs.add(self._balancing, lambda: self.bench.lower(self._balancing))
        for use in ("calibration", "points", "one", "engine", "tables"):
            for point in uses[use]:
                shared = point._replace(active=0)  # of the same shapes
                self.programs.add(point, lambda point=shared: self.bench.lower(point))
        if "e" in self.stages:
            for batch in self.sizes.offline:
                for samples in serving.offline_segments(self.config, self.sizes.offline_s):
                    point = Point(batch, OFFLINE_LOOKAHEAD)
                    self.programs.add(
                        (point, samples), lambda point=point, samples=samples: self.bench.lower(point, samples)
                    )

    def close(self) -> None:
        self.programs.close()
        self._checks.close()

    def calibrate(self) -> None:
        """Sets the label rate of each look-ahead; a look-ahead that fails takes the bias of another."""
        if not set(self.stages) & set("bcdeh"):
            return
        try:
            self.programs.result(self._balancing)
            self.bench.balance(self._balancing)
        except Exception as error:
            self.rows.failed("setup", "balance", error)
        for point in self.points()["calibration"]:
            try:
                self.programs.result(point)
                bias, rate = self.bench.calibrate(point)
                self.rows.add("setup", "calibration", point=str(point), bias=bias, labels_per_frame=round(rate, 3))
            except Exception as error:
                self.rows.failed("setup", "calibration", error, point=str(point))

    def a(self) -> None:
        cases, outputs = right.cases(self.dry), {}
        for case in cases:
            facts = case._asdict()
            try:
                outputs[case] = self._checks.result(case)
            except Exception as error:
                self.rows.failed("a", "right", error, **facts)
                continue
            for dtype in dict.fromkeys(("float32", case.dtype)):
                reference = case._replace(place="cpu", dtype=dtype, variant="plain")
                if reference != case and reference in outputs:
                    found = right.compared(outputs[case], outputs[reference])
                    self.rows.add("a", "right", **facts, reference=f"cpu {dtype}", **found)

    def b(self) -> None:
        self._ceilings = card.measure(self.sizes.product_width, self.sizes.copy_bytes)
        self.rows.add("b", "ceilings", **self._ceilings._asdict())
        for point in self.points()["points"]:
            self._each("b", "step", point, lambda point=point: self._step(point))

    def _step(self, point: Point) -> dict[str, Any]:
        row, found = live.measure(self.bench, point, self.programs)
        self.tables[point] = found
        row["largest"] = kernels.largest(found, live.TRACED, LARGEST)
        if self._ceilings is not None and point.part == "step":
            bench, counted = self.bench, point.streams * card.operations(self.config, point.lookahead)
            floor = card.floor(bench.weights_bytes, bench.state_bytes, point.streams, counted, self._ceilings)
            row["operations"] = counted
            row |= {"floor_bytes_ms": round(floor.bytes_ms, 4), "floor_operations_ms": round(floor.operations_ms, 4)}
            taken = row["kernels_ms"] or row["p50_ms"]
            row["floor_share"] = round(floor.sum_ms / taken, 4)
        return row

    def _each(self, stage: str, kind: str, point: Point, call: Callable[[], dict[str, Any]]) -> None:
        facts = {"point": str(point), **point._asdict(), "chunk_ms": self.config.chunk_ms(point.lookahead)}
        facts["compiling"] = self.programs.pending
        try:
            row = call()
        except Exception as error:
            self.rows.failed(stage, kind, error, **facts)
        else:
            self.rows.add(stage, kind, **{**facts, **row})

    def c(self) -> None:
        for point in self.points()["one"]:
            call = lambda point=point: live.one_stream(
                self.bench, point.lookahead, point.variant, self.sizes.one_stream_steps
            )
            self._each("c", "one stream", point, call)

    def d(self) -> None:
        for point in self.points()["engine"]:
            call = lambda point=point: serving.paced(self.bench, point, self.tokenizer, self.sizes.engine_s, self.seed)
            self._each("d", "paced", point, call)

    def e(self) -> None:
        for number, batch in enumerate(self.sizes.offline):
            call = lambda batch=batch, first=not number: serving.offline(
                self.bench, batch, self.sizes.offline_s, self.tokenizer, OFFLINE_LOOKAHEAD, first
            )
            self._each("e", "offline", Point(batch, OFFLINE_LOOKAHEAD), call)

    def _remats(self) -> tuple[bool, ...]:
        return (True,) if self.dry else (True, False)  # without a GPU it takes a minute to compile

    def f(self) -> None:
        arrays = self.bench._arrays
        for remat in self._remats():  # these take so long to compile that other stages would wait for them
            lower = lambda remat=remat: learning.lower(self.config, self.sizes, self.seed, remat)
            self.programs.add(("training", remat), lower)
        for remat in self._remats():
            try:
                program = self.programs.result(("training", remat), max(self.limit_s - self.rows.elapsed_s, 1.0))
                row = learning.measure(self.config, arrays, self.sizes, self.seed, remat, program)
                self.rows.add("f", "training", **row)
            except Exception as error:
                self.rows.failed("f", "training", error, remat=remat)

    def g(self, timeout_s: float = 90.0) -> None:
        rows, wrong = peer.run(self.sizes, self.dry, timeout_s)
        for row in rows:
            self.rows.add("g", "peer", **row)
        if wrong:
            self.rows.add("g", "peer", error=wrong)

    def h(self) -> None:
        for point in self.points()["tables"]:
            self._each("h", "table", point, lambda point=point: self._table(point))

    def _table(self, point: Point) -> dict[str, Any]:
        found = self.tables.get(point)
        if found is None:
            _, found = live.measure(self.bench, point, self.programs)
        text = self.programs.result(point).compiled.as_text()
        return {
            "kernels_ms": round(kernels.busy_ns(found) / live.TRACED / 1e6, 3),
            "runs": len(found) / live.TRACED,
            "table": kernels.largest(found, live.TRACED, TABLE),
            "scopes_ms": kernels.by_scope(found, live.TRACED, operations(text)[1]),
        }


def speech(seconds: float, seed: int, recording: np.ndarray) -> np.ndarray:
    """The small model's example again and again, with noise of its own each time."""
    rng = np.random.default_rng(seed)
    count = round(16_000 * seconds)
    tiled = np.tile(recording, -(-count // len(recording)))[:count]
    return (tiled + 0.01 * rng.standard_normal(count, np.float32)).astype(np.float32)


def small_model() -> tuple[Any, bytes]:
    """The shipped model in float32, on the host, and its tokenizer."""
    model, _, tokenizer, _ = checkpoint.load(SMALL, jnp.float32)
    return jax.tree.map(np.asarray, model), tokenizer
