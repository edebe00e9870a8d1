"""TensorBoard and Weights & Biases, the latter with a module in its place."""

import sys
from types import SimpleNamespace

import pytest

from experiments.training.loop import Run
from experiments.training.presets import Experiment
from experiments.training.run_directory import MetricsLog, RunError
from experiments.training.trackers import trackers
from tests.helpers.messages import whole


class Wandb:
    def __init__(self):
        self.begun, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.begun.append(settings)
        return SimpleNamespace(log=lambda values, step: self.logged.append((step, values)), finish=self.finish)

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    made = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", made)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return made


def test_weights_and_biases_gets_the_numbers_and_a_resumed_run_is_the_same_there(tmp_path, wandb):
    for step in (0, 2):
        log = MetricsLog(tmp_path / "metrics.jsonl", step, trackers(["wandb", "wandb"], tmp_path, step, {"a": 1}))
        log.write("train", step + 1, loss=2.5, skipped=False)
        log.write("dev", step + 2, manifest="m", lookahead=6, wer=0.5, hypothesis="a text")
        log.write("data", step + 2, message="no number")
        log.close()
    first, second = wandb.begun
    assert first == second and first["project"] == "nemojax" and first["name"] == tmp_path.name
    assert first["resume"] == "allow" and first["config"] == {"a": 1} and len(first["id"]) == 16
    assert wandb.logged[:2] == [(1, {"train/loss": 2.5, "train/skipped": False}), (2, {"dev/m/6/wer": 0.5})]
    assert len(wandb.logged) == 4 and wandb.finished == 2


def test_trackers_that_can_not_begin(tmp_path, wandb, monkeypatch):
    def init(**settings):
        raise ValueError("api_key not configured\nmore")

    monkeypatch.setattr(wandb, "init", init)
    message = "Weights & Biases does not begin: api_key not configured; run `wandb login`, or set WANDB_MODE=offline"
    with pytest.raises(RunError, match=whole(message)):
        trackers(["wandb"], tmp_path, 0, {})


@pytest.mark.parametrize("module,name", [("wandb", "wandb"), ("tensorboardX", "tensorboard")])
def test_a_run_asks_for_the_package_of_a_tracker_before_it_reads_anything(tmp_path, monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    experiment = Experiment(run=tmp_path / "run", train=("missing.jsonl",), track=(name,))
    message = f'--track {name} needs {module}, which is not installed: pip install "nemojax[{name}]"'
    with pytest.raises(RunError, match=whole(message)):
        Run(experiment)
    assert not experiment.run.exists()
