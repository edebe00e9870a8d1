"""Where the time of a streaming step goes: a profiler's trace of some steps, and a table of its named scopes.

    python -m experiments profile_step [MODEL] [--lookahead 1] [--dtype int8] [--streams 8 --chunks 5] [--output DIR]

Steps of a real recording, warmed up until the left context is full; then some without and some with the profiler.
One stream and one chunk a step is live streaming; a batch transcription is the same step with many of both. The trace
in the output directory is for xprof, TensorBoard and Perfetto, `step.hlo` beside it is the compiled step, and the
table's row goes to `profile.jsonl` there, after those that are there. experiments/speed/README.md says how to read them.

Exit codes: 0, all is done; 2, the command, the model or the recording is wrong.
"""  # noqa: E501

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.accuracy.evaluate import Flag
from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import writable
from experiments.speed import trace
from nemojax.audio.source import read_all
from nemojax.bundled import SMALL
from nemojax.errors import ConfigError
from nemojax.recognition.recognizer import Recognizer, load
from nemojax.recognition.stream_batch import jit_step
from nemojax.streaming import Segment, init_state

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy")
STEP = "nemojax step"  # the annotation around each step in the trace
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]] = SMALL
    """A native checkpoint; by default the small model that comes with nemojax."""
    audio: Path = SMALL / "example.ogg"
    """What is heard, again and again; every stream begins at another place of it."""
    lookahead: int | None = None
    """In encoder frames; by default the model's default."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    streams: int = 1
    """Side by side in a step."""
    chunks: int = 1
    """Of each stream in a step; one is live streaming."""
    steps: int = 20
    each_block: Flag = False
    """A row for every block of the encoder, rather than for all blocks together."""
    output: Path = Path("profile")
    """A directory; an earlier trace in it stays."""

    def check(self) -> None:
        for name in ("streams", "chunks", "steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} must be at least 1, not {getattr(self, name)}")


class Steps:
    """A compiled step and what it hears; a call runs the next one, to its end."""

    def __init__(self, recognizer: Recognizer, samples: np.ndarray, lookahead: int, streams: int, chunks: int):
        config, self._model, self._constants = recognizer.config, recognizer.model, recognizer.constants
        self._samples, self._size = samples, chunks * config.chunk_samples(lookahead)
        self._begins = np.arange(streams) * len(samples) // streams
        self._state, self._heard = init_state(self._model, self._constants, streams), 0
        self._left_context = -(-config.encoder.left_context_frames // (chunks * config.chunk_frames(lookahead)))
        with metadata_in_key():
            lowered = jit_step().lower(self._model, self._constants, self._state, self._segment(), lookahead=lookahead)
            self._compiled = lowered.compile()
        self.text: str = self._compiled.as_text()

    def _segment(self) -> Segment:
        at = (self._begins[:, None] + self._heard + np.arange(self._size)) % len(self._samples)
        on = jnp.ones(len(at), bool)
        return Segment(jnp.asarray(self._samples[at]), jnp.full(len(at), self._size, jnp.int32), on, ~on)

    def warm_up(self) -> None:
        """Until the left context is full: what is masked costs as much, but labels cost more than none."""
        for _ in range(self._left_context + 1):
            self()

    def __call__(self, annotation: Callable[[], AbstractContextManager[Any]] = nullcontext) -> float:
        """Seconds of the next step alone: its input is made before."""
        segment = jax.block_until_ready(self._segment())
        start = time.perf_counter()
        with annotation():
            self._state, emission = self._compiled(self._model, self._constants, self._state, segment)
            jax.block_until_ready((self._state, emission))
        self._heard += self._size
        return time.perf_counter() - start


@contextmanager
def metadata_in_key() -> Iterator[None]:
    """jax's cache on disk tells functions apart that differ in their scopes alone; else the scopes may be old ones."""
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def record(steps: Steps, count: int, directory: Path, each_block: bool) -> trace.Times:
    """Runs steps under the profiler, which writes to a directory, and reads what it wrote."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # an event for each call of Python would slow the steps down
    with jax.profiler.trace(str(directory), profiler_options=options):
        for number in range(count):
            steps(lambda number=number: jax.profiler.StepTraceAnnotation(STEP, step_num=number))
    module, known = trace.operations(steps.text)
    annotated, events = trace.read(directory, module, STEP)
    if len(annotated) != count or not events:
        raise ConfigError(
            f"the profiler noted {len(annotated)} of {count} steps and {len(events)} operations in {directory}: "
            "run fewer --steps, or another version of jax"
        )
    if not each_block:
        merged = lambda scope: re.sub(r"\bblock\d+", "blocks", scope or "")
        known = {name: operation._replace(scope=merged(operation.scope)) for name, operation in known.items()}
    return trace.times(faster_half(annotated, lambda step: step.end_ns - step.begin_ns), events, known)


def faster_half(items: Sequence[T], seconds: Callable[[T], Any] = lambda item: item) -> list[T]:
    """The others were disturbed, by whatever else the machine does."""
    return sorted(items, key=seconds)[: (len(items) + 1) // 2]


def table(row: dict[str, Any]) -> str:
    """Markdown: milliseconds a step in each scope, and its share of the step."""
    lines = [["scope", "ms a step", "%"], ["---", "---:", "---:"]]
    for scope, ms in [*row["scopes_ms"].items(), ("the whole step", row["traced_ms"])]:
        lines.append([scope, f"{ms:.3f}", f"{100 * ms / row['traced_ms']:.1f}"])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def read_audio(path: Path) -> np.ndarray:
    """Raises AudioError where it can't be read, ConfigError where there is nothing in it."""
    samples = read_all(path)
    if not len(samples):
        raise ConfigError(f"{path} holds no samples; give --audio a recording of speech")
    return np.asarray(samples, np.float32)


def run(settings: Settings) -> int:
    settings.check()
    recognizer, samples = load(settings.model, settings.dtype), read_audio(settings.audio)
    lookahead = recognizer.lookahead(settings.lookahead)
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{settings.output} can't be written ({error.strerror})") from None
    with writable(settings.output / "profile.jsonl", "a") as output:
        steps = Steps(recognizer, samples, lookahead, settings.streams, settings.chunks)
        (settings.output / "step.hlo").write_text(steps.text)
        steps.warm_up()
        plain_s = statistics.mean(faster_half([steps() for _ in range(settings.steps)]))
        times = record(steps, settings.steps, settings.output, settings.each_block)
        row = {
            "experiment": "profile",
            "model": str(settings.model),
            "parameters": recognizer.parameters,
            "dtype": recognizer.dtype,
            "audio": settings.audio.name,
            "lookahead": lookahead,
            "chunk_ms": recognizer.config.chunk_ms(lookahead),
            **{name: getattr(settings, name) for name in ("streams", "chunks", "steps")},
            "plain_ms": round(1000 * plain_s, 4),
            "traced_ms": round(1000 * times.whole_s, 4),
            "inferred_ms": round(1000 * times.inferred_s, 4),
            "scopes_ms": {scope: round(1000 * seconds, 4) for scope, seconds in times.scopes.items()},
        }
        output.write(json.dumps({**row, "device": device(), **machine(PACKAGES)}) + "\n")
    print(table(row))
    print(
        f"\nMeans of the faster half of {settings.steps} steps. Without the profiler such a step takes "
        f"{row['plain_ms']:.3f} ms. Operations that the compiler gave no name, "
        f"{100 * times.inferred_s / times.whole_s:.1f} % of the step, count for the scope of what they are made of or "
        f"read. The trace is in {settings.output}."
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "profile_step", __doc__, arguments)
