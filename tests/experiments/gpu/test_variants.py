"""Variants hold the same parameters and compute nearly the same."""

import jax
import jax.numpy as jnp

from experiments.gpu import weights
from experiments.gpu.variants import variant
from nemojax.config import PRESETS
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
    assert block.attention.query.rounded == "float32"  # the model itself is unchanged
    assert narrow.encoder.blocks[0].attention.query.rounded == "bfloat16"
