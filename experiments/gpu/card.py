"""The card's own ceilings, measured, and the floor that they set for a step."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nemojax.config import ModelConfig
from nemojax.subsampling import KERNEL, bins_per_stage

REPEATS = 12


class Ceilings(NamedTuple):
    operations_per_s: float  # bfloat16 products
    bytes_per_s: float  # of device memory, read and written


class Floor(NamedTuple):
    """Milliseconds that a step takes at least: for its bytes, and for its operations."""

    bytes_ms: float
    operations_ms: float

    @property
    def sum_ms(self) -> float:
        return self.bytes_ms + self.operations_ms


def operations(config: ModelConfig, lookahead: int) -> int:
    """Floating-point operations of one stream's step in products and convolutions; log-mel frames are left out.

    XLA counts none on a GPU. The search for labels is one round.
    """
    encoder, frames = config.encoder, config.chunk_frames(lookahead)
    width, channels, left = encoder.width, encoder.subsampling_channels, encoder.left_context_frames
    block = 4 * width * encoder.feedforward_width + 7 * width**2 + encoder.convolution_kernel * width
    distances = left + 2 * frames - 1
    attention = (2 * (left + frames) + distances) * width  # contents, positions and values of each query
    first, second, third = bins_per_stage(config)[1:]
    taps = KERNEL**2 * channels
    subsampling = 4 * first * taps + (2 * second + third) * (taps + channels**2) + third * channels * width
    joint, prediction = config.joint.width, config.prediction.width
    search = width * joint + joint * config.labels
    of_label = config.prediction.layers * 8 * prediction**2 + prediction * joint
    return 2 * (frames * (encoder.layers * (block + attention) + subsampling + search) + of_label)


def floor(weights_bytes: int, state_bytes: int, streams: int, operations: float, ceilings: Ceilings) -> Floor:
    """The floor of a step that reads weights and each stream's state once.

    Args:
      state_bytes: of one stream.
      operations: of the whole step.
    """
    moved = weights_bytes + streams * state_bytes
    return Floor(1000 * moved / ceilings.bytes_per_s, 1000 * operations / ceilings.operations_per_s)


def median_s(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The median time of a call until its result is ready, after two calls that are not timed."""
    seconds = []
    for number in range(repeats + 2):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        if number >= 2:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def measure(width: int, copied_bytes: int) -> Ceilings:
    """Times a product of two random bfloat16 matrices, and a pass that reads an array and writes another."""
    x, y = (jax.random.normal(jax.random.key(seed), (width, width), jnp.bfloat16) for seed in (0, 1))
    product = jax.jit(lambda x, y: jnp.dot(x, y, preferred_element_type=jnp.bfloat16))
    product_s = median_s(lambda: product(x, y))
    source = jax.random.normal(jax.random.key(2), (copied_bytes // 4,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    copy_s = median_s(lambda: copy(source))
    return Ceilings(2 * width**3 / product_s, 2 * source.nbytes / copy_s)
