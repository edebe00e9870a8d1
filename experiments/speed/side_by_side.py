"""What is timed where searches are compared: live streams, as fast as they can be computed; and ratios of times."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.harness.rows import Row, select

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

SHIFT_SAMPLES = 16_000  # between the beginnings of two streams


def serve(recognizer: "Recognizer", lookahead: int, streams: int, samples: np.ndarray) -> None:
    """Transcribes live streams that have a chunk at the same time, each with another part of the recording."""
    import jax

    from nemojax.recognition.stream_batch import StepInput

    batch = recognizer.batch(streams, lookahead)
    hypotheses = [recognizer.hypothesis() for _ in range(streams)]
    audio = [np.roll(samples, SHIFT_SAMPLES * row) for row in range(streams)]
    begin, first = 0, True
    while begin < len(samples):
        given = StepInput.empty(recognizer.config, streams, batch.chunk_samples)
        end = begin + given.room(first)
        for row in range(streams):
            given.fill(row, audio[row][begin:end], first)
            given.graphs.put(row, recognizer.graphs)
        emission = jax.device_get(batch.step(given))
        for row, hypothesis in enumerate(hypotheses):
            hypothesis.extend(emission, row)
        begin, first = end, False
    for hypothesis in hypotheses:
        hypothesis.transcript(len(samples), lookahead, "stream")


def ratios(rows: Sequence[Row], row: Row, **greedy: Any) -> list[float]:
    """Returns the times of a row relative to those of greedy search in the same repeats.

    Args:
      greedy: the field of the rows of greedy search, with its value.
    """
    alike = {key: row[key] for key in ("model", "dtype", "what", "lookahead", "streams")}
    others = select(rows, **greedy, **alike)[-1]["seconds"]
    return [mine / other for mine, other in zip(row["seconds"], others, strict=True)]
