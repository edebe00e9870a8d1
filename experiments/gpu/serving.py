"""Paced streams through the engine, and whole recordings in batches."""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.gpu import weights
from experiments.gpu.bench import Bench
from experiments.gpu.calibration import LARGEST_BIAS, search_bias
from experiments.gpu.points import Point
from experiments.speed import streams
from nemojax.audio.source import open_audio
from nemojax.config import ModelConfig
from nemojax.model.parameters import thaw
from nemojax.recognition.hypothesis import Hypothesis
from nemojax.recognition.offline import Job, cheapest_length, segment_lengths
from nemojax.recognition.recognizer import Recognizer
from nemojax.text.tokenizer import Tokenizer

VOICES = 16
PATIENCE_MS = 5.0
RATES = 0.2, 0.45  # labels per frame that count as the rate of speech


def recognizer(bench: Bench, point: Point, tokenizer: Tokenizer) -> Recognizer:
    """Returns a recognizer whose step is that of a point, compiled already."""
    return Recognizer(thaw(bench.model(point)), bench.config, tokenizer, compiler_options=bench.options(point))


def paced(bench: Bench, point: Point, tokenizer: Tokenizer, seconds: float, seed: int) -> dict[str, Any]:
    """Measures the latencies of a point's streams, whose chunks arrive in real time."""
    settings = streams.Settings(Path(), (Path(),), seconds=seconds, patience_ms=PATIENCE_MS, voices=VOICES, seed=seed)
    voices = recordings(bench, VOICES, seconds)

    async def serve() -> tuple[dict[str, Any], list[tuple[int, ...]]]:
        served = streams.serve(recognizer(bench, point, tokenizer), point.lookahead, voices, point.streams, settings)
        return await asyncio.wait_for(served, 4 * seconds + 30)

    measured, labels = asyncio.run(serve())
    chunk_ms = bench.config.chunk_ms(point.lookahead)
    frames = bench.config.encoder_frames(len(voices[0]))
    rate = sum(map(len, labels)) / (len(labels) * frames) if labels else None
    in_time = measured["p99_ms"] is not None and measured["p99_ms"] < chunk_ms
    return {
        "seconds": seconds,
        "patience_ms": PATIENCE_MS,
        **measured,
        "labels_per_frame": rate and round(rate, 3),
        "served": in_time and not measured["refused"],
    }


def recordings(bench: Bench, count: int, seconds: float) -> list[np.ndarray]:
    """Returns pieces of the bench's speech, each of which begins at another place."""
    size = round(seconds * bench.config.features.sample_rate_hz)
    offsets, speech = np.arange(size), bench.speech
    return [speech[(number * 104_729 + offsets) % len(speech)] for number in range(count)]


def offline_segments(config: ModelConfig, tokenizer: Tokenizer, seconds: float) -> list[int]:
    """Returns the lengths in samples of the segments in which a batch of equally long recordings is computed."""
    samples = round(seconds * config.features.sample_rate_hz)
    job = Job(0, open_audio(np.zeros(samples, np.float32)), Hypothesis(config, tokenizer))
    length = cheapest_length([job], config, more=False)
    rest = (samples + config.history_samples) % length
    last = next((short for short in segment_lengths(config) if short > rest), length)
    return sorted({length, min(last, length)})


def offline(
    bench: Bench, point: Point, seconds: float, tokenizer: Tokenizer, calibrate: bool = False
) -> dict[str, Any]:
    """Measures the speed of one batch of recordings in audio seconds a second, from samples to transcripts.

    Args:
      calibrate: fit the look-ahead's bias on blank to the label rate of speech, where it is not.
    """
    batch, lookahead = point.streams, point.lookahead
    audio = recordings(bench, batch, seconds)
    batched = recognizer(bench, point, tokenizer)
    frames = batch * bench.config.encoder_frames(len(audio[0]))

    def transcribe() -> tuple[float, float]:
        begin = time.perf_counter()
        transcripts = batched.transcribe(audio, lookahead, batch)
        assert isinstance(transcripts, list)
        return time.perf_counter() - begin, sum(len(transcript.tokens) for transcript in transcripts) / frames

    def rate_at(bias: float) -> float:
        batched.model = weights.with_blank_bias(batched.model, bias)
        return transcribe()[1]

    first_s, rate = transcribe()
    if calibrate and not RATES[0] < rate < RATES[1]:
        bench.bias[lookahead], _ = search_bias(rate_at, -LARGEST_BIAS, LARGEST_BIAS)
        batched.model = bench.model(point)
    runs = [transcribe() for _ in range(3)]
    median_s = sorted(seconds for seconds, _ in runs)[1]
    return {
        "batch": batch,
        "seconds": seconds,
        "first_s": round(first_s, 3),
        "median_s": round(median_s, 3),
        "rtfx": round(batch * seconds / median_s, 1),
        "labels_per_frame": round(runs[-1][1], 3),
    }
