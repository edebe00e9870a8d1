"""Variants hold the same parameters and compute nearly the same."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import weights
from experiments.gpu.variants import NarrowLinear, variant
from nemojax.config import PRESETS
from nemojax.model.layers import Linear
from nemojax.model.parameters import named_parameters


def test_variants_hold_the_same_parameters():
    model = weights.placed(PRESETS["tiny"], weights.draw(PRESETS["tiny"], 0), jnp.bfloat16)
    fused, narrow = variant(model, "fused"), variant(model, "narrow")
    assert variant(model, "plain") is model
    for other in (fused, narrow):
        assert set(named_parameters(other)) == set(named_parameters(model))
        leaves = zip(jax.tree.leaves(named_parameters(other)), jax.tree.leaves(named_parameters(model)), strict=True)
        assert all(x is y for x, y in leaves)
    block = model.encoder.blocks[0]
    assert isinstance(block.attention.query, Linear)  # the model itself is unchanged
    assert isinstance(narrow.encoder.blocks[0].attention.query, NarrowLinear)
    assert isinstance(narrow.encoder.blocks[0].attention.position, Linear)


def test_a_narrow_layer_has_its_kernels_type():
    model = weights.placed(PRESETS["tiny"], weights.draw(PRESETS["tiny"], 0), jnp.bfloat16)
    linear = model.encoder.blocks[0].feedforward1.linear1
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 32)), jnp.float32)
    y, narrow = linear(x), NarrowLinear(linear)(x)
    assert narrow.dtype == jnp.bfloat16 and np.allclose(
        np.asarray(y, np.float32), narrow.astype(jnp.float32), 0.02, 0.02
    )
