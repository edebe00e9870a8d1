"""The process of one version: times steps as `versions.py` asks, with whatever package PYTHONPATH names.

    PYTHONPATH=DIRECTORY python -P versions_worker.py MODEL DTYPE STEPS SEED

The first answer names the package; then each line of standard input is a point, and each answer its seconds. This file
imports nemojax alone, and uses only what earlier versions have too.
"""

import json
import sys
import time
from collections.abc import Callable

import jax
import numpy as np

import nemojax

WARM_STEPS = 10


def timed_steps(
    recognizer: "nemojax.Recognizer", lookahead: int, streams: int, steps: int, seed: int
) -> Callable[[], float]:
    """Returns a function that takes some steps and returns the mean seconds of one; it is compiled and warm."""
    batch = recognizer.batch(streams, lookahead)
    given = nemojax.StepInput.empty(recognizer.config, streams, batch.chunk_samples)
    noise = np.random.default_rng(seed).normal(0, 0.05, (streams, batch.chunk_samples)).astype(np.float32)
    for row in range(streams):
        given.fill(row, noise[row], first=False)

    def run(steps: int = steps) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            jax.device_get(batch.step(given))
        return (time.perf_counter() - start) / steps

    run(WARM_STEPS)
    return run


def main() -> None:
    model, dtype, steps, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    recognizer = nemojax.load(model, dtype)
    print(json.dumps({"package": nemojax.__file__}), flush=True)
    ready: dict[tuple[int, int], Callable[[], float]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        point = request["lookahead"], request["streams"]
        if point not in ready:
            ready[point] = timed_steps(recognizer, *point, steps, seed)
        answer = {"seconds": ready[point](), "chunk_ms": recognizer.config.chunk_ms(request["lookahead"])}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
