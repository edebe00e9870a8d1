import math

import jax.numpy as jnp
import pytest

from experiments.training import progress
from experiments.training.progress import ProgressBar
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
