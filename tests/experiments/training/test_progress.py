import math

import jax.numpy as jnp
import pytest

from experiments.training import progress
from experiments.training.progress import Lines, ProgressBar, duration
from nemojax.training.losses import Counts
from nemojax.training.step import StepMetrics


class Bar:
    n = 3
    disable = False

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


def test_without_a_terminal_a_line_comes_every_few_seconds(clock):
    bar, pipeline, lines = Bar(), Pipeline(), []
    bar.disable = True
    shown = ProgressBar(bar, pipeline, Lines(lines.append, 30.0, 103), lambda counts: 5e12, 20e12)
    for step in range(4, 104):
        if step in (4, 50):  # compiled
            clock[0] += 1000.0
            shown.leave_out(1000.0, returns=False)
        clock[0] += 4.0
        pipeline.waited_s += 1.0
        shown.update(step, metrics(4.0), slots=125)
    assert [int(line.split()[1]) for line in lines] == [4, *range(9, 103, 8), 103]
    rates = "1.0 utterances/s, 25 frames/s, padding 20%, waiting for data 25%, MFU 6.2%"
    assert lines[1].startswith(
        f"step 9 of 103, loss 4.000, gradient norm 1, learning rate 0.1, {rates}, 6 min 16 s left, "
    )
    assert lines[-1].endswith("MFU 6.2%")
    assert shown.frames_per_s == 25 and shown.padding_share == pytest.approx(0.2)


def test_lines_name_each_loss_and_no_utilization_where_the_peak_is_not_known(clock):
    lines, bar = [], Bar()
    bar.disable = True
    shown = ProgressBar(bar, Pipeline(), Lines(lines.append, 1.0, 9), lambda counts: 5e12)
    for step in (4, 5):
        clock[0] += 10.0
        shown.update(step, metrics(3.0, rnnt=1.0, ctc=4.0), slots=200)
    assert lines[0].startswith("step 4 of 9, loss 3.000 (rnnt 1.000, ctc 4.000), ")
    assert "padding 50%, waiting for data 0%, 500.0 GFLOP/s, 40 s left, until " in lines[1]


def test_a_step_that_is_compiled_is_announced_where_there_is_no_terminal(clock):
    bar, lines = Bar(), []
    shown = ProgressBar(bar, Pipeline(), Lines(lines.append, 30.0, 9))
    shown.compiles(1, 14, 3.36)
    assert not lines
    bar.disable = True
    shown.compiles(1, 14, 3.36)
    ProgressBar(bar, Pipeline(), Lines(lines.append, 0.0, 9)).compiles(2, 3, 13.4)
    assert lines == ["step 1 is the first of 14 rows of 3.4 s, which is compiled"]


def test_a_terminal_has_no_lines(clock):
    lines = []
    ProgressBar(Bar(), Pipeline(), Lines(lines.append, 1.0, 9)).update(4, metrics(1.0))
    assert not lines


def test_evaluations_count_for_the_end_and_not_for_rates(clock):
    lines, bar = [], Bar()
    bar.disable = True
    shown = ProgressBar(bar, Pipeline(), Lines(lines.append, 1.0, 103))
    for step in range(4, 54):
        clock[0] += 1.0
        shown.update(step, metrics(1.0))
        if step % 25 == 3:
            clock[0] += 50.0
            shown.leave_out(50.0, returns=True)
    assert "4.0 utterances/s" in lines[-1] and "1 min 40 s left" in lines[-1]  # 50 s, and as much for a pause


def test_durations():
    texts = {0: "0 s", 59.6: "1 min", 61: "1 min 1 s", 7200: "2 h", 7800: "2 h 10 min", 90_000: "1 d 1 h"}
    for seconds, text in texts.items():
        assert duration(seconds) == text
