import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nemojax import weights
from nemojax.weights import open_arrays, read_arrays

ARRAYS = {
    "a.kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
    "b": np.array([-3, 5], np.int8),
    "c.scale": np.array(1.5, np.float32),
}


@pytest.fixture
def directory(tmp_path):
    ocp.PyTreeCheckpointer().save(tmp_path / "weights", ARRAYS)
    return tmp_path / "weights"


def test_what_orbax_wrote_is_read(directory, monkeypatch):
    """A few arrays at a time, however many there are."""
    monkeypatch.setattr(weights, "CONCURRENT_BYTES", 50)
    stored = open_arrays(directory)
    assert {name: array.shape for name, array in stored.items()} == {name: x.shape for name, x in ARRAYS.items()}
    device = jax.devices()[0]
    read = read_arrays(stored, {"b": np.int8, "a.kernel": np.float32, "c.scale": np.float32}, device)
    assert list(read) == ["b", "a.kernel", "c.scale"]
    for name, array in read.items():
        assert isinstance(array, jax.Array) and array.dtype == ARRAYS[name].dtype and array.devices() == {device}
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_arrays_are_converted_as_they_are_read(directory):
    read = read_arrays(open_arrays(directory), {"a.kernel": jnp.bfloat16}, jax.devices()[0])
    np.testing.assert_array_equal(read["a.kernel"], ARRAYS["a.kernel"].astype(jnp.bfloat16))


def test_more_arrays_than_a_model_has_are_refused(directory, monkeypatch):
    monkeypatch.setattr(weights, "MAX_ARRAYS", 2)
    with pytest.raises(ValueError, match="it holds 3 arrays; a model has at most 2"):
        open_arrays(directory)


def test_a_chunk_that_is_missing_is_an_error(directory):
    """Zarr's own answer is a chunk of zeros."""
    import tensorstore as ts

    database = ts.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}).result()
    database.delete_range(ts.KvStore.KeyRange("b/0", "b/1")).result()
    with pytest.raises(ValueError, match="missing"):
        read_arrays(open_arrays(directory), {"b": np.int8}, jax.devices()[0])
