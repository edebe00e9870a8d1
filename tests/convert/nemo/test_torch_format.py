import io
import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from convert.errors import ConvertError
from convert.nemo import torch_format
from tests.convert.samples import rezipped, torch_bytes, window

HERE = Path(__file__).parent


def read(data: bytes) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in torch_format.read(window(data)).items()}


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


def test_torchs_old_format_is_named():
    with pytest.raises(ConvertError, match=r"format from before 1\.6.*torch\.save it again"):
        read((HERE / "saved_by_old_torch.pt").read_bytes())


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


@pytest.mark.parametrize("number", [0, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40])
def test_numbers(number):
    assert pickle.loads(b"\x80\x02" + torch_format._number(number) + b".") == number


def test_storages_are_aligned_as_torch_aligns_them():
    data = torch_bytes({f"t{i}" * i: np.arange(i, dtype=np.float32) for i in range(1, 9)})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name, extra = struct.unpack("<HH", data[info.header_offset + 26 : info.header_offset + 30])
            assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_tensors_are_read_when_they_are_used():
    data = rezipped(torch_bytes({"a": np.ones(3, np.float32), "b": np.ones(2, np.float32)}), {})
    damaged = data.replace(np.ones(3, np.float32).tobytes(), b"\7" * 12)
    tensors = torch_format.read(window(damaged))
    np.testing.assert_array_equal(np.asarray(tensors["b"]), 1)
    with pytest.raises(ConvertError, match=r"damaged in its entry 'archive/data/0'"):
        np.asarray(tensors["a"])


# --- descriptions (data.pkl) by hand -----------------------------------------------------------------------

STORAGE = torch_format._tuple(
    [
        torch_format._text("storage"),
        b"ctorch\nFloatStorage\n",
        torch_format._text("0"),
        torch_format._text("cpu"),
        torch_format._number(6),
    ]
)
NUMBER, TUPLE, TEXT = torch_format._number, torch_format._tuple, torch_format._text
ORDERED = b"ccollections\nOrderedDict\n)R"


