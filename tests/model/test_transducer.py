import math

import jax
import pytest
from flax import nnx

from nemojax.config import PRESETS
from nemojax.kernels.quantization import quantize
from nemojax.model.parameters import abstract_model, freeze, named_parameters, parameter_count, thaw
from nemojax.model.transducer import Transducer


def test_the_released_size():
    model = abstract_model(PRESETS["0.6b"])
    assert parameter_count(model) == 618_084_865
    assert parameter_count(model.encoder) == 609_141_760
    assert len(jax.tree.leaves(model)) == 651


def test_the_114m_family():
    assert parameter_count(abstract_model(PRESETS["114m"])) == pytest.approx(114e6, rel=0.02)


@pytest.mark.parametrize("form", [None, quantize])
def test_the_abstract_model_is_that_of_the_constructors(tiny_config, form):
    """Of which one block alone is traced."""
    traced = jax.eval_shape(lambda: Transducer(tiny_config, rngs=None))
    traced = traced if form is None else jax.eval_shape(form, traced)
    abstract = abstract_model(tiny_config, form)
    assert jax.tree.structure(abstract) == jax.tree.structure(traced)
    assert named_parameters(abstract) == named_parameters(traced)
    assert len({id(block) for block in abstract.encoder.blocks}) == tiny_config.encoder.layers > 1


def test_a_model_holds_parameters_and_nothing_else(tiny_model):
    variables = jax.tree.leaves(tiny_model, is_leaf=lambda x: isinstance(x, nnx.Variable))
    assert variables and all(isinstance(variable, nnx.Param) for variable in variables)


def test_initial_values(tiny_config):
    """Norms change nothing, biases are zero, and a kernel's spread times the root of its inputs is its gain."""
    gains = {}
    for name, value in named_parameters(Transducer(tiny_config, rngs=nnx.Rngs(0))).items():
        if name.endswith("scale"):
            assert (value == 1).all(), name
        elif name.endswith("bias") and not name.endswith(("conv_in.bias", "input_bias")):
            assert not value.any(), name
        elif name.endswith("kernel"):
            gains[name] = float(value.std()) * math.prod(value.shape[:-1]) ** 0.5
    for name, gain in gains.items():
        if "subsampling" not in name:
            normal = "depthwise" in name  # the others are uniform
            assert gain == pytest.approx(1.0 if normal else 3**-0.5, rel=0.1), name
    assert gains["encoder.subsampling.linear.kernel"] == pytest.approx(2**0.5, rel=0.1)
    assert gains["encoder.subsampling.pointwise.0.kernel"] == pytest.approx(2**0.5, rel=0.2)
    assert gains["encoder.subsampling.depthwise.0.kernel"] == pytest.approx(1.0, rel=0.2)


def test_freezing_there_and_back(tiny_model):
    frozen = freeze(tiny_model)
    thawed = thaw(frozen)
    assert isinstance(thawed, Transducer) and thaw(tiny_model) is tiny_model
    assert all(a is b for a, b in zip(jax.tree.leaves(thawed), jax.tree.leaves(tiny_model), strict=True))
    assert jax.tree.structure(freeze(tiny_model)) == jax.tree.structure(frozen)
