"""Timed steps of fresh weights: of live streams, and over a whole recording."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from nemojax.config import ModelConfig
from nemojax.kernels.selection import for_backend
from nemojax.model.parameters import freeze
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.streaming import init_state, prepare, segments_of, transcribe_scan

BLANK_BIAS = 1e4  # makes blank the most likely label, whatever the other logits are
SEGMENT_FRAMES = 70  # of a recording, at a time


class Bench:
    """One set of weights under several settings.

    Args:
      config: of the weights.
      dtype: float32, bfloat16 or int8.
      steps: timed in each call of a function that `step` returns.
      seed: of weights and samples.
    """

    def __init__(self, config: ModelConfig, dtype: str, steps: int, seed: int):
        self._config, self._dtype, self._steps, self._seed = config, dtype, steps, seed
        model = Transducer(config, rngs=nnx.Rngs(seed))
        bias = model.joint.output.bias
        assert bias is not None
        bias[...] = bias[...].at[config.blank].set(BLANK_BIAS)
        if dtype == "bfloat16":
            model = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
        self._leaves = jax.tree.leaves(self._for_backend(model))

    def _for_backend(self, model: Transducer) -> Any:
        """Lays the weights out as `nemojax.load` does."""
        return for_backend(model, int8=self._dtype == "int8")

    def _model(self, config: ModelConfig) -> Any:
        """Builds a model of these weights, which do not depend on the left context."""
        shaped = jax.eval_shape(lambda: self._for_backend(Transducer(config, rngs=nnx.Rngs(0))))
        return freeze(jax.tree.unflatten(jax.tree.structure(shaped), self._leaves))

    def step(self, streams: int, config: ModelConfig, lookahead: int) -> Callable[[], float]:
        """Returns a function that runs some steps and returns the mean seconds of one; it is compiled and warm."""
        model = self._model(config)
        batch = StreamBatch(model, prepare(model), lookahead, streams)
        given = StepInput.empty(config, streams, batch.chunk_samples)
        noise = np.random.default_rng(self._seed).normal(0, 0.05, (streams, batch.chunk_samples))
        for row in range(streams):
            given.fill(row, noise[row].astype(np.float32), first=False)

        def run(steps: int = self._steps) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                jax.device_get(batch.step(given).length)
            return (time.perf_counter() - start) / steps

        run(-(-config.encoder.left_context_frames // (lookahead + 1)) + 1)  # until the caches are full
        return run

    def transcription(self, seconds: float, lookahead: int) -> Callable[[], float]:
        """Returns a function that transcribes a recording of this length and returns the seconds that it took."""
        config = self._config
        model = self._model(config)
        constants = prepare(model)
        count = round(seconds * config.features.sample_rate_hz)
        noise = jnp.asarray(np.random.default_rng(self._seed).normal(0, 0.05, (1, count)), jnp.float32)
        chunks = SEGMENT_FRAMES // (lookahead + 1)
        segments = segments_of(noise, jnp.full(1, count, jnp.int32), lookahead, chunks, config)

        def run() -> float:
            state = init_state(model, constants, 1)
            start = time.perf_counter()
            jax.block_until_ready(transcribe_scan(model, constants, state, segments, lookahead=lookahead))
            return time.perf_counter() - start

        run()
        return run
