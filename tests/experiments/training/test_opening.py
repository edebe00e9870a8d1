"""What a run says at its start."""

import dataclasses
from pathlib import Path

import jax

from experiments.training.estimate import abstract_state
from experiments.training.opening import count, opening
from experiments.training.presets import PRESETS
from nemojax.config import PRESETS as MODELS
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.replay import with_replay
from tests.data.corpora import corpus_of


def test_the_start_of_a_run_names_devices_parameters_audio_batches_and_rates():
    experiment = dataclasses.replace(
        PRESETS["fine-tune-lora"][1], run=Path("r"), train=("a",), replay=("b",), steps=400
    )
    experiment = dataclasses.replace(experiment, dev=(Path("c"),)).resolved()
    config = MODELS["0.6b"]
    corpus = with_replay(corpus_of([160_000] * 900, [20] * 900, [0] * 600 + [1] * 300, (1.0, 1.0)), 1, 0.25)
    plan = Plan(corpus, config, PlanConfig(batch_frames=2_000, bucket_count=2))
    state = abstract_state(config, experiment.training)
    device = jax.devices()[0]
    assert opening(experiment, config, plan, state.parameters, None) == [
        f"devices: {jax.device_count()} x {device.device_kind} ({device.platform})",
        "parameters: 11.8M trained, 618.1M frozen; products in bfloat16, weights in float32",
        "audio: 2.22 h an epoch, 25% of it replay; an epoch has 54 steps, and 400 steps are 7.4 epochs",
        "batch: 15 rows of 10.1 s in 1 shape, 2.5 min of audio",
        "learning rate: cosine, 0.0005 after a warm-up of 200 steps, falls to 1e-06 at step 400",
    ]


def test_numbers_are_short():
    assert [count(number) for number in (999, 25_340, 618_084_865)] == ["999", "25.3k", "618.1M"]
