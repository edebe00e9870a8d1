"""Computes how long a step of many live streams must take at least on a device: bytes moved, arithmetic, and memory.

    python -m experiments roofline [--preset 0.6b] [--streams 8000 10000 14000 14000]

Nothing runs: the step is traced for shapes alone, and XLA counts its operations. Weights are read once a step, whatever
the number of streams; each stream's state is read once, and what changes of it is written once: of its rings the new
frames alone. A step can't be faster than the larger of the
two times. It need not be slower than their sum if everything else were free: launches, passes over scores, copies, and
the search for labels, of which one round is counted. A table goes to standard output; a row for each look-ahead is
appended to a file of JSON lines.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from experiments.speed.engine_overhead import check_pairs
from nemojax.config import PRESETS, ModelConfig
from nemojax.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    preset: str = "0.6b"
    """Name of a model's settings."""
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    """In encoder frames."""
    streams: tuple[int, ...] = (8000, 10_000, 14_000, 14_000)
    """At each look-ahead."""
    device: str = "NVIDIA H200"
    """Name of the device, for the rows."""
    bytes_per_second: float = 4.8e12
    """Of the device's memory; an H200's by its data sheet."""
    operations_per_second: float = 989e12
    """Of the device in bfloat16, dense; an H200's by its data sheet."""
    memory_bytes: float = 141e9
    """Of the device."""
    output: Path = Path("roofline.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.one_of(PRESETS, self, "preset")
        check_pairs(self.lookaheads, self.streams)
        if min(self.bytes_per_second, self.operations_per_second, self.memory_bytes) <= 0:
            raise ConfigError("--bytes-per-second, --operations-per-second and --memory-bytes must be more than 0")
        for lookahead in self.lookaheads:
            PRESETS[self.preset].chunk_frames(lookahead)


def tree_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree, or of their shapes."""
    import jax

    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count(config: ModelConfig, lookahead: int) -> dict[str, int]:
    """Counts what one stream's step in bfloat16 moves and computes: bytes of weights, state and writes, operations."""
    import jax
    import jax.numpy as jnp

    from nemojax.model.parameters import abstract_model
    from nemojax.model.ring import Ring
    from nemojax.recognition.stream_batch import StepInput
    from nemojax.streaming import init_state, prepare, step

    model = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), abstract_model(config))
    constants = jax.eval_shape(prepare, model)
    state = jax.eval_shape(lambda m, c: init_state(m, c, 1, lookahead=lookahead), model, constants)
    segment = StepInput.empty(config, 1, config.chunk_samples(lookahead)).segment()
    jitted = jax.jit(step, static_argnames="lookahead")
    lowered = jitted.lower(model, constants, state, segment, lookahead=lookahead)
    analysis: Any = lowered.cost_analysis()
    rings = [x for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Ring)) if isinstance(x, Ring)]
    kept = sum(tree_bytes(ring) * (1 - config.chunk_frames(lookahead) / ring.slots) for ring in rings)
    return {
        "weights_bytes": tree_bytes(model) + tree_bytes(constants),
        "state_bytes": tree_bytes(state),
        "written_bytes": round(tree_bytes(state) - kept),
        "operations": round(analysis["flops"]),
    }


def bound(counted: dict[str, int], lookahead: int, streams: int, settings: Settings) -> Row:
    """Computes the row of a look-ahead from the counts of `count`."""
    moved = counted["weights_bytes"] + streams * (counted["state_bytes"] + counted["written_bytes"])
    return {
        "lookahead": lookahead,
        "chunk_ms": PRESETS[settings.preset].chunk_ms(lookahead),
        "streams": streams,
        **counted,
        "memory_bytes": counted["weights_bytes"] + streams * counted["state_bytes"],
        "memory_ms": round(1000 * moved / settings.bytes_per_second, 3),
        "arithmetic_ms": round(1000 * streams * counted["operations"] / settings.operations_per_second, 3),
    }


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        total = row["memory_ms"] + row["arithmetic_ms"]
        cells = [f"{row['chunk_ms']:.0f} ms", f"{row['streams']:,}", f"{row['memory_bytes'] / 1e9:.0f}"]
        cells += [f"{row['operations'] / 1e9:.1f}", f"{row['memory_ms']:.1f}", f"{row['arithmetic_ms']:.1f}"]
        lines.append([*cells, f"{100 * total / row['chunk_ms']:.0f}"])
    heads = ["chunk", "streams", "memory, GB", "GFLOP a stream", "moving bytes, ms", "arithmetic, ms"]
    return markdown([*heads, "both, % of the chunk"], lines)


def measure(settings: Settings, rows: Rows) -> None:
    common = {name: getattr(settings, name) for name in ("device", "preset", "bytes_per_second")}
    common["operations_per_second"] = settings.operations_per_second
    for lookahead, streams in zip(settings.lookaheads, settings.streams, strict=True):
        row = bound(count(PRESETS[settings.preset], lookahead), lookahead, streams, settings)
        rows.add({**common, **row})
        if row["memory_bytes"] > settings.memory_bytes:
            print(f"look-ahead {lookahead}: {streams} streams do not fit the device's memory", file=sys.stderr)


EXPERIMENT = Experiment("roofline", Settings, measure, __doc__, table, packages=("nemojax", "jax", "jaxlib", "flax"))
main = EXPERIMENT.main
