"""Compiles ahead of time what a recognizer will need, so that the first text of a later process waits for nothing."""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np

from nemojax.recognition.offline import batch_sizes, segment_lengths
from nemojax.recognition.recognizer import Recognizer
from nemojax.serving.engine import Engine

MAX_WORKERS = 8  # programs that are compiled side by side; each needs up to a gigabyte for a large model


def warm(
    recognizer: Recognizer,
    lookaheads: Sequence[int] = (),
    batch_size: int = 8,
    streams: Sequence[int] = (),
    progress: Callable[[int, int], object] = lambda done, count: None,
) -> None:
    """Compiles the programs of streams, of transcriptions and of engines. Where they are kept is up to `load`.

    Args:
      lookaheads: in encoder frames; none for the model's default.
      batch_size: the largest of `transcribe`; 0 where no recordings are transcribed.
      streams: the `slots` of an `Engine`, if there is one.
      progress: called with the number of steps that are compiled, and of all.

    Raises:
      ConfigError: a look-ahead does not fit the model, or a number is out of range.
    """
    frames = [recognizer.lookahead(lookahead) for lookahead in lookaheads or (None,)]
    jobs = [job for lookahead in frames for job in _jobs(recognizer, lookahead, batch_size)]
    with ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1)) as workers:
        for done, _ in enumerate(workers.map(lambda job: job(), jobs), 1):
            progress(done, len(jobs))
    if streams:
        for lookahead in frames:
            asyncio.run(_start(Engine(recognizer, lookahead, streams)))


def _jobs(recognizer: Recognizer, lookahead: int, batch_size: int) -> Iterator[Callable[[], None]]:
    yield partial(_compile, recognizer, lookahead, 1, recognizer.config.chunk_samples(lookahead))
    sizes = batch_sizes(batch_size) if batch_size else []
    for size in sizes:
        for samples in segment_lengths(recognizer.config):
            yield partial(_compile, recognizer, lookahead, size, samples)
        if jax.default_backend() == "cpu":  # elsewhere a batch keeps its size
            for smaller in (each for each in sizes if each < size):
                yield partial(_shrink, recognizer, lookahead, size, smaller)


def _compile(recognizer: Recognizer, lookahead: int, size: int, samples: int) -> None:
    recognizer.batch(size, lookahead).compile(samples)


def _shrink(recognizer: Recognizer, lookahead: int, size: int, smaller: int) -> None:
    recognizer.batch(size, lookahead).keep(np.arange(smaller))


async def _start(engine: Engine) -> None:
    """Starts an engine, which compiles its steps, and stops it."""
    async with engine:
        pass
