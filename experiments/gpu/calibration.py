"""Fits random weights to the label rate of speech."""

from collections.abc import Callable

import numpy as np

from experiments.gpu import weights
from experiments.gpu.bench import Bench
from experiments.gpu.live import Live
from experiments.gpu.points import Point
from nemojax.model.parameters import thaw

LABELS_PER_FRAME = 0.3  # of English, at 80 ms a frame
LARGEST_BIAS = 12.0  # on blank, of a balanced joint network
ROUNDS = 10  # of bisection


def balance(bench: Bench, point: Point, seed: int, steps: int = 40) -> None:
    """Replaces the joint network's weights by balanced ones, from encoder frames of a point of part "encoder"."""
    live = Live(bench, point)
    live.warm_up()  # the frames at the beginning of a stream differ
    width = bench.config.encoder.width
    frames = np.concatenate([np.asarray(live.step(), np.float32).reshape(-1, width) for _ in range(steps)])
    predicted = weights.predictions(thaw(bench.model(point)), 128, 16, seed)
    sample = np.random.default_rng(seed).permutation(frames)[: len(predicted)]
    bench.load(bench.arrays | weights.balance_joint(bench.arrays, sample, predicted, bench.config.blank))


def calibrate(bench: Bench, point: Point) -> tuple[float, float]:
    """Sets the bias on blank of a point's look-ahead; returns the bias and the label rate that it gives."""
    live = Live(bench, point)
    live.warm_up()
    frames = bench.config.chunk_frames(point.lookahead)
    settling, counted = max(2, 6 // frames), max(2, 8 // frames)

    def rate(bias: float) -> float:
        live.model = weights.with_blank_bias(live.model, bias)
        for _ in range(settling):
            live.step()
        return live.rate([live.step() for _ in range(counted)])

    bench.bias[point.lookahead], reached = search_bias(rate, -LARGEST_BIAS, LARGEST_BIAS)
    return bench.bias[point.lookahead], reached


def search_bias(
    rate: Callable[[float], float], low: float, high: float, target: float = LABELS_PER_FRAME, rounds: int = ROUNDS
) -> tuple[float, float]:
    """Searches by bisection for the bias on blank whose label rate is closest to a target; returns bias and rate.

    Args:
      rate: returns labels per frame at a bias; it falls as the bias grows, apart from noise.
    """
    tried: list[tuple[float, float]] = []
    for _ in range(rounds):
        bias = (low + high) / 2
        tried.append((bias, rate(bias)))
        if abs(tried[-1][1] - target) < 0.1 * target:
            break
        low, high = (bias, high) if tried[-1][1] > target else (low, bias)
    return min(tried, key=lambda pair: abs(pair[1] - target))
