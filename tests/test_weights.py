import os
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from nemojax import safetensors_format, weights
from nemojax.arena import Arena
from nemojax.errors import CheckpointError
from nemojax.kernels import native, panels
from nemojax.weights import FileWeights, OrbaxWeights
from tests.helpers.compiler import needs_compiler
from tests.helpers.messages import whole

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
    events, aligned, device_put = [], weights.aligned, jax.device_put
    monkeypatch.setattr(weights, "CONCURRENT_BYTES", 50)
    monkeypatch.setattr(weights, "aligned", lambda *given: events.append("begun") or aligned(*given))
    monkeypatch.setattr(weights.jax, "device_put", lambda *given: events.append("read") or device_put(*given))
    check_reading(OrbaxWeights(directory))
    assert events == ["begun", "begun", "read", "read", "begun", "read"]  # arrays of 2, 96 and 4 bytes


@pytest.fixture
def file(tmp_path):
    with open(tmp_path / "weights.safetensors", "wb") as target:
        safetensors_format.write(target, ARRAYS.items(), ARRAYS)
    return tmp_path / "weights.safetensors"


def check_reading(stored):
    assert stored.shapes == {name: x.shape for name, x in ARRAYS.items()}
    assert stored.types == {name: x.dtype for name, x in ARRAYS.items()}
    device = jax.devices()[0]
    read = stored.read({"b": np.int8, "a.kernel": np.float32, "c.scale": np.float32}, device)
    assert list(read) == ["b", "a.kernel", "c.scale"]
    for name, array in read.items():
        assert isinstance(array, jax.Array) and array.dtype == ARRAYS[name].dtype and array.devices() == {device}
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("ahead", [0, 98, 1 << 30])
def test_a_file_is_read(file, ahead, monkeypatch):
    monkeypatch.setattr(weights, "AHEAD_BYTES", ahead)
    with closing(FileWeights(file)) as stored:
        check_reading(stored)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="arrays of another device are copies")
def test_large_arrays_of_a_file_are_read_where_they_stay(file, monkeypatch):
    memory, aligned, empty = [], weights.aligned, Arena.empty
    monkeypatch.setattr(weights, "AHEAD_BYTES", 0)
    monkeypatch.setattr(weights, "aligned", lambda *given: memory.append(aligned(*given)) or memory[-1])
    monkeypatch.setattr(Arena, "empty", lambda *given: memory.append(empty(*given)) or memory[-1])
    with closing(FileWeights(file)) as stored:
        for name in ("a.kernel", "b"):
            read = stored.read({name: ARRAYS[name].dtype}, jax.devices()[0])
            assert read[name].unsafe_buffer_pointer() == memory.pop().ctypes.data and not memory


@needs_compiler
@pytest.mark.parametrize("ahead", [0, 1 << 30])
def test_kernels_in_int8_are_given_in_tiles_and_nothing_else_is(tmp_path, ahead, monkeypatch):
    """However large each is, and in whatever order: the memory that a kernel is read into is used again."""
    assert native.available()
    rng = np.random.default_rng(0)
    shapes = [(3, 20, 16, 2), (2, 64, 16, 2), (1, 1, 16, 2), (6, 33, 16, 2)] * 3
    kernels = {f"{i}": rng.integers(-127, 128, shape).astype(np.int8) for i, shape in enumerate(shapes)}
    others = {"flat": np.arange(-9, 9, dtype=np.int8), "wide": np.ones((2, 3, 16, 4), np.int8)}
    others |= {"none": np.ones((2, 0, 16, 2), np.int8), "no panels": np.ones((0, 7, 16, 2), np.int8)}
    arrays = {**kernels, **others, "float": np.ones((2, 3, 16, 2), np.float32)}
    with open(tmp_path / "weights.safetensors", "wb") as target:
        safetensors_format.write(target, arrays.items(), arrays)
    monkeypatch.setattr(weights, "AHEAD_BYTES", ahead)
    with closing(FileWeights(tmp_path / "weights.safetensors", in_tiles=True)) as stored:
        assert stored.shapes == {name: x.shape for name, x in arrays.items()}
        read = stored.read(stored.types, jax.devices()[0])
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], panels.to_tiles(array) if name in kernels else array)


