import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.model.layers import by_rows, dropout, split_key


def test_dropout_zeroes_its_share_and_scales_the_rest():
    x = 1.0 + jnp.arange(20_000.0).reshape(200, 100)
    y = np.asarray(dropout(x, 0.2, jax.random.key(0)))
    dropped = y == 0
    assert abs(dropped.mean() - 0.2) < 0.01 and dropped.any(0).all() and dropped.any(1).all()
    np.testing.assert_allclose(y[~dropped], np.asarray(x)[~dropped] / 0.8, rtol=1e-6)


def test_no_key_or_no_rate_is_no_dropout():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.2, None) is x and dropout(x, 0.0, jax.random.key(0)) is x
    assert list(split_key(None, 2)) == [None, None]


def test_split_keys_differ():
    keys = jax.random.key_data(jnp.stack(split_key(jax.random.key(0), 3)))
    assert len({tuple(key.tolist()) for key in np.asarray(keys)}) == 3


@pytest.mark.parametrize("rows", [2, 3, 6, 7, 8])
def test_a_part_of_the_rows_at_a_time(rows):
    seen = []

    def advance(state, x):
        seen.append(x.shape[0])
        return {"state": state["state"] + x, "sum": x.sum(1)}

    x = jnp.arange(2.0 * rows).reshape(rows, 2)
    found = by_rows(advance, 3, {"state": 10 * x, "sum": jnp.zeros(rows)}, x)
    assert max(seen) <= 3
    jax.tree.map(np.testing.assert_array_equal, found, {"state": 11 * x, "sum": x.sum(1)})
