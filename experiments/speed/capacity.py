"""Computes how many live streams a card's memory holds, from the memory that XLA assigns to the compiled step.

    python -m experiments capacity [--preset 0.6b] [--cards-gb 80 141]

For each look-ahead and each type of cached keys and values, the step is compiled for two batch sizes, without weights
and without a state: shapes are enough. The bytes of both programs (arguments, outputs that do not reuse an argument's
memory, temporary buffers) give the bytes of a stream and the bytes that do not depend on the number of streams, which
are the weights above all. The weights are float32 beside a float32 cache, and bfloat16 otherwise.

Temporary buffers are those of the backend that compiles, which is named in each row. On a CPU they are not those of a
GPU: a CPU computes products of bfloat16 in float32, and has the plain attention in place of the fused one. Arguments
and outputs are the same everywhere. A table goes to standard output; a row for each look-ahead and type is appended to
a file of JSON lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.machine import device
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from nemojax.config import PRESETS, ModelConfig
from nemojax.errors import ConfigError

Cache = Literal["float32", "bfloat16", "int8"]


@dataclass(frozen=True)
class Settings:
    preset: str = "0.6b"
    """Name of a model's settings."""
    lookaheads: tuple[int, ...] = (0, 1, 6, 13)
    """In encoder frames."""
    caches: tuple[Cache, ...] = ("float32", "bfloat16", "int8")
    """Types of cached keys and values."""
    streams: tuple[int, int] = (2048, 4096)
    """The two batch sizes that are compiled."""
    cards_gb: tuple[float, ...] = (80.0, 141.0)
    """Memory of each card in 10^9 bytes."""
    memory_fraction: float = 0.9
    """Of a card, for the step. jax takes 0.75 of it, unless XLA_PYTHON_CLIENT_MEM_FRACTION has another value."""
    output: Path = Path("capacity.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.one_of(PRESETS, self, "preset")
        checks.at_least(1, self, "streams")
        if self.streams[0] >= self.streams[1]:
            raise ConfigError(f"--streams takes a smaller and a larger batch size, not {self.streams}")
        if min((*self.cards_gb, self.memory_fraction)) <= 0 or self.memory_fraction > 1:
            raise ConfigError("--cards-gb must be more than 0, and --memory-fraction more than 0 and at most 1")
        for lookahead in self.lookaheads:
            PRESETS[self.preset].chunk_frames(lookahead)


class Memory(NamedTuple):
    """The bytes of a compiled step; `outputs` are those that do not reuse the memory of an argument."""

    arguments: int
    outputs: int
    temporary: int


def compiled_memory(config: ModelConfig, lookahead: int, cache: Cache, streams: int) -> Memory:
    """Compiles the step of a number of streams, as `nemojax.load` would lay the model out, and returns its memory."""
    import jax
    import jax.numpy as jnp

    from nemojax.kernels.selection import for_backend
    from nemojax.model.parameters import abstract_model, freeze
    from nemojax.recognition.stream_batch import jit_step
    from nemojax.streaming import GREEDY, Segment, init_state, prepare

    # XLA's own products: those of the C++ kernel are for a CPU alone, and need weights
    laid_out = lambda model: for_backend(model, kernels="xla", cache="int8" if cache == "int8" else "auto")
    dtype = jnp.float32 if cache == "float32" else jnp.bfloat16
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), abstract_model(config))
    model = freeze(jax.eval_shape(laid_out, shapes))
    constants = jax.eval_shape(prepare, model)
    state = jax.eval_shape(lambda *given: init_state(*given, streams, GREEDY, lookahead), model, constants)
    array: Any = lambda dtype, *shape: jax.ShapeDtypeStruct((streams, *shape), dtype)
    given = array(jnp.float32, config.chunk_samples(lookahead)), array(jnp.int32), array(jnp.bool_), array(jnp.bool_)
    lowered = jit_step().lower(model, constants, state, Segment(*given), lookahead=lookahead, search=GREEDY)
    analysis: Any = lowered.compile().memory_analysis()
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return Memory(analysis.argument_size_in_bytes, outputs, analysis.temp_size_in_bytes)


def per_stream(smaller: int, larger: int, streams: tuple[int, int]) -> float:
    """Returns by how much each further stream adds to a number."""
    return (larger - smaller) / (streams[1] - streams[0])


def capacity(memory: tuple[Memory, Memory], streams: tuple[int, int], bytes_available: float) -> int:
    """Returns how many streams fit, given the memory of the step at two numbers of streams."""
    each = per_stream(sum(memory[0]), sum(memory[1]), streams)
    return max(0, int((bytes_available - sum(memory[0])) / each) + streams[0])


def table(rows: Sequence[Row]) -> str:
    cards = rows[0]["cards_gb"]
    lines = []
    for row in rows:
        each = [row["stream_bytes"][name] / 1e6 for name in Memory._fields]
        cells = [f"{row['chunk_ms']:.0f} ms", row["cache"], f"{row['fixed_bytes'] / 1e9:.2f}"]
        cells += [f"{each[0] + each[1]:.2f}", f"{each[2]:.2f}"]
        lines.append([*cells, *(f"{held:,}" for held in row["held"])])
    heads = ["chunk", "cache", "weights and the like, GB", "arguments and outputs of a stream, MB", "temporary, MB"]
    return markdown([*heads, *(f"streams on {gb:g} GB" for gb in cards)], lines, left=2)


def row_of(memory: tuple[Memory, Memory], settings: Settings) -> Row:
    """Computes the numbers of a row from the memory of the step at the two batch sizes."""
    streams, (smaller, larger) = settings.streams, memory
    each = {name: per_stream(getattr(smaller, name), getattr(larger, name), streams) for name in Memory._fields}
    available = [1e9 * gb * settings.memory_fraction for gb in settings.cards_gb]
    return {
        "memory_bytes": [one._asdict() for one in memory],
        "stream_bytes": {name: round(value) for name, value in each.items()},
        "fixed_bytes": round(sum(smaller) - streams[0] * sum(each.values())),
        "held": [capacity(memory, streams, one) for one in available],
    }


def measure(settings: Settings, rows: Rows) -> None:
    config, (smaller, larger) = PRESETS[settings.preset], settings.streams
    names = ("preset", "streams", "cards_gb", "memory_fraction")
    common = {name: getattr(settings, name) for name in names} | {"device": device()}
    with tqdm(desc="compiling", total=2 * len(settings.lookaheads) * len(settings.caches), disable=None) as bar:

        def compiled(lookahead: int, cache: Cache, streams: int) -> Memory:
            found = compiled_memory(config, lookahead, cache, streams)
            bar.update()
            return found

        for lookahead in settings.lookaheads:
            for cache in settings.caches:
                memory = compiled(lookahead, cache, smaller), compiled(lookahead, cache, larger)
                point = {"lookahead": lookahead, "chunk_ms": config.chunk_ms(lookahead), "cache": cache}
                rows.add({**common, **point, **row_of(memory, settings)})


EXPERIMENT = Experiment("capacity", Settings, measure, __doc__, table, packages=("nemojax", "jax", "jaxlib", "flax"))
main = EXPERIMENT.main