def test_tiles_count_as_they_are_in_memory(tmp_path, monkeypatch):
    """A file of small panels may be one of large tiles."""
    arrays = {name: np.ones((1, 1, 16, 2), np.int8) for name in "abc"}
    with open(tmp_path / "weights.safetensors", "wb") as target:
        safetensors_format.write(target, arrays.items(), arrays)
    monkeypatch.setattr(FileWeights, "_read", lambda self, place: None)
    monkeypatch.setattr(weights, "AHEAD_BYTES", 2 * 2048 + 2047)  # tiles have 2,048 bytes, these panels 32
    for in_tiles, ahead in ((True, 2), (False, 3)):
        with closing(FileWeights(tmp_path / "weights.safetensors", in_tiles)) as stored:
            assert len(stored._reading) == ahead


@pytest.mark.parametrize(
    "ahead, names", [(0, ""), (97, "a.kernel"), (98, "a.kernel b"), (1 << 30, "a.kernel b c.scale")]
)
def test_as_much_is_read_ahead_as_is_allowed(file, ahead, names, monkeypatch):
    monkeypatch.setattr(weights, "AHEAD_BYTES", ahead)
    stored = FileWeights(file)
    stored.close()  # waits for what has begun
    assert list(stored._reading) == names.split()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(stored._file)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="open files are listed in /proc")
def test_a_file_is_closed_where_no_thread_can_start(file, monkeypatch):
    files = lambda: [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]

    def fails(*given):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("nemojax.weights.ThreadPoolExecutor.submit", fails)
    with pytest.raises(RuntimeError, match="can't start"):
        FileWeights(file)
    assert os.path.realpath(file) not in files()


def test_an_array_that_is_cut_while_it_is_read_ahead_is_an_error(file, monkeypatch):
    monkeypatch.setattr(weights.os, "preadv", lambda file, memory, begin: 0)
    with closing(FileWeights(file)) as stored, pytest.raises(CheckpointError, match="was cut short while it was read"):
        stored.read(stored.types, jax.devices()[0])


def test_a_damaged_file_is_named(file, monkeypatch):
    monkeypatch.setattr(weights, "AHEAD_BYTES", 0)
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    message = f"weights.safetensors is {len(data) - 1} bytes long, its header says {len(data)}"
    with pytest.raises(CheckpointError, match=whole(message)):
        FileWeights(file)
    file.write_bytes(data)
    with closing(FileWeights(file)) as stored:
        file.write_bytes(data[:-1])
        with pytest.raises(CheckpointError, match=whole("weights.safetensors was cut short while it was read")):
            stored.read(stored.types, jax.devices()[0])


@pytest.mark.parametrize("form", ["directory", "file"])
def test_arrays_are_converted_as_they_are_read(form, request):
    path = request.getfixturevalue(form)
    with closing(OrbaxWeights(path) if form == "directory" else FileWeights(path)) as stored:
        read = stored.read({"a.kernel": jnp.bfloat16}, jax.devices()[0])
    np.testing.assert_array_equal(read["a.kernel"], ARRAYS["a.kernel"].astype(jnp.bfloat16))


def test_more_arrays_than_a_model_has_are_refused(directory, monkeypatch):
    monkeypatch.setattr(weights, "MAX_ARRAYS", 2)
    with pytest.raises(ValueError, match="it holds 3 arrays; a model has at most 2"):
        OrbaxWeights(directory)


def test_a_chunk_that_is_missing_is_an_error(directory):
    """Zarr's own answer is a chunk of zeros."""
    import tensorstore as ts

    database = ts.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}).result()
    database.delete_range(ts.KvStore.KeyRange("b/0", "b/1")).result()
    with pytest.raises(ValueError, match="missing"):
        OrbaxWeights(directory).read({"b": np.int8}, jax.devices()[0])
