"""How fast a run is, on a progress bar in a terminal, and in lines where there is none."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nemojax.data.pipeline import Pipeline
from nemojax.training.losses import Counts
from nemojax.training.step import StepMetrics

SMOOTHED = 100  # steps over which losses and rates are averaged
EARLY = (1, 6)  # steps of a program that have a line: that it trains, and when it will end


def say(message: str) -> None:
    """Prints a message above the bar, at once: a job's log must not lag behind."""
    tqdm.write(message)
    sys.stdout.flush()


class Mark(NamedTuple):
    """Totals since the program began, at the end of a step."""

    time_s: float  # without compiling and evaluations
    waited_s: float  # for batches
    step: float = 0
    utterances: int = 0
    frames: int = 0
    slots: int = 0  # frames with padding
    operations: float = 0.0


class Lines(NamedTuple):
    """Lines that are logged where there is no terminal.

    Attributes:
      log: called with each line.
      every_s: seconds between lines; 0 for none.
      steps: number of the last step.
    """

    log: Callable[[str], object]
    every_s: float
    steps: int


class ProgressBar:
    """Shows mean losses, the last dev WER, utterances per second, and the share of the time spent waiting for data.

    Args:
      bar: of tqdm, which is disabled where there is no terminal.
      lines: for a bar that is disabled.
      operations: returns the operations of a step that the model needs, from what a batch holds.
      peak: operations a second of all devices; None where it is not known.
    """

    def __init__(
        self,
        bar: "tqdm[Any]",
        pipeline: Pipeline,
        lines: Lines | None = None,
        operations: Callable[[Counts], float] = lambda counts: 0.0,
        peak: float | None = None,
    ):
        self._bar, self._pipeline, self.wer = bar, pipeline, math.nan
        self._lines, self._operations, self._peak = lines, operations, peak
        self._marks: deque[Mark] = deque([Mark(time.perf_counter(), pipeline.waited_s, bar.n)], SMOOTHED)
        self._losses: deque[dict[str, float]] = deque(maxlen=SMOOTHED)
        self._left_out_s, self._pauses_s, self._first = 0.0, 0.0, bar.n
        self._logged_s = -math.inf

    def update(self, step: int, metrics: StepMetrics, slots: int = 0) -> None:
        """Moves to a step and shows its numbers.

        Args:
          slots: frames of the batch, padding included.
        """
        if not metrics.skipped:
            parts = {name: float(value) for name, value in metrics.losses.items()}
            self._losses.append({"loss": float(metrics.loss), **(parts if len(parts) > 1 else {})})
        counts, last = metrics.counts, self._marks[-1]
        mark = Mark(
            time.perf_counter() - self._left_out_s,
            self._pipeline.waited_s,
            step,
            last.utterances + int(counts.rows),
            last.frames + int(counts.frames),
            last.slots + slots,
            last.operations + self._operations(counts),
        )
        self._marks.append(mark)
        shown = {name: f"{mean:.3f}" for name, mean in self._mean_losses().items()}
        shown |= {"WER": f"{self.wer:.1%}"} if math.isfinite(self.wer) else {}
        shown |= {"utt/s": f"{self._rate('utterances'):.1f}", "waiting": f"{self.waited_share:.0%}"}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._bar.n)
        lines = self._lines
        if lines is None or not lines.every_s or not self._bar.disable:
            return
        early = step - self._first in EARLY
        if early or mark.time_s - self._logged_s >= lines.every_s or step == lines.steps:
            self._logged_s = mark.time_s
            lines.log(self.line(step, metrics))

    def compiles(self, step: int, rows: int, seconds: float) -> None:
        """Logs that a step is the first of its shape: where there is no terminal, the log would be silent for minutes.

        Args:
          seconds: of audio in a row, padding included.
        """
        lines = self._lines
        if lines is not None and lines.every_s and self._bar.disable:
            lines.log(f"step {step} is the first of {rows} rows of {seconds:.1f} s, which is compiled")

    def leave_out(self, seconds: float, returns: bool) -> None:
        """Leaves time that no step took out of the rates: of compiling, or of an evaluation.

        Args:
          returns: whether such a pause will come again, and counts for the estimate of the end.
        """
        self._left_out_s += seconds
        self._pauses_s += seconds if returns else 0.0

    def line(self, step: int, metrics: StepMetrics) -> str:
        """Returns a step's numbers as a line of a log."""
        assert self._lines is not None
        losses = self._mean_losses()
        parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items() if name != "loss")
        words = [f"step {step} of {self._lines.steps}"]
        words.append(f"loss {losses.get('loss', math.nan):.3f}" + (f" ({parts})" if parts else ""))
        words.append(f"gradient norm {float(metrics.gradient_norm):.3g}")
        words.append(f"learning rate {float(metrics.learning_rate):.3g}")
        if self._difference("step") > 1:
            words += [f"{self._rate('utterances'):.1f} utterances/s", f"{self.frames_per_s:,.0f} frames/s"]
            words += [f"padding {self.padding_share:.0%}", f"waiting for data {self.waited_share:.0%}"]
            if self.utilization is not None:
                words.append(f"MFU {self.utilization:.1%}")
            elif self._rate("operations"):
                words.append(f"{self._rate('operations') / 1e9:,.1f} GFLOP/s")
            words += [self._end(step)] if step < self._lines.steps else []
        return ", ".join(words)

    def _end(self, step: int) -> str:
        """Returns when the last step will be done, at the present rate and with as many pauses."""
        assert self._lines is not None
        step_s = 1 / max(self._rate("step"), 1e-9) + self._pauses_s / max(step - self._first, 1)
        left_s = (self._lines.steps - step) * step_s
        clock = time.strftime("%a %H:%M", time.localtime(time.time() + left_s))
        return f"{duration(left_s)} left, until {clock}"

    def _mean_losses(self) -> dict[str, float]:
        names = self._losses[-1] if self._losses else ()
        return {name: float(np.mean([losses[name] for losses in self._losses])) for name in names}

    def _difference(self, name: str) -> float:
        difference: float = getattr(self._marks[-1], name) - getattr(self._marks[0], name)
        return difference

    def _rate(self, name: str) -> float:
        return self._difference(name) / max(self._difference("time_s"), 1e-9)

    @property
    def waited_share(self) -> float:
        """The share of the time of recent steps that was spent waiting for batches."""
        return self._rate("waited_s")

    @property
    def frames_per_s(self) -> float:
        """Encoder frames a second over recent steps, without padding."""
        return self._rate("frames")

    @property
    def padding_share(self) -> float:
        """The share of recent batches that is padding."""
        slots = self._difference("slots")
        return 1 - self._difference("frames") / slots if slots else 0.0

    @property
    def utilization(self) -> float | None:
        """The operations a second that the model needs, as a share of the peak; None where the peak is not known."""
        return self._rate("operations") / self._peak if self._peak else None


def duration(seconds: float) -> str:
    """Returns a duration in its two largest units, such as "2 h 10 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    values = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((index for index, (value, _) in enumerate(values) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in values[first : first + 2] if value) or "0 s"
