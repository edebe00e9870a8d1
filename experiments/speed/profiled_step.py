"""A compiled streaming step that runs under jax's profiler."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.speed import trace
from nemojax.errors import ConfigError
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StepInput, jit_step
from nemojax.streaming import Segment, init_state

STEP = "nemojax step"  # the annotation around each step in the trace


class ProfiledStep:
    """A compiled step with its state and samples; each call runs the next step to its end.

    Args:
      samples: of a recording, repeated without end; every stream begins at another place of it.
      streams: side by side in a step.
      chunks: of each stream in a step.
    """

    def __init__(self, recognizer: Recognizer, samples: np.ndarray, lookahead: int, streams: int, chunks: int):
        config, self._model, self._constants = recognizer.config, recognizer.model, recognizer.constants
        self._config = config
        self._samples, self._size = samples, chunks * config.chunk_samples(lookahead)
        self._begins = np.arange(streams) * len(samples) // streams
        self._state, self._position = init_state(self._model, self._constants, streams), 0
        self._left_context = -(-config.encoder.left_context_frames // (chunks * config.chunk_frames(lookahead)))
        with metadata_in_key():
            lowered = jit_step().lower(self._model, self._constants, self._state, self._segment(), lookahead=lookahead)
            self._compiled = lowered.compile()
        self.text: str = self._compiled.as_text()

    def _segment(self) -> Segment:
        at = (self._begins[:, None] + self._position + np.arange(self._size)) % len(self._samples)
        given = StepInput.empty(self._config, *at.shape)
        for row, samples in enumerate(self._samples[at]):
            given.fill(row, samples, first=False)
        return given.segment()

    def warm_up(self) -> None:
        """Runs steps until the left context is full: masked frames cost as much, but labels cost more than none."""
        for _ in range(self._left_context + 1):
            self()

    def __call__(self, annotation: Callable[[], AbstractContextManager[Any]] = nullcontext) -> float:
        """Runs the next step and returns its seconds; its input is made before the clock starts."""
        segment = jax.block_until_ready(self._segment())
        start = time.perf_counter()
        with annotation():
            self._state, emission = self._compiled(self._model, self._constants, self._state, segment)
            jax.block_until_ready((self._state, emission))
        self._position += self._size
        return time.perf_counter() - start


@contextmanager
def metadata_in_key() -> Iterator[None]:
    """Makes jax's cache on disk distinguish functions that differ in their scopes alone.

    Otherwise a step from the cache may have the scopes of older code.
    """
    name = "jax_compilation_cache_include_metadata_in_key"
    before = getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)


def record(step: ProfiledStep, count: int, directory: Path, by: str) -> trace.Times:
    """Runs steps under the profiler, which writes a trace to a directory, and reads the trace.

    Times are `by` "scope", with all blocks together, by "block", or by "kind" (`trace.kind_of`).
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # an event for each call of Python would slow the steps down
    with jax.profiler.trace(str(directory), profiler_options=options):
        for number in range(count):
            step(partial(jax.profiler.StepTraceAnnotation, STEP, step_num=number))
    module, known = trace.operations(step.text)
    annotated, events = trace.read(directory, module, STEP)
    if len(annotated) != count or not events:
        raise ConfigError(
            f"the profiler noted {len(annotated)} of {count} steps and {len(events)} operations in {directory}: "
            "run fewer --steps, or another version of jax"
        )
    for name, operation in known.items():
        if by == "kind":
            known[name] = operation._replace(scope=trace.kind_of(operation))
        elif by == "scope":
            known[name] = operation._replace(scope=re.sub(r"\bblock\d+", "blocks", operation.scope or ""))
    return trace.times(trace.faster_half(annotated, lambda event: event.end_ns - event.begin_ns), events, known)
