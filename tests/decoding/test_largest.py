import jax
import numpy as np
import pytest

from nemojax.decoding.largest import FEW, largest


@pytest.mark.parametrize("count", [1, 5, FEW + 1])
def test_it_is_top_k(count):
    """Of equal values the first ones."""
    x = np.float32(np.random.default_rng(0).integers(0, 9, (3, 2, 40)))
    found, expected = largest(jax.numpy.asarray(x), count), jax.lax.top_k(x, count)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_rows_with_few_values_and_with_nan_have_indices_in_range():
    x = np.full((2, 4), -np.inf, np.float32)
    x[0, 2], x[1, 1] = 1.0, np.nan
    values, indices = largest(jax.numpy.asarray(x), 3)
    assert values[0].tolist() == [1.0, -np.inf, -np.inf] and int(indices[0, 0]) == 2
    assert ((indices >= 0) & (indices < 4)).all()
