"""Times a step in processes of their own, each on a number of cores."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from nemojax.config import ModelConfig

_run: Callable[[], float]  # of this process


def step(
    processes: ExitStack, threads: int, streams: int, config: ModelConfig, lookahead: int, bench: tuple[Any, ...]
) -> Callable[[], float]:
    """Returns a function like that of `Bench.step`, whose steps run on this many cores.

    Args:
      processes: where the process ends.
      bench: the arguments of `Bench`.
    """
    context = multiprocessing.get_context("spawn")  # jax counts the cores when it starts
    pool = processes.enter_context(ProcessPoolExecutor(1, context, _limit, (threads,)))
    pool.submit(_prepare, bench, streams, config, lookahead).result()
    return lambda: pool.submit(_measure).result()


def _limit(threads: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _prepare(bench: tuple[Any, ...], streams: int, config: ModelConfig, lookahead: int) -> None:
    global _run
    from experiments.speed.growth_bench import Bench

    _run = Bench(*bench).step(streams, config, lookahead)


def _measure() -> float:
    return _run()
