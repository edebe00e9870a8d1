"""The progress of a training run: a bar on a terminal, and otherwise a line every few seconds."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments.training.presets import Experiment
from nemojax.config import ModelConfig
from nemojax.data.pipeline import Pipeline
from nemojax.training import operations
from nemojax.training.losses import Counts
from nemojax.training.step import StepMetrics

SMOOTHED = 100  # steps over which losses and rates are averaged


class Work(NamedTuple):
    """What a step computes: its arithmetic by what a batch holds, and the most that all devices can do in a second."""

    operations: Callable[[int, int, int], float] = lambda rows, frames, labels: 0.0
    peak: float | None = None  # operations a second; None if not known


NO_WORK = Work()


class _Mark(NamedTuple):
    """Sums since the run began, after a step."""

    at_s: float
    waited_s: float
    utterances: int = 0
    frames: int = 0
    padded: int = 0  # frames of the batches, padding included
    operations: float = 0.0


class Progress:
    """Losses and rates of the last steps. Subclasses show them.

    The first step is not counted in a rate: it is compiled.

    Attributes:
      wer: the last mean WER of the dev manifests; nan before the first evaluation.
    """

    def __init__(self, pipeline: Pipeline, work: Work = NO_WORK):
        self._pipeline, self._work, self.wer = pipeline, work, math.nan
        self._marks: deque[_Mark] = deque([_Mark(time.perf_counter(), pipeline.waited_s)], SMOOTHED)
        self._losses: deque[dict[str, float]] = deque(maxlen=SMOOTHED)
        self._begun = False

    def update(self, step: int, metrics: StepMetrics, padded_frames: int = 0) -> None:
        """Takes the numbers of a step, and the frames of its batch with padding; shows them."""
        if not metrics.skipped:
            parts = {name: float(value) for name, value in metrics.losses.items()}
            self._losses.append({"loss": float(metrics.loss), **(parts if len(parts) > 1 else {})})
        rows, frames, labels = (int(count) for count in Counts(*metrics.counts))
        last, work = self._marks[-1], self._work.operations(rows, frames, labels)
        self._marks.append(
            _Mark(
                time.perf_counter(),
                self._pipeline.waited_s,
                last.utterances + rows,
                last.frames + frames,
                last.padded + padded_frames,
                last.operations + work,
            )
        )
        if not self._begun:
            self._begun = True
            self._marks.popleft()
        self.show(step, metrics)

    def show(self, step: int, metrics: StepMetrics) -> None:
        """Shows the numbers of a step."""

    @property
    def losses(self) -> dict[str, float]:
        """The means of the losses by name."""
        names = self._losses[-1] if self._losses else ()
        return {name: float(np.mean([losses[name] for losses in self._losses])) for name in names}

    def rate(self, name: str) -> float:
        """Returns utterances, frames or operations a second."""
        begin, end = self._marks[0], self._marks[-1]
        done: float = getattr(end, name) - getattr(begin, name)
        return done / max(end.at_s - begin.at_s, 1e-9)

    @property
    def waited_share(self) -> float:
        """The share of the time of recent steps that was spent waiting for batches."""
        begin, end = self._marks[0], self._marks[-1]
        return (end.waited_s - begin.waited_s) / max(end.at_s - begin.at_s, 1e-9)

    @property
    def padding(self) -> float | None:
        """The share of the frames of recent batches that is padding."""
        begin, end = self._marks[0], self._marks[-1]
        padded = end.padded - begin.padded
        return 1 - (end.frames - begin.frames) / padded if padded else None

    @property
    def utilization(self) -> float | None:
        """The arithmetic of recent steps as a share of what the devices can do (MFU); None if that is not known."""
        return self.rate("operations") / self._work.peak if self._work.peak and self.step_s else None

    def numbers(self) -> dict[str, float | None]:
        """Returns the rates of recent steps, rounded, by their names in metrics.jsonl."""
        padding, utilization = self.padding, self.utilization
        return {
            "waited_share": round(self.waited_share, 4),
            "frames_per_s": round(self.rate("frames"), 1),
            "padding": None if padding is None else round(padding, 4),
            "utilization": None if utilization is None else round(utilization, 4),
        }

    @property
    def step_s(self) -> float:
        """Seconds of a recent step; 0 before the second one is done."""
        begin, end = self._marks[0], self._marks[-1]
        return (end.at_s - begin.at_s) / max(len(self._marks) - 1, 1) if self._begun else 0.0


class ProgressBar(Progress):
    """A bar: mean losses, last dev WER, utterances per second, share of the time spent waiting for data."""

    def __init__(self, bar: "tqdm[Any]", pipeline: Pipeline, work: Work = NO_WORK):
        super().__init__(pipeline, work)
        self._bar = bar

    def show(self, step: int, metrics: StepMetrics) -> None:
        shown = {name: f"{mean:.3f}" for name, mean in self.losses.items()}
        if math.isfinite(self.wer):
            shown["WER"] = f"{self.wer:.1%}"
        shown |= {"utt/s": f"{self.rate('utterances'):.1f}", "waiting": f"{self.waited_share:.0%}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)


class LogLines(Progress):
    """A line every few seconds, and one for the last step; for a batch job, whose log is all that its user sees.

    Args:
      log: called with each line.
      every_s: seconds between lines.
      last: number of the last step.
    """

    def __init__(self, log: Callable[[str], None], every_s: float, last: int, pipeline: Pipeline, work: Work = NO_WORK):
        super().__init__(pipeline, work)
        self._log, self._every_s, self._last = log, every_s, last
        self._shown_s = self._marks[-1].at_s

    def show(self, step: int, metrics: StepMetrics) -> None:
        now = self._marks[-1].at_s
        if now - self._shown_s >= self._every_s or step == self._last:
            self._shown_s = now
            self._log(self.line(step, metrics))

    def line(self, step: int, metrics: StepMetrics) -> str:
        """Returns the line of a step."""
        losses = self.losses
        parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "loss")
        texts = [f"loss {losses['loss']:.3f}{f' ({parts})' if parts else ''}"] if losses else ["no loss yet"]
        texts.append(f"gradient norm {float(metrics.gradient_norm):.3g}")
        texts.append(f"rate {float(metrics.learning_rate):.2e}")
        texts += [f"{self.rate('frames'):,.0f} frames/s"] if self.step_s else []
        texts += [] if self.padding is None else [f"padding {self.padding:.0%}"]
        texts += [] if self.utilization is None else [f"MFU {self.utilization:.0%}"]
        texts += [f"waiting {self.waited_share:.0%}"] if self.step_s else []
        texts += [f"dev WER {self.wer:.1%}"] if math.isfinite(self.wer) else []
        texts += [f"{duration(self.step_s * (self._last - step))} left"] if self.step_s else []
        return f"step {step:,} of {self._last:,} ({step / self._last:.0%}): {', '.join(texts)}"


@contextmanager
def shown(
    experiment: Experiment, config: ModelConfig, pipeline: Pipeline, log: Callable[[str], None], step: int
) -> Iterator[Progress]:
    """Shows the progress of a run from a step on: as a bar on a terminal, and otherwise as lines."""
    peak = operations.peak_operations(jax.devices()[0].device_kind)
    work = NO_WORK
    if peak is not None and experiment.training.dtype == "bfloat16":
        work = Work(partial(operations.step_operations, config), peak * jax.device_count())
    if not sys.stderr.isatty():
        yield LogLines(log, experiment.log_every_s, experiment.steps, pipeline, work)
        return
    with tqdm(initial=step, total=experiment.steps, unit="step", smoothing=0.05) as bar:
        yield ProgressBar(bar, pipeline, work)


def ignore(message: str) -> None:
    """Takes the messages of processes other than the chief."""


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])
