import jax
import pytest
from flax import nnx

from nemojax.config import PRESETS
from nemojax.model.parameters import abstract_model, freeze, parameter_count, thaw
from nemojax.model.transducer import Transducer


def test_the_released_size():
    model = abstract_model(PRESETS["0.6b"])
    assert parameter_count(model) == 618_084_865
    assert parameter_count(model.encoder) == 609_141_760
    assert len(jax.tree.leaves(model)) == 651


def test_the_114m_family():
    assert parameter_count(abstract_model(PRESETS["114m"])) == pytest.approx(114e6, rel=0.02)


def test_a_model_holds_parameters_and_nothing_else(tiny_model):
    variables = jax.tree.leaves(tiny_model, is_leaf=lambda x: isinstance(x, nnx.Variable))
    assert variables and all(isinstance(variable, nnx.Param) for variable in variables)


def test_freezing_there_and_back(tiny_model):
    frozen = freeze(tiny_model)
    thawed = thaw(frozen)
    assert isinstance(thawed, Transducer) and thaw(tiny_model) is tiny_model
    assert all(a is b for a, b in zip(jax.tree.leaves(thawed), jax.tree.leaves(tiny_model), strict=True))
    assert jax.tree.structure(freeze(tiny_model)) == jax.tree.structure(frozen)
