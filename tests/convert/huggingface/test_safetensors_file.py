import io
import json
import struct

import ml_dtypes
import numpy as np
import pytest

from convert.errors import ConvertError
from convert.files import open_file
from convert.huggingface import safetensors_file
from nemojax import safetensors_format
from tests.convert.samples import file_of
from tests.helpers.messages import whole


def made(header: dict | list | str, data: bytes = b"", length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def read(data: bytes) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in safetensors_file.read(file_of(data)).items()}


def entry(begin: int, end: int, shape: list, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


def test_the_format_by_hand():
    header = {
        "__metadata__": {"format": "pt"},
        "b": entry(8, 12, [2], "BF16"),
        "a": entry(0, 8, [1, 2]),
        "none": entry(12, 12, [0, 3]),
    }
    data = np.float32([1.5, -2]).tobytes() + np.array([0.5, 3], ml_dtypes.bfloat16).tobytes()
    found = read(made(header, data))
    np.testing.assert_array_equal(found["a"], np.float32([[1.5, -2]]))
    np.testing.assert_array_equal(found["b"], np.array([0.5, 3], ml_dtypes.bfloat16))
    assert found["none"].shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_])
def test_round_trip(dtype):
    rng = np.random.default_rng(0)
    arrays = {f"a.{shape}": (10 * rng.normal(size=shape)).astype(dtype) for shape in [(), (3,), (2, 3, 4), (0, 2)]}
    target = io.BytesIO()
    safetensors_format.write(target, arrays.items(), arrays)
    found = read(target.getvalue())
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ["a" * i for i in range(1, 9)])
def test_tensors_are_aligned_to_8_bytes(name):
    target, arrays = io.BytesIO(), {name: np.ones(2)}
    safetensors_format.write(target, arrays.items(), arrays)
    length = int.from_bytes(target.getvalue()[:8], "little")
    assert json.loads(target.getvalue()[8 : 8 + length])["__metadata__"] == {"format": "pt"}
    assert length % 8 == 0 and target.getvalue()[8 + length :] == np.ones(2).tobytes()
    assert json.loads(target.getvalue()[8 : 8 + length])[name]["data_offsets"] == [0, 16]


@pytest.mark.parametrize(
    "data,message",
    [
        (b"", "is not a safetensors file, or is cut short in its header"),
        (b"\1\2", "is not a safetensors file, or is cut short in its header"),
        (made({}, length=1 << 40), "is not a safetensors file, or is cut short in its header"),
        (made({}, length=(1 << 64) - 1), "is not a safetensors file, or is cut short in its header"),
        (made({}, length=0), "is not a safetensors file, or is cut short in its header"),
        (made(" " * (4 << 20) + "{}"), "has a safetensors header of more than 4 MB"),
        (
            made({"a": entry(0, 0, [0] * 9)}),
            (
                "has a damaged entry for the tensor 'a': {'data_offsets': [0, 0], 'dtype': 'F32', "
                "'shape': [0, 0, 0, 0, 0, 0, ...]}"
            ),
        ),
        (made("{{"), "has a damaged safetensors header"),
        (made("[" * 100_000), "has a damaged safetensors header"),
        (made([]), "has a damaged safetensors header"),
        (made('{"a": {}, "a": {}}'), "has a damaged safetensors header"),
        (made({"a": 3}), "has a damaged entry for the tensor 'a': 3"),
        (
            made({"a": entry(0, 4, [1], "F8_E4M3")}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [0, 4], 'dtype': 'F8_E4M3', 'shape': [1]}",
        ),
        (
            made({"a": entry(0, 4, [2])}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [0, 4], 'dtype': 'F32', 'shape': [2]}",
        ),
        (
            made({"a": entry(4, 0, [-1])}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [4, 0], 'dtype': 'F32', 'shape': [-1]}",
        ),
        (
            made({"a": entry(-4, 0, [1])}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [-4, 0], 'dtype': 'F32', 'shape': [1]}",
        ),
        (
            made({"a": entry(0, 4, [True])}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [0, 4], 'dtype': 'F32', 'shape': [True]}",
        ),
        (
            made({"a": entry(0, 4, [1.0])}, bytes(4)),
            "has a damaged entry for the tensor 'a': {'data_offsets': [0, 4], 'dtype': 'F32', 'shape': [1.0]}",
        ),
        (made({"a": entry(0, 1 << 62, [1 << 60])}), "is 105 bytes long, its header says 4611686018427388009"),
        (
            made({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
            "has a tensor that overlaps another or leaves a gap: 'b'",
        ),
        (
            made({"a": entry(0, 8, [2]), "b": entry(0, 8, [2])}, bytes(8)),
            "has a tensor that overlaps another or leaves a gap: 'b'",
        ),
        (
            made({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),
            "has a tensor that overlaps another or leaves a gap: 'b'",
        ),
        (made({"a": entry(4, 8, [1])}, bytes(8)), "has a tensor that overlaps another or leaves a gap: 'a'"),
        (made({"a": entry(0, 4, [1])}, bytes(3)), "is 72 bytes long, its header says 73"),
        (made({"a": entry(0, 4, [1])}, bytes(5)), "is 74 bytes long, its header says 73"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(ConvertError) as caught:
        read(data)
    assert str(caught.value) == message


def test_limits_of_a_header(monkeypatch):
    assert read(made({"a": entry(0, 4, [1] * 8)}, bytes(4)))["a"].shape == (1,) * 8
    longest = safetensors_file.read(file_of(made({"a": entry(0, 0, [0, 1 << 62])})))["a"]
    assert (longest.shape, longest.size) == ((0, 1 << 62), 0)
    with pytest.raises(
        ConvertError,
        match=whole(
            "has a damaged entry for the tensor 'a': {'data_offsets': [0, 0], 'dtype': 'F32', 'shape': "
            "[0, 4611686018427387905]}"
        ),
    ):
        read(made({"a": entry(0, 0, [0, (1 << 62) + 1])}))
    monkeypatch.setattr(safetensors_format, "MAX_HEADER_BYTES", 2)
    assert read(made("{}")) == {}
    with pytest.raises(ConvertError, match=r"^has a safetensors header of more than 0 MB$"):
        read(made("{} "))
    assert safetensors_file.header_bytes(file_of(b"\2\1")) == 258


@pytest.mark.parametrize("missing", [2, 4])
def test_a_file_that_is_cut_short_while_it_is_read(tmp_path, missing):
    data = made({"a": entry(0, 8, [2]), "b": entry(8, 12, [1])}, bytes(12))
    (tmp_path / "file").write_bytes(data)
    tensors = safetensors_file.read(open_file(tmp_path / "file"))
    with open(tmp_path / "file", "r+b") as file:
        file.truncate(len(data) - missing)
    np.testing.assert_array_equal(np.asarray(tensors["a"]), [0, 0])
    with pytest.raises(ConvertError, match=r"^was cut short while it was read$"):
        np.asarray(tensors["b"])


def test_cut_anywhere():
    data = made({"a": entry(0, 8, [2]), "b": entry(8, 12, [1])}, bytes(12))
    for cut in range(len(data)):
        with pytest.raises(ConvertError):
            read(data[:cut])
