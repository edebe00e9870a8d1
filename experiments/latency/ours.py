"""nemojax as a contender of `compare_latency`."""

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.latency.contender import Step
from nemojax import streaming
from nemojax.config import FeatureConfig, ModelConfig
from nemojax.model import features
from nemojax.model.parameters import thaw
from nemojax.recognition.recognizer import load
from nemojax.recognition.stream_batch import StepInput
from nemojax.streaming import Segment


@partial(jax.jit, static_argnames="lookahead")
def encode(model: Any, constants: Any, state: Any, segment: Segment, lookahead: int) -> Any:
    return streaming.encode(thaw(model), constants, state, segment, lookahead)


@jax.jit
def decode(model: Any, encoded: Any, length: Any, prediction: Any) -> Any:
    return streaming.GREEDY.decode(thaw(model), encoded, length, prediction)


def log_mel_of(samples: np.ndarray, mel_bins: int) -> np.ndarray:
    """Returns the log-mel frames of a recording, [F, M], for a peer that computes none."""
    config = ModelConfig(features=FeatureConfig(mel_bins=mel_bins))
    hop, before = config.features.hop_samples, config.history_samples
    padded = np.pad(samples, (before, -(before + len(samples)) % hop))
    cache = features.initial_cache(config.features, 1)
    position = jnp.arange(len(padded))
    valid = (position >= before) & (position < before + len(samples))
    frames, _ = features.step(jnp.asarray(padded[None]), valid[None], cache, config.features)
    return np.asarray(frames[0, config.subsampling_factor - 1 :])


class Nemojax:
    """The recognizer of `nemojax.load`.

    Args:
      directory: with the native checkpoints `native` and `int8`.
      dtype: of the weights.
    """

    def __init__(self, directory: Path, dtype: str):
        self._recognizer = load(directory / ("int8" if dtype == "int8" else "native"), dtype)

    def stream(self, samples: np.ndarray, lookahead: int, parts: bool = True) -> Iterator[Step]:
        """Times whole steps as a user makes them, by `Stream.push`; the parts are compiled and timed apart."""
        whole = self._whole(samples, lookahead)
        if not parts:
            yield from (Step(seconds, math.nan, math.nan, tokens) for seconds, tokens in whole)
            return
        for (seconds, tokens), part in zip(list(whole), self._parts(samples, lookahead), strict=True):
            yield Step(seconds, *part, tokens)

    def _whole(self, samples: np.ndarray, lookahead: int) -> Iterator[tuple[float, tuple[int, ...]]]:
        stream, begin = self._recognizer.stream(lookahead), 0
        chunk, history = stream.chunk_samples, self._recognizer.config.history_samples
        for end in range(chunk - history, len(samples) + 1, chunk):
            start = time.perf_counter()
            update = stream.push(samples[begin:end])
            yield time.perf_counter() - start, update.tokens
            begin = end

    def _parts(self, samples: np.ndarray, lookahead: int) -> Iterator[tuple[float, float]]:
        model, constants, config = self._recognizer.model, self._recognizer.constants, self._recognizer.config
        chunk, padded = config.chunk_samples(lookahead), np.pad(samples, (config.history_samples, 0))
        state, given = streaming.init_state(model, constants, 1), StepInput.empty(config, 1, chunk)
        for one in padded[: len(padded) // chunk * chunk].reshape(-1, chunk):
            start = time.perf_counter()
            given.fill(0, one, first=False)
            encoded, mask, state = encode(model, constants, state, given.segment(), lookahead)
            jax.block_until_ready(encoded)
            middle = time.perf_counter()
            emission, prediction = decode(model, encoded, mask.sum(1), state.decoder)
            jax.device_get(emission)
            yield middle - start, time.perf_counter() - middle
            state = state._replace(decoder=prediction)

    def transcribe(self, recordings: Sequence[np.ndarray], lookahead: int, batch_size: int) -> list[tuple[int, ...]]:
        transcripts = self._recognizer.transcribe(list(recordings), lookahead, batch_size)
        assert isinstance(transcripts, list)
        return [transcript.tokens for transcript in transcripts]
