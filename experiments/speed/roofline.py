"""What a step of many live streams must take at least on a given device: bytes moved, arithmetic, and memory.

    python -m experiments roofline [--preset 0.6b] [--streams 2400 5600 10000 10000]

Nothing is run: the step is traced for shapes alone, and XLA counts its operations. Weights are read once a step,
whatever the number of streams; each stream's state is read once and written once. A step can't be faster than the
larger of the two times, and would not be slower than their sum, were all else free: launches, passes over scores,
copies, and the search for labels, of which one round is counted. A table goes to standard output, a row for each
look-ahead to JSON lines, after those that are there.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.harness.command import command
from experiments.harness.machine import machine
from experiments.harness.output import markdown, writable
from nemojax.config import PRESETS, ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.parameters import abstract_model
from nemojax.streaming import Segment, init_state, prepare, step

PACKAGES = ("nemojax", "jax", "jaxlib", "flax")
Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    preset: str = "0.6b"
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    streams: tuple[int, ...] = (2400, 5600, 10_000, 10_000)
    """At each look-ahead."""
    device: str = "NVIDIA H200"
    bytes_per_second: float = 4.8e12
    """That its memory gives; of an H200 by its data sheet."""
    operations_per_second: float = 989e12
    """In bfloat16, dense, by the same."""
    memory_bytes: float = 141e9
    output: Path = Path("roofline.jsonl")

    def check(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset: {self.preset!r} is none of {', '.join(PRESETS)}")
        if len(self.lookaheads) != len(self.streams) or min(self.streams, default=0) < 1:
            raise ConfigError("--streams takes a number for each of --lookaheads, at least 1")
        if min(self.bytes_per_second, self.operations_per_second, self.memory_bytes) <= 0:
            raise ConfigError("--bytes-per-second, --operations-per-second and --memory-bytes must be more than 0")
        for lookahead in self.lookaheads:
            PRESETS[self.preset].chunk_frames(lookahead)


def tree_bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count(config: ModelConfig, lookahead: int) -> dict[str, int]:
    """Of one stream's step in bfloat16: bytes of weights and of state, and operations."""
    half = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16)
    model = jax.tree.map(half, abstract_model(config))
    constants = jax.eval_shape(prepare, model)
    state = jax.eval_shape(lambda m, c: init_state(m, c, 1), model, constants)
    shape, samples = jax.ShapeDtypeStruct, config.chunk_samples(lookahead)
    flag = shape((1,), jnp.bool)
    segment = Segment(shape((1, samples), jnp.float32), shape((1,), jnp.int32), flag, flag)
    lowered = jax.jit(step, static_argnames="lookahead").lower(model, constants, state, segment, lookahead=lookahead)
    return {
        "weights_bytes": tree_bytes(model) + tree_bytes(constants),
        "state_bytes": tree_bytes(state),
        "operations": round(lowered.cost_analysis()["flops"]),
    }


def bound(counted: dict[str, int], lookahead: int, streams: int, settings: Settings) -> Row:
    moved = counted["weights_bytes"] + 2 * streams * counted["state_bytes"]
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


def run(settings: Settings) -> int:
    settings.check()
    rows: list[Row] = []
    rates = {name: getattr(settings, name) for name in ("preset", "bytes_per_second", "operations_per_second")}
    with writable(settings.output, "a") as output:
        for lookahead, streams in zip(settings.lookaheads, settings.streams, strict=True):
            row = bound(count(PRESETS[settings.preset], lookahead), lookahead, streams, settings)
            rows.append(row)
            facts = {"experiment": "roofline", "device": settings.device, **rates, **machine(PACKAGES)}
            output.write(json.dumps({**facts, **row}) + "\n")
            if row["memory_bytes"] > settings.memory_bytes:
                print(f"look-ahead {lookahead}: {streams} streams do not fit the device's memory", file=sys.stderr)
    print(table(rows))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "roofline", __doc__, arguments)
