"""Adapters of LoRA, against their formula; and what a recipe trains."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.training import lora
from nemojax.training.lora import LoraConfig
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import TrainState, init, model_of, partition
from nemojax.training.step import value_and_gradient

SETTINGS = LoraConfig(rank=3, alpha=6.0)


@pytest.fixture(scope="module")
def made(parameters):
    """New adapters."""
    return lora.adapters(parameters, SETTINGS, seed=1)


@pytest.fixture(scope="module")
def adapted(parameters, made):
    """Parameters with adapters, whose second matrices are not 0 any more."""
    second = {name: np.full(x.shape, 0.1, np.float32) for name, x in made.items() if name.endswith(lora.UP)}
    return parameters | made | second


def test_attention_and_feed_forward_have_adapters_that_change_nothing_at_first(parameters, made):
    layers = {name.split(".", 3)[3].partition(".lora")[0] for name in made}
    attention = {f"attention.{part}.kernel" for part in ("query", "key", "value", "position", "output")}
    assert layers == attention | {f"feedforward{i}.linear{j}.kernel" for i in (1, 2) for j in (1, 2)}
    assert len(made) == 2 * len(layers) * 2  # blocks, and matrices of a kernel
    for name, value in made.items():
        kernel = parameters[name.partition(".lora")[0]]
        down = name.endswith(lora.DOWN)
        assert value.shape == ((kernel.shape[0], 3) if down else (3, kernel.shape[1]))
        assert np.asarray(value).any() == down
    after = lora.merged(parameters | made, SETTINGS)
    assert after.keys() == parameters.keys()
    jax.tree.map(np.testing.assert_array_equal, after, parameters)


def test_a_rank_may_be_that_of_the_kernel(parameters):
    full = lora.adapters(parameters, LoraConfig(rank=16, kernels=r"attention\.query"), 0)
    assert full["encoder.blocks.1.attention.query.kernel" + lora.DOWN].shape == (16, 16)


def test_merged_kernels_are_the_formulas(parameters, adapted):
    after = lora.merged(adapted, SETTINGS)
    for name, value in parameters.items():
        wanted = np.asarray(value, np.float64)
        if name + lora.DOWN in adapted:
            wanted = wanted + 2.0 * np.asarray(adapted[name + lora.DOWN], np.float64) @ adapted[name + lora.UP]
            assert np.abs(wanted - value).max() > 1e-3
        np.testing.assert_allclose(after[name], wanted, rtol=1e-5, atol=1e-6)


def test_a_model_is_exported_with_its_adapters_merged(config, adapted):
    zero = np.int32(0)
    average = {name: adapted[name] + 1 for name in adapted if lora.is_adapter(name)}
    state = TrainState(zero, adapted, average, (), zero, zero, np.zeros(3, np.float32), np.uint32(0))
    exported = named_parameters(model_of(state, config, SETTINGS))
    wanted = lora.merged(adapted | average, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, exported, wanted)


@pytest.mark.parametrize(
    "recipe,trained",
    [
        (TrainingConfig(train_only="joint|prediction"), r"joint\.|prediction\."),
        (TrainingConfig(train_only="joint", frozen=("*bias",)), r"joint\..*kernel"),
        (TrainingConfig(train_only="norm_(out|attention)"), "norm_out|norm_attention"),
        (TrainingConfig(lora=SETTINGS), "lora"),
        (TrainingConfig(lora=SETTINGS, train_only=r"^joint\."), r"lora|^joint\."),
    ],
)
def test_what_is_trained_is_chosen_by_pattern(parameters, adapted, recipe, trained):
    given = adapted if recipe.lora.rank else parameters
    wanted = {name for name in given if re.search(trained, name)}
    named, others = partition(given, recipe)
    assert wanted and named.keys() == wanted and others.keys() == given.keys() - wanted


def test_only_what_is_trained_has_a_gradient_and_a_state_of_the_optimizer(config, parameters, batch):
    recipe = TrainingConfig(lora=SETTINGS, train_only=r"^joint\.", dtype="float32")
    state = jax.eval_shape(partial(init, recipe=recipe), fill(config, parameters))
    wanted = {name for name in state.parameters if re.search(r"lora|^joint\.", name)}
    compute = partial(value_and_gradient, config=config, recipe=recipe)
    _, gradient = jax.eval_shape(compute, state.parameters, batch, jnp.int32(1), None)
    assert gradient.keys() == wanted
    paths = [path[-1] for path, _ in jax.tree.leaves_with_path(state.optimizer)]
    moments = [path.key for path in paths if isinstance(path, jax.tree_util.DictKey)]
    assert sorted(moments) == sorted([*wanted, *wanted])  # Adam's two, and none for any other


def test_patterns_that_name_nothing(parameters):
    names = ", ".join(
        ["encoder.blocks.N.attention", "encoder.blocks.N.attention.key", "encoder.blocks.N.attention.output"]
    )
    for recipe, begin in (
        (TrainingConfig(train_only="decoder"), "train_only: 'decoder' is found in no parameter's path"),
        (TrainingConfig(frozen=("decoder.*",)), "frozen: no parameter's path matches 'decoder.*'"),
    ):
        with pytest.raises(ConfigError) as caught:
            partition(parameters, recipe)
        assert str(caught.value).startswith(f"{begin}; the paths are those of {names}, ")
        assert str(caught.value).endswith(
            ", joint.encoder, joint.output, joint.prediction, prediction, prediction.lstm.N"
        )
    with pytest.raises(ConfigError, match=r"^lora.kernels: 'decoder' is found in no kernel's path; kernels: encoder"):
        lora.adapters(parameters, LoraConfig(rank=2, kernels="decoder"), 0)
    with pytest.raises(ConfigError, match=r"lora.rank 17 is more than .*feedforward.*, has; set a lower one"):
        lora.adapters(parameters, LoraConfig(rank=17, kernels="feedforward"), 0)
    with pytest.raises(ConfigError) as caught:
        lora.adapters(parameters, LoraConfig(rank=17), 0)
    assert str(caught.value) == (
        "lora.rank 17 is more than encoder.blocks.0.attention.key.kernel, [16, 16], has; set a lower one"
    )


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"rank": -1}, "lora.rank must be at least 0, not -1"),
        ({"alpha": 0.0}, "lora.alpha must be greater than 0, not 0.0"),
        (
            {"kernels": "("},
            "lora.kernels: '(' is not a regular expression (missing ), unterminated subpattern at position 0)",
        ),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError) as caught:
        LoraConfig(**settings)
    assert str(caught.value) == message
