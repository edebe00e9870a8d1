import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init, model_of, partition

FROZEN = ("encoder.subsampling.*", "joint.output.bias")


def test_init_copies(config, parameters):
    """A step may donate its state's buffers; the model that a run starts from stays whole."""
    model = fill(config, parameters)
    state = init(model, TrainingConfig(average_decay=0.5))
    leaves = [leaf for leaf in jax.tree.leaves(state) if isinstance(leaf, jax.Array)]
    pointers = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(set(pointers)) == len(pointers)
    assert set(pointers).isdisjoint(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(model))
    jax.tree.map(np.testing.assert_array_equal, model_of(state, config), model)


def test_init_narrows_and_freezes(config, parameters):
    narrow = {name: value.astype(jnp.bfloat16) for name, value in parameters.items()}
    state = init(fill(config, narrow), TrainingConfig(frozen=FROZEN, average_decay=0.5, skip_window=7, seed=3))
    assert all(value.dtype == jnp.float32 for value in state.parameters.values())
    frozen = {name for name in parameters if name.startswith(("encoder.subsampling.", "joint.output.bias"))}
    assert frozen and set(state.average) == set(parameters) - frozen
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state.optimizer)]
    assert any("blocks" in path for path in paths) and not any("subsampling" in path for path in paths)
    assert np.isinf(state.norms).all() and state.norms.shape == (7,) and state.seed == 3
    assert state.step == state.skipped == state.skipped_in_a_row == 0
    assert not init(fill(config, parameters), TrainingConfig()).average


def test_the_model_has_averaged_weights(config, parameters):
    state = init(fill(config, parameters), TrainingConfig(frozen=FROZEN, average_decay=0.5))
    state = state._replace(average={name: value + 1 for name, value in state.average.items()})
    for name, value in named_parameters(model_of(state, config)).items():
        np.testing.assert_array_equal(value, parameters[name] + (name in state.average))


def test_patterns_that_freeze_nothing_or_all(parameters):
    trained, frozen = partition(parameters, ("joint.*", "*bias"))
    assert {**trained, **frozen}.keys() == parameters.keys() and not trained.keys() & frozen.keys()
    assert all(name.startswith("joint.") or name.endswith("bias") for name in frozen)
    with pytest.raises(ConfigError, match="no parameter's path matches 'decoder"):
        partition(parameters, ("joint.*", "decoder.*"))
    with pytest.raises(ConfigError, match="leave no parameter to train"):
        partition(parameters, ("*",))


def test_a_pattern_chooses_what_is_trained():
    parameters = {name: name for name in ("encoder.a.kernel", "joint.b.kernel", "joint.b.bias", "prediction.c")}
    trained, frozen = partition(parameters, (), "joint|prediction")
    assert set(trained) == {"joint.b.kernel", "joint.b.bias", "prediction.c"} and set(frozen) == {"encoder.a.kernel"}
    assert set(partition(parameters, ("*bias",), "joint")[0]) == {"joint.b.kernel"}
    assert partition(parameters, (), "")[0] == parameters
    sentence = "train_only: 'decoder' is in no parameter's path; paths are like 'encoder.a.kernel'"
    with pytest.raises(ConfigError, match=sentence):
        partition(parameters, (), "decoder")
    with pytest.raises(ConfigError, match="train_only 'joint' leave no parameter to train"):
        partition(parameters, ("joint.*",), "joint")
