import io
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from convert.errors import ConvertError
from convert.nemo import torch_format
from tests.convert.samples import file_of, rezipped, torch_bytes
from tests.helpers.messages import is_message, whole

HERE = Path(__file__).parent


def read(data: bytes) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in torch_format.read(file_of(data)).items()}


def test_a_file_saved_by_torch():
    """torch 2.13 wrote saved_by_torch.pt; five of its tensors share one storage."""
    found = read((HERE / "saved_by_torch.pt").read_bytes())
    base = np.arange(24, dtype=np.float32)
    expected = {
        "whole": base.reshape(2, 3, 4),
        "transposed": base.reshape(4, 6).T,
        "middle": base[8:14],
        "step": base[1::5],
        "parameter": np.float32([[1.5, -2.0]]),
        "bfloat16": np.array([1.0, -0.5, 3.140625], ml_dtypes.bfloat16),
        "float16": np.float16([0.1, 65504.0]),
        "count": np.int64(7),
        "empty": np.zeros((0, 3), np.float32),
        "flag": np.array([True, False]),
    }
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.int64, np.uint8, np.bool_]
)
def test_round_trip(dtype):
    rng = np.random.default_rng(0)
    arrays = {f"a.{shape}": (10 * rng.normal(size=shape)).astype(dtype) for shape in [(), (3,), (2, 3, 4), (0, 2)]}
    found = read(torch_bytes(arrays))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_storages_are_aligned_as_torch_aligns_them():
    data = torch_bytes({f"t{i}" * i: np.arange(i, dtype=np.float32) for i in range(1, 9)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [
            f"archive/{name}" for name in ("data.pkl", "byteorder", *(f"data/{i}" for i in range(8)), "version")
        ]
        assert (archive.read("archive/byteorder"), archive.read("archive/version")) == (b"little", b"3\n")
        for info in archive.infolist():
            name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            assert (info.header_offset + 30 + name + extra) % 64 == 0
            assert info.extra[:4] == b"FB" + struct.pack("<H", extra - 4) and set(info.extra[4:]) <= set(b"Z")


def test_tensors_are_read_when_they_are_used():
    data = rezipped(torch_bytes({"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}), {})
    damaged = data.replace(np.ones(3, np.float32).tobytes(), b"\7" * 12)
    tensors = torch_format.read(file_of(damaged))
    np.testing.assert_array_equal(np.asarray(tensors["b"]), 1)
    with pytest.raises(
        ConvertError, match=whole("is damaged in its entry 'archive/data/0': Bad CRC-32 for file 'archive/data/0'")
    ):
        np.asarray(tensors["a"])


GOOD = torch_bytes({"w": np.arange(6, dtype=np.float32), "v": np.arange(4, dtype=np.float32)})


def encrypted(data: bytes) -> bytes:
    """Sets the flag of encryption in every header."""
    data = bytearray(data)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(signature, at + 1)
    return bytes(data)


def with_entry(data: bytes, name: str) -> bytes:
    target = io.BytesIO(data)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(name, b"again")
    return target.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "data,message",
    [
        (lambda: b"", "is not a torch checkpoint (a zip file)"),
        (lambda: b"PK\3\4" + b"\0" * 100, "is not a complete zip file: "),
        (lambda: b"garbage" * 50, "is not a torch checkpoint (a zip file)"),
        (lambda: GOOD[:-30], "is not a complete zip file: "),
        (lambda: GOOD[: len(GOOD) // 2], "is not a complete zip file: "),
        (
            lambda: rezipped(GOOD, {}, compression=zipfile.ZIP_DEFLATED),
            "has the compressed entry 'archive/data.pkl'; torch.save it again",
        ),
        (
            lambda: rezipped(GOOD, {"data/0": bytes(100 << 20)}, compression=zipfile.ZIP_DEFLATED),
            "has the compressed entry 'archive/data.pkl'; torch.save it again",
        ),
        (lambda: encrypted(rezipped(GOOD, {})), "has the encrypted entry 'archive/data.pkl'"),
        (lambda: with_entry(GOOD, "archive/data/0"), "has the entry 'archive/data/0' twice"),
        (lambda: with_entry(GOOD, "archive/data.pkl"), "has no data.pkl, or several; not a torch checkpoint"),
        (lambda: with_entry(GOOD, "other/data.pkl"), "has no data.pkl, or several; not a torch checkpoint"),
        (lambda: rezipped(GOOD, {"data.pkl": None}), "has no data.pkl, or several; not a torch checkpoint"),
        (
            lambda: rezipped(GOOD, {"code/model.py": b"import os"}),
            "has the entry 'archive/code/model.py', which has no place in a state dict",
        ),
        (
            lambda: rezipped(GOOD, {"constants.pkl": b"."}),
            "has the entry 'archive/constants.pkl', which has no place in a state dict",
        ),
        (lambda: with_entry(GOOD, "data/9"), "has the entry 'data/9', which has no place in a state dict"),
        (lambda: with_entry(GOOD, "../evil"), "has the entry '../evil', which has no place in a state dict"),
        (lambda: rezipped(GOOD, {"byteorder": b"big"}), "is in the byte order b'big', not little"),
        (lambda: rezipped(GOOD, {"data/1": None}), "the tensor 'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data/1": b"\0" * 12}), "the tensor 'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data/1": b"\0" * 20}), "the tensor 'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data.pkl": b"." * (9 << 20)}), "has a data.pkl of more than 2 MB"),
    ],
)
def test_zips_that_are_not_checkpoints(data, message):
    with pytest.raises(ConvertError) as caught:
        read(data())
    assert is_message(caught.value, message)


def test_old_files_without_a_byte_order_are_read():
    assert set(read(rezipped(GOOD, {"byteorder": None}))) == {"w", "v"}


def test_a_file_cut_anywhere_is_refused():
    for cut in range(0, len(GOOD), 7):
        with pytest.raises(ConvertError):
            read(GOOD[:cut])


def test_a_list_of_entries_that_is_too_long(monkeypatch):
    monkeypatch.setattr(torch_format, "MAX_ENTRIES", 5)
    assert set(read(GOOD)) == {"w", "v"}  # two storages and three more
    with pytest.raises(ConvertError, match=r"^has more than 5 entries$"):
        read(rezipped(GOOD, {"data/2": b""}))
    monkeypatch.setattr(torch_format, "MAX_DIRECTORY_BYTES", 1 << 16)
    large = np.ones(1 << 16, np.float32)  # the limit is that of headers, not of tensors
    np.testing.assert_array_equal(read(torch_bytes({"large": large}))["large"], large)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        for i in range(2000):
            made.writestr(f"archive/{i}", b"")
    with pytest.raises(ConvertError, match=whole("has more than 0 MB of headers; refused")):
        torch_format.read(file_of(target.getvalue()))
