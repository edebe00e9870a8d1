"""Services that show the numbers of a run."""

import sys
from types import SimpleNamespace

import pytest

from experiments.training.run_directory import MetricsLog
from experiments.training.trackers import open_trackers
from nemojax.errors import ConfigError


@pytest.fixture
def wandb(monkeypatch):
    """A client of Weights & Biases that keeps what it is given."""
    given = SimpleNamespace(inits=[], logs=[], finished=0)

    def init(**options):
        given.inits.append(options)
        return SimpleNamespace(
            log=lambda numbers, step: given.logs.append((step, numbers)),
            finish=lambda: setattr(given, "finished", given.finished + 1),
        )

    module = SimpleNamespace(
        init=init, util=SimpleNamespace(generate_id=lambda: "ab12"), Settings=lambda: SimpleNamespace(project=None)
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return given


def test_a_resumed_run_continues_in_weights_and_biases(wandb, tmp_path):
    run = tmp_path / "first"
    run.mkdir()
    for step in (0, 4):
        trackers = open_trackers(("wandb", "wandb"), run, step, {"steps": 8})
        log = MetricsLog(run / "metrics.jsonl", step, trackers)
        log.write("train", step + 1, loss=2.5, skipped=False, note="text")
        log.write("dev", step + 1, manifest="dev", lookahead=13, wer=0.5)
        log.write("data", step + 1, message="a text alone")
        log.close()
    expected = {"project": "nemojax", "name": "first", "id": "ab12", "resume": "allow", "dir": run}
    assert wandb.inits == [expected | {"config": {"steps": 8}}] * 2 and wandb.finished == 2
    numbers = [{"train/loss": 2.5, "train/skipped": False}, {"dev/dev/13/wer": 0.5}]
    assert wandb.logs == [(1, numbers[0]), (1, numbers[1]), (5, numbers[0]), (5, numbers[1])]


@pytest.mark.parametrize(
    "service, module, extra", [("tensorboard", "tensorboardX", "tensorboard"), ("wandb", "wandb", "wandb")]
)
def test_a_missing_package_is_named(monkeypatch, tmp_path, service, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    sentence = f'{module} is not installed: pip install "nemojax[{extra}]"'
    with pytest.raises(ConfigError) as caught:
        open_trackers((service,), tmp_path, 0, {})
    assert str(caught.value) == sentence
