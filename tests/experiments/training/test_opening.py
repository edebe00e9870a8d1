"""What a run prints before its first step."""

import dataclasses

import jax
import jax.numpy as jnp

from experiments.training.opening import opening
from experiments.training.presets import Experiment
from nemojax.data.buckets import Bucket
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init


class Plan:
    buckets = (Bucket(50, 10, 8), Bucket(100, 20, 4))

    class corpus:
        hours = 1.5

    @staticmethod
    def first_step(epoch):
        return 40 * epoch


def test_devices_parameters_batches_and_data(tiny_model):
    recipe = TrainingConfig(frozen=("encoder.*",), accumulation=2)
    experiment = Experiment(steps=100, training=recipe)
    state = jax.eval_shape(lambda: init(tiny_model, recipe))
    lines = opening(experiment, state, Plan, None)
    sizes = {name: value.size for name, value in state.parameters.items()}
    trained = sum(size for name, size in sizes.items() if not name.startswith("encoder."))
    assert lines == [
        f"devices: {jax.device_count()} x cpu, 1 processes",
        f"parameters: {trained:,} trained, {sum(sizes.values()) - trained:,} frozen; products in bfloat16",
        "batches: 8 x 50, 4 x 100 (rows x frames of 80 ms), in 2 parts",
        "data: 1.50 h, 40 steps in an epoch",
        "steps: 100, 2.5 epochs",
    ]
    resumed = opening(dataclasses.replace(experiment), state._replace(step=jnp.int32(60)), Plan, None)
    assert resumed[-1] == "steps: 100, 2.5 epochs; resumes after step 60"
