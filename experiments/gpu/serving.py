"""Paced streams through the engine, and whole recordings in batches."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import benchmark_streams
from experiments.gpu import weights
from experiments.gpu.live import Bench
from experiments.gpu.points import Point
from nemojax.audio import open_audio
from nemojax.batching import Job, cheapest_length, segment_lengths
from nemojax.config import ModelConfig
from nemojax.recognizer import Recognizer
from nemojax.tokenizer import Tokenizer
from nemojax.transducer import thaw

VOICES = 16
PATIENCE_MS = 5.0


def recognizer(bench: Bench, point: Point, tokenizer: Tokenizer) -> Recognizer:
    """A recognizer whose steps are those of a point, compiled already."""
    made = Recognizer(thaw(bench.models[point.variant]), bench.config, tokenizer)
    made.model, made.constants = bench.model(point), bench.constants
    return made


def paced(bench: Bench, point: Point, tokenizer: Tokenizer, seconds: float, seed: int) -> dict[str, Any]:
    """Latencies of a point's streams, which bring their chunks in real time."""
    settings = benchmark_streams.Settings(
        Path(), (Path(),), seconds=seconds, patience_ms=PATIENCE_MS, voices=VOICES, seed=seed
    )
    voices = recordings(bench, VOICES, seconds)

    async def serve() -> Any:
        served = benchmark_streams.serve(
            recognizer(bench, point, tokenizer), point.lookahead, voices, point.streams, settings
        )
        return await asyncio.wait_for(served, 4 * seconds + 30)

    measured, labels = asyncio.run(serve())
    chunk_ms = bench.config.chunk_ms(point.lookahead)
    frames = bench.config.encoder_frames(round(seconds * bench.config.features.sample_rate_hz))
    rate = sum(map(len, labels)) / (len(labels) * frames) if labels else None
    served = not measured["refused"] and measured["p99_ms"] < chunk_ms
    return {
        "seconds": seconds,
        "patience_ms": PATIENCE_MS,
        "chunk_ms": chunk_ms,
        **{name: value if np.isfinite(value) else None for name, value in measured.items()},
        "labels_per_frame": rate and round(rate, 3),
        "served": served,
    }


def recordings(bench: Bench, count: int, seconds: float) -> list[np.ndarray]:
    """Pieces of the bench's speech, each of which begins at another place."""
    size = round(seconds * bench.config.features.sample_rate_hz)
    chunk, speech = np.arange(size), bench._speech
    return [speech[(number * 104_729 + chunk) % len(speech)] for number in range(count)]


def offline_segments(config: ModelConfig, seconds: float) -> list[int]:
    """The lengths in samples of the segments in which a batch of equally long recordings is computed."""
    samples = round(seconds * config.features.sample_rate_hz)
    jobs = [Job(0, open_audio(np.zeros(samples, np.float32)))]
    length = cheapest_length(jobs, config, more=False)
    rest = (samples + config.history_samples) % length
    last = next((short for short in segment_lengths(config) if short > rest), length)
    return sorted({length, min(last, length)})


def offline(
    bench: Bench, batch: int, seconds: float, tokenizer: Tokenizer, lookahead: int, calibrate: bool
) -> dict[str, Any]:
    """The speed of one batch of recordings in audio seconds a second, from samples to transcripts."""
    point = Point(batch, lookahead)
    audio = recordings(bench, batch, seconds)
    made = recognizer(bench, point, tokenizer)
    frames = batch * bench.config.encoder_frames(len(audio[0]))

    def transcribe() -> tuple[float, float]:
        begin = time.perf_counter()
        transcripts: Sequence[Any] = made.transcribe(audio, lookahead, batch)
        return time.perf_counter() - begin, sum(len(t.tokens) for t in transcripts) / frames

    first_s, rate = transcribe()
    if calibrate and not 0.2 < rate < 0.45:

        def at(bias: float) -> float:
            made.model = weights.with_blank_bias(made.model, bias)
            return transcribe()[1]

        bench.bias[lookahead], rate = weights.calibrated(at, -weights.LARGEST_BIAS, weights.LARGEST_BIAS)
        made.model = bench.model(point)
    runs = [transcribe() for _ in range(3)]
    best_s = sorted(seconds for seconds, _ in runs)[1]
    return {
        "batch": batch,
        "seconds": seconds,
        "first_s": round(first_s, 3),
        "median_s": round(best_s, 3),
        "rtfx": round(batch * seconds / best_s, 1),
        "labels_per_frame": round(runs[-1][1], 3),
    }
