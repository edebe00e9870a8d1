import math

import jax.numpy as jnp
import pytest

from experiments.training import progress
from experiments.training.progress import LogLines, ProgressBar, Work, duration
from nemojax.training.losses import Counts
from nemojax.training.step import StepMetrics


class Bar:
    n = 3

    def set_postfix(self, shown, refresh):
        self.shown = shown

    def update(self, steps):
        self.n += steps


class Pipeline:
    waited_s = 0.0


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def metrics(loss, skipped=False, **losses):
    return StepMetrics(loss, losses or {"rnnt": loss}, 1.0, 0.1, jnp.int32(6), skipped, Counts(4, 100, 20))


def test_means_and_rates_are_of_the_last_steps(clock):
    bar, pipeline = Bar(), Pipeline()
    shown = ProgressBar(bar, pipeline)
    for step, loss in enumerate((8.0, 4.0), start=4):
        clock[0] += 2.0
        pipeline.waited_s += 0.5
        shown.update(step, metrics(loss))
    assert bar.n == 5 and bar.shown == {"loss": "6.000", "utt/s": "2.0", "waiting": "25%"}
    shown.update(6, metrics(math.nan, skipped=True))
    shown.wer = 0.123
    shown.update(7, metrics(6.0))
    assert bar.shown["loss"] == "6.000" and bar.shown["WER"] == "12.3%"  # skipped steps are not in the mean
    for step in range(8, 8 + progress.SMOOTHED):
        shown.update(step, metrics(1.0))
    assert bar.shown["loss"] == "1.000"


def test_several_losses_are_shown_by_name(clock):
    bar = Bar()
    shown = ProgressBar(bar, Pipeline())
    for step in (4, 5):
        shown.update(step, metrics(3.0 * step, rnnt=1.0 * step, ctc=4.0))
    assert list(bar.shown.items())[:3] == [("loss", "13.500"), ("rnnt", "4.500"), ("ctc", "4.000")]


def test_nothing_but_skipped_steps(clock):
    bar = Bar()
    ProgressBar(bar, Pipeline()).update(4, metrics(math.nan, skipped=True))
    assert "loss" not in bar.shown and bar.n == 4


def test_a_log_has_a_line_every_few_seconds_and_one_at_the_end(clock):
    lines: list[str] = []
    pipeline = Pipeline()
    log = LogLines(lines.append, 30.0, 1000, pipeline, Work(lambda rows, frames, labels: 10.0 * frames, 2000.0))
    for step in range(101, 106):
        clock[0] += 10.0
        pipeline.waited_s += 1.0
        log.update(step, metrics(3.0, rnnt=2.0, ctc=1.0), padded_frames=125)
    assert lines == [
        "step 103 of 1,000 (10%): loss 3.000 (rnnt 2.000, ctc 1.000), gradient norm 1, rate 1.00e-01, 10 frames/s, "
        "padding 20%, MFU 5%, waiting 10%, 2 h 29 min left"
    ]
    log.wer = 0.5
    log.update(1000, metrics(math.nan, skipped=True))
    assert len(lines) == 2 and "dev WER 50.0%" in lines[1] and lines[1].endswith("0 s left")
    assert log.numbers() == {"waited_share": 0.1, "frames_per_s": 12.5, "padding": 0.0, "utilization": 0.0625}


def test_what_is_not_known_is_not_shown(clock):
    lines: list[str] = []
    log = LogLines(lines.append, 0.0, 10, Pipeline())
    clock[0] += 1.0
    log.update(1, metrics(math.nan, skipped=True))
    assert lines == ["step 1 of 10 (10%): no loss yet, gradient norm 1, rate 1.00e-01"]  # a step that was compiled
    assert log.numbers()["padding"] is None and log.numbers()["utilization"] is None


@pytest.mark.parametrize(
    "seconds, text", [(0.2, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7262, "2 h 1 min"), (90_000, "1 d 1 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
