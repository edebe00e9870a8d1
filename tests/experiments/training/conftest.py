"""Small training runs on noise, shared by the tests of training."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from experiments.training.presets import Experiment
from nemojax.data.plan import PlanConfig
from nemojax.training.recipe import TrainingConfig
from tests.data.corpora import write_speech
from tests.experiments.training.runs import STEPS, TEXTS, losses, messages


@pytest.fixture(scope="session")
def speech(tmp_path_factory):
    directory = tmp_path_factory.mktemp("speech")
    train = write_speech(directory, "train", TEXTS * 5)
    dev = write_speech(directory, "dev", TEXTS[:3], seed=1)
    return train, dev


@pytest.fixture(scope="module")
def settings(speech, tiny_config) -> Experiment:
    """A few steps of a model of one layer; the directory of the run is missing."""
    model = dataclasses.replace(
        tiny_config,
        features=dataclasses.replace(tiny_config.features, mel_bins=32),
        encoder=dataclasses.replace(tiny_config.encoder, layers=1, width=16, feedforward_width=32),
        vocabulary=40,
    )
    return Experiment(
        run=Path("nowhere"),
        train=(str(speech[0]),),
        steps=STEPS,
        evaluate_every=100,
        save_every=4,
        keep=2,
        dev_batch=2,
        stop_after_skipped=3,
        workers=0,
        model=model,
        training=TrainingConfig(dtype="float32", learning_rate=0.05, warmup_steps=5, average_decay=0.9),
        plan=PlanConfig(batch_frames=80, bucket_count=1),
    )


@pytest.fixture
def experiment(settings, tmp_path) -> Experiment:
    return dataclasses.replace(settings, run=tmp_path / "run")


@pytest.fixture(scope="module")
def undisturbed_run(settings, tmp_path_factory) -> Path:
    """The directory of a run from the first step to the last, which no test may change."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    messages(dataclasses.replace(settings, run=run))
    return run


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run) -> list[tuple[int, float]]:
    """The losses of its steps."""
    return losses(undisturbed_run)


@pytest.fixture(scope="module")
def four_steps(settings, tmp_path_factory) -> Path:
    """The directory of a run of four steps, which no test may change."""
    run = tmp_path_factory.mktemp("four") / "run"
    messages(dataclasses.replace(settings, run=run, steps=4))
    return run


@pytest.fixture
def begun(four_steps, experiment) -> None:
    """Has `experiment` run for four steps."""
    shutil.copytree(four_steps, experiment.run)
