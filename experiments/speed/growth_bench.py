"""Timed steps of fresh weights: of live streams, alone and in an engine, and over a whole recording."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.references.tokenizer import train_tokenizer
from nemojax.config import ModelConfig
from nemojax.kernels.selection import for_backend
from nemojax.model.parameters import freeze, thaw
from nemojax.model.transducer import Transducer
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.serving.engine import Engine
from nemojax.streaming import prepare
from nemojax.text.tokenizer import Tokenizer

BLANK_BIAS = 1e4  # makes blank the most likely label, whatever the other logits are
WARM_S = 100.0  # of a recording that is transcribed before the clock starts


class Bench:
    """One set of weights under several settings.

    Args:
      config: of the weights.
      dtype: float32, bfloat16 or int8.
      steps: timed in each call of a function that `step` returns.
      seed: of weights and samples.
    """

    def __init__(self, config: ModelConfig, dtype: str, steps: int, seed: int):
        self.arguments = config, dtype, steps, seed
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

    def _recognizer(self) -> Recognizer:
        config = self._config
        return Recognizer(thaw(self._model(config)), config, _tokenizer(config.vocabulary))

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

    def engine(self, streams: int, lookahead: int) -> Callable[[], float]:
        """Returns a function that serves live streams in an engine as fast as it can.

        It returns the mean seconds of a chunk of all of them, from the push of the first to the text of the last.
        """
        recognizer = self._recognizer()

        async def serve(steps: int) -> float:
            done: asyncio.Queue[int] = asyncio.Queue()
            report = lambda step: done.put_nowait(len(step.streams))
            async with Engine(recognizer, lookahead, (streams,), on_step=report) as engine:
                chunk = np.random.default_rng(self._seed).normal(0, 0.05, engine.chunk_samples).astype(np.float32)
                opened, packets = [engine.open() for _ in range(streams)], np.tile(chunk, (streams, 1))
                start = 0.0
                for _ in range(steps + 1):  # the first warms up
                    engine.push_nowait(opened, packets)
                    missing = streams
                    while missing:
                        missing -= await done.get()
                    start = start or time.perf_counter()
                seconds = (time.perf_counter() - start) / steps
                for stream in opened:
                    stream.close()
            return seconds

        run = lambda: asyncio.run(serve(self._steps))
        run()
        return run

    def transcription(self, seconds: float, lookahead: int) -> Callable[[], float]:
        """Returns a function that transcribes a recording of this length and returns the seconds that it took."""
        recognizer, rate_hz = self._recognizer(), self._config.features.sample_rate_hz
        noise = np.random.default_rng(self._seed).normal(0, 0.05, round(seconds * rate_hz)).astype(np.float32)

        def run(samples: np.ndarray = noise) -> float:
            start = time.perf_counter()
            recognizer.transcribe(samples, lookahead, batch_size=1)
            return time.perf_counter() - start

        run(noise[: round(WARM_S * rate_hz)])
        return run


def _tokenizer(pieces: int) -> Tokenizer:
    with tempfile.TemporaryDirectory() as directory:
        train_tokenizer(directory, pieces)
        return Tokenizer((Path(directory) / "tokenizer.model").read_bytes())