def tensor(offset=0, shape=(2, 3), strides=(3, 1), storage=STORAGE + b"Q", hooks=ORDERED) -> bytes:
    sizes = [TUPLE(map(NUMBER, numbers)) for numbers in (shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + TUPLE([storage, NUMBER(offset), *sizes, b"\x89", hooks]) + b"R"


def state(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02" + ORDERED + b"(" + b"".join(TEXT(name) + value for name, value in items) + b"u."


def checkpoint(description: bytes, **change) -> bytes:
    made = torch_bytes({"w": np.arange(6, dtype=np.float32)})
    return rezipped(made, {"data.pkl": description} | change)


def test_hand_made_descriptions_are_read():
    found = read(checkpoint(state(("w", tensor()), ("t", tensor(1, (2,), (2,))))))
    np.testing.assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["t"], [1, 3])


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class State:
    """An object whose pickle sets attributes."""

    def __init__(self):
        self.attribute = 1


def calls():
    import os
    import subprocess

    yield "os.system", Call(os.system, "touch /tmp/nemojax-was-here")
    yield "eval", Call(eval, "1 + 1")
    yield "exec", Call(exec, "raise SystemExit")
    yield "getattr", Call(getattr, "", "join")
    yield "subprocess", Call(subprocess.Popen, ["true"])
    yield "own class", State()
    yield "open", Call(open, "/etc/passwd")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name,value", calls())
def test_pickles_that_call_something(name, value, protocol):
    for content in (value, {"w": value}, [value]):
        with pytest.raises(ConvertError, match="refused"):
            read(checkpoint(pickle.dumps(content, protocol)))


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    "description,message",
    [
        # known names, used in other ways
        (state(("w", b"ccollections\nOrderedDict\n(X\1\0\0\0atR")), r"calls 'collections\.OrderedDict' in a way"),
        (state(("w", REBUILD + b")R")), r"calls 'torch\._utils\._rebuild_tensor_v2' in a way"),
        (state(("w", REBUILD + TUPLE([TEXT("a")] * 6) + b"R")), "_rebuild_tensor_v2' in a way"),
        (state(("w", b"ctorch\nFloatStorage\n)R")), r"calls 'torch\.FloatStorage' in a way"),
        (state(("w", TEXT("text") + b")R")), "calls 'text' in a way"),
        (state(("w", tensor() + b")R")), "calls View"),
        (state(("w", tensor(hooks=b"X\1\0\0\0a"))), "_rebuild_tensor_v2' in a way"),
        # unknown names
        (state(("w", b"ctorch\nload\n")), r"names 'torch\.load'"),
        (state(("w", b"cconvert.nemo\nread\n")), r"names 'convert\.nemo\.read'"),
        (state(("w", b"ctorch\nQInt8Storage\n")), r"names 'torch\.QInt8Storage'"),
        (state(("w", b"i" + b"os\nsystem\n")), "pickle instruction INST"),
        (state(("w", b"\x82\x01")), "pickle instruction EXT1"),
        (state(("w", b"(ccollections\nOrderedDict\no")), "pickle instruction OBJ"),
        (state(("w", b"ccollections\nOrderedDict\n)\x81")), "pickle instruction NEWOBJ"),
        # persistent ids
        (state(("w", tensor(storage=TEXT("storage") + b"Q"))), "other than a storage"),
        (state(("w", tensor(storage=STORAGE + b"QQ"))), "other than a storage"),
        (state(("w", tensor(storage=b"P0\n"))), "pickle instruction PERSID"),
        (state(("w", tensor(storage=b"N"))), "pickle instruction NONE"),
        (state(("w", tensor(storage=STORAGE.replace(NUMBER(6), NUMBER(-6)) + b"Q"))), "other than a storage"),
        # attributes, items, contents
        (b"\x80\x02" + tensor() + b"}b.", "sets attributes of something"),
        (b"\x80\x02" + ORDERED + b"ccollections\nOrderedDict\n}b0.", "sets attributes of something"),
        (b"\x80\x02ccollections\nOrderedDict\n" + TEXT("a") + TEXT("b") + b"s.", "sets items of something"),
        (state(("w", b"}")), "more than tensors, under 'w'"),
        (state(("state_dict", state(("w", tensor()))[2:-1]), ("epoch", NUMBER(3))), "under 'state_dict'; 'epoch'"),
        (b"\x80\x02" + tensor() + b".", "holds View, not a dictionary"),
        (b"\x80\x02(" + TEXT("w") + tensor() + b"t.", "holds tuple, not a dictionary"),
        (b"\x80\x02" + ORDERED + NUMBER(3) + tensor() + b"s.", "the key 3"),
        (state(("w", tensor()), ("w", tensor())), "the name 'w' twice"),
        # shapes, strides, offsets
        (state(("w", tensor(1))), "exceeds its storage of 6"),
        (state(("w", tensor(0, (3, 3), (3, 1)))), "exceeds its storage"),
        (state(("w", tensor(0, (2, 3), (4, 1)))), "exceeds its storage"),
        (state(("w", tensor(0, (7,), (1,)))), "exceeds its storage"),
        (state(("w", tensor(0, (1 << 30, 1 << 30), (0, 0)))), "exceeds its storage"),
        (state(("w", tensor(0, (1 << 60,), (1 << 60,)))), "exceeds its storage"),
        (state(("w", tensor(0, (7,), (0,)))), "exceeds its storage"),
        (state(("w", tensor(5, (2, 3), (-3, -1)))), "strides"),
        (state(("w", tensor(-1, (1,), (1,)))), "offset"),
        (state(("w", tensor(0, (2, 3), (1,)))), "strides"),
        (state(("w", tensor(0, (1,) * 9, (1,) * 9))), "strides"),
        (state(("w", tensor(shape=(), strides=()).replace(b"(t(t", b"(\x88t(\x88t"))), "shape"),
        # damage
        (b"", "damaged description"),
        (b"\x80\x02", "damaged description"),
        (state(("w", tensor()))[:-9], "damaged description"),
        (b"\x80\x02h\7.", "damaged description"),
        (b"\x80\x02u.", "damaged description"),
        (b"\x80\x02t.", "damaged description"),
        (b"\x80\x02\x87.", "damaged description"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "damaged description"),
        (b"\x80\x02))..", "damaged description"),
        (b"\xffnot a pickle", "damaged description"),
    ],
)
def test_descriptions_of_more_than_tensors(description, message):
    with pytest.raises(ConvertError, match=message):
        read(checkpoint(description))


def test_messages_stay_short_however_large_the_value():
    deep = b")" + b"\x85" * 5000
    bomb = b")" + b"q\0" + b"h\0h\0\x86q\0" * 60  # nested tuples with 2^60 leaves
    for value in (deep, bomb, TEXT("x" * 100_000)):
        for content in (tensor(storage=value + b"Q"), value + b")R", value):
            with pytest.raises(ConvertError) as caught:
                read(checkpoint(state(("w", content))))
            assert len(str(caught.value)) < 500
    with pytest.raises(ConvertError) as caught:
        read(checkpoint(state(*((f"w{i}", b"}") for i in range(1000)))))
    assert len(str(caught.value)) < 500


# --- the zip around it -------------------------------------------------------------------------------------

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
        (lambda: b"", "not a torch checkpoint"),
        (lambda: b"PK\3\4" + b"\0" * 100, "not a complete zip"),
        (lambda: b"garbage" * 50, "not a torch checkpoint"),
        (lambda: GOOD[:-30], "not a complete zip"),
        (lambda: GOOD[: len(GOOD) // 2], "not a complete zip"),
        (lambda: rezipped(GOOD, {}, compression=zipfile.ZIP_DEFLATED), "compressed entry"),
        (lambda: rezipped(GOOD, {"data/0": bytes(100 << 20)}, compression=zipfile.ZIP_DEFLATED), "compressed entry"),
        (lambda: encrypted(rezipped(GOOD, {})), "encrypted entry"),
        (lambda: with_entry(GOOD, "archive/data/0"), "'archive/data/0' twice"),
        (lambda: with_entry(GOOD, "archive/data.pkl"), r"no data\.pkl, or several"),
        (lambda: with_entry(GOOD, "other/data.pkl"), r"no data\.pkl, or several"),
        (lambda: rezipped(GOOD, {"data.pkl": None}), r"no data\.pkl, or several"),
        (lambda: rezipped(GOOD, {"code/model.py": b"import os"}), r"'archive/code/model\.py', which has no place"),
        (lambda: rezipped(GOOD, {"constants.pkl": b"."}), "which has no place"),
        (lambda: with_entry(GOOD, "../evil"), r"'\.\./evil', which has no place"),
        (lambda: rezipped(GOOD, {"byteorder": b"big"}), "byte order b'big'"),
        (lambda: rezipped(GOOD, {"data/1": None}), "'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data/1": b"\0" * 12}), "'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data/1": b"\0" * 20}), "'v' has no storage of 16 bytes"),
        (lambda: rezipped(GOOD, {"data.pkl": b"." * (9 << 20)}), r"data\.pkl of more than 2 MB"),
    ],
)
def test_zips_that_are_not_checkpoints(data, message):
    with pytest.raises(ConvertError, match=message):
        read(data())


def test_old_files_without_a_byte_order_are_read():
    assert set(read(rezipped(GOOD, {"byteorder": None}))) == {"w", "v"}


def test_a_storage_that_claims_to_be_larger_than_the_file():
    huge = STORAGE.replace(NUMBER(6), NUMBER(1 << 50))
    with pytest.raises(ConvertError, match="has no storage of"):
        read(checkpoint(state(("w", tensor(storage=huge + b"Q")))))


def test_a_file_cut_anywhere_is_refused():
    for cut in range(0, len(GOOD), 7):
        with pytest.raises(ConvertError):
            read(GOOD[:cut])
