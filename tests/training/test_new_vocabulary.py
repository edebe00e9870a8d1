import jax
import jax.numpy as jnp
import numpy as np

from nemojax.model.parameters import named_parameters
from nemojax.training.new_vocabulary import BY_LABEL, with_vocabulary


def test_parameters_by_label_are_drawn_and_blanks_are_kept(tiny_model):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model)
    old = named_parameters(half)
    first, other = (named_parameters(with_vocabulary(half, 20, seed)) for seed in (0, 1))
    for name, value in first.items():
        assert value.dtype == jnp.bfloat16
        if name not in BY_LABEL:
            np.testing.assert_array_equal(value, old[name])
    assert first["prediction.embedding"].shape[0] == first["joint.output.bias"].shape[0] == 21
    for name in ("joint.output.kernel", "joint.output.bias"):
        np.testing.assert_array_equal(first[name][..., -1], old[name][..., -1])
    assert not np.array_equal(first["joint.output.kernel"][:, :20], other["joint.output.kernel"][:, :20])
    assert not np.array_equal(first["prediction.embedding"], other["prediction.embedding"])
