"""Operations of a step, against the products of the model and against XLA's count."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments.training.estimate import abstract_state
from experiments.training.operations import encoder_frame, peak, step_operations
from nemojax.config import PRESETS
from nemojax.model.parameters import abstract_model, named_parameters
from nemojax.training.forward import Batch
from nemojax.training.recipe import TrainingConfig
from nemojax.training.step import value_and_gradient

CONFIG = PRESETS["0.6b"]


def test_a_frame_costs_two_operations_for_each_weight_of_a_block_and_more():
    blocks = {n: p for n, p in named_parameters(abstract_model(CONFIG)).items() if n.startswith("encoder.blocks")}
    weights = sum(p.size for n, p in blocks.items() if n.endswith("kernel") and "position" not in n)
    # besides: attention over 84 frames, and subsampling
    attention, subsampling = 2 * 24 * 3 * 84 * 1024, encoder_frame(CONFIG) - 2 * weights - 2 * 24 * 3 * 84 * 1024
    assert 0.01 < attention / (2 * weights) < 0.02 and 0.01 < subsampling / (2 * weights) < 0.03


def test_parts_that_are_not_trained_cost_less():
    everything = step_operations(CONFIG, 1000, 100, 4)
    names = list(named_parameters(abstract_model(CONFIG)))
    assert step_operations(CONFIG, 1000, 100, 4, names) == everything
    encoder = 1000 * encoder_frame(CONFIG)
    adapters = ["encoder.blocks.0.attention.key.kernel.lora_up", *(n for n in names if not n.startswith("encoder."))]
    assert step_operations(CONFIG, 1000, 100, 4, adapters) == everything - encoder
    joint = [name for name in names if name.startswith(("joint.", "prediction."))]
    assert step_operations(CONFIG, 1000, 100, 4, joint) == everything - 2 * encoder


def test_the_peak_of_a_device():
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12 and peak("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak("TPU v5 lite", "bfloat16") == 197e12 and peak("TPU v5p", "bfloat16") == 459e12
    assert peak("cpu", "bfloat16") is None and peak("NVIDIA H100 80GB HBM3", "float32") is None


@pytest.mark.slow
def test_xla_counts_about_as_many():
    frames, labels, rows = 126, 20, 4
    array: Any = jax.ShapeDtypeStruct
    samples, labels_shape = array((rows, frames * CONFIG.frame_samples), jnp.float32), array((rows, labels), jnp.int32)
    batch = Batch(samples, array((rows,), jnp.int32), labels_shape, array((rows,), jnp.int32))
    recipe = TrainingConfig()
    compute = partial(value_and_gradient, config=CONFIG, recipe=recipe)
    parameters = abstract_state(CONFIG, recipe).parameters
    counted: Any = jax.jit(compute).lower(parameters, batch, jnp.int32(13), jax.random.key(0)).cost_analysis()
    assert step_operations(CONFIG, frames * rows, labels * rows, rows) == pytest.approx(counted["flops"], rel=0.15)
