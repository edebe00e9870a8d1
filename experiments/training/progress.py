"""The progress bar of a training run."""

import math
import time
from collections import deque
from typing import Any

import numpy as np
from tqdm import tqdm

from nemojax.data.pipeline import Pipeline
from nemojax.training.step import StepMetrics

SMOOTHED = 100  # steps over which the bar's losses and rates are averaged


class ProgressBar:
    """A progress bar: mean losses, last dev WER, utterances per second, share of the time spent waiting for data."""

    def __init__(self, bar: "tqdm[Any]", pipeline: Pipeline):
        self._bar, self._pipeline, self.wer = bar, pipeline, math.nan
        now = time.perf_counter(), pipeline.waited_s, 0
        self._marks: deque[tuple[float, float, int]] = deque([now], SMOOTHED)
        self._losses: deque[dict[str, float]] = deque(maxlen=SMOOTHED)

    def update(self, step: int, metrics: StepMetrics) -> None:
        """Moves to a step and shows its numbers."""
        if not metrics.skipped:
            parts = {name: float(value) for name, value in metrics.losses.items()}
            self._losses.append({"loss": float(metrics.loss), **(parts if len(parts) > 1 else {})})
        utterances = self._marks[-1][2] + int(metrics.counts.rows)
        self._marks.append((time.perf_counter(), self._pipeline.waited_s, utterances))
        names = self._losses[-1] if self._losses else ()
        means = {name: np.mean([losses[name] for losses in self._losses]) for name in names}
        shown = {name: f"{mean:.3f}" for name, mean in means.items()}
        if math.isfinite(self.wer):
            shown["WER"] = f"{self.wer:.1%}"
        shown |= {
            "utt/s": f"{self._utterances_per_s:.1f}",
            "waiting": f"{self.waited_share:.0%}",
        }
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)

    @property
    def _utterances_per_s(self) -> float:
        (begin, _, before), (end, _, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)

    @property
    def waited_share(self) -> float:
        """The share of the time of recent steps that was spent waiting for batches."""
        (begin, before, _), (end, after, _) = self._marks[0], self._marks[-1]
        return (after - before) / max(end - begin, 1e-9)
