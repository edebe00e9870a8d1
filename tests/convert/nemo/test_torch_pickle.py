"""Descriptions of tensors, made by hand and by Python's pickler: what tensors need is read, all else is refused."""

import collections
import io
import pickle
import sys
import types

import numpy as np
import pytest

from convert.errors import ConvertError
from convert.nemo import torch_format, torch_pickle
from tests.convert.samples import file_of, rezipped, torch_bytes

STORAGE = torch_pickle._tuple(
    [
        torch_pickle._text("storage"),
        b"ctorch\nFloatStorage\n",
        torch_pickle._text("0"),
        torch_pickle._text("cpu"),
        torch_pickle._number(6),
    ]
)
NUMBER, TUPLE, TEXT = torch_pickle._number, torch_pickle._tuple, torch_pickle._text
ORDERED = b"ccollections\nOrderedDict\n)R"


def tensor(offset=0, shape=(2, 3), strides=(3, 1), storage=STORAGE + b"Q", hooks=ORDERED) -> bytes:
    sizes = [TUPLE(map(NUMBER, numbers)) for numbers in (shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + TUPLE([storage, NUMBER(offset), *sizes, b"\x89", hooks]) + b"R"


def state(*items: tuple[str, bytes]) -> bytes:
    return b"\x80\x02" + ORDERED + b"(" + b"".join(TEXT(name) + value for name, value in items) + b"u."


def read(description: bytes) -> dict[str, np.ndarray]:
    """Reads a checkpoint of six numbers with this data.pkl."""
    made = rezipped(torch_bytes({"w": np.arange(6, dtype=np.float32)}), {"data.pkl": description})
    return {name: np.asarray(tensor) for name, tensor in torch_format.read(file_of(made)).items()}


def test_hand_made_descriptions_are_read():
    found = read(state(("w", tensor()), ("t", tensor(1, (2,), (2,)))))
    np.testing.assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["t"], [1, 3])
    last = read(state(("w", tensor(5, (1,) * 8, (9,) * 8))))["w"]
    assert last.shape == (1,) * 8 and last.item() == 5


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
            read(pickle.dumps(content, protocol))


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
        read(description)


def test_messages_stay_short_however_large_the_value():
    deep = b")" + b"\x85" * 5000
    bomb = b")" + b"q\0" + b"h\0h\0\x86q\0" * 60  # nested tuples with 2^60 leaves
    for value in (deep, bomb, TEXT("x" * 100_000)):
        for content in (tensor(storage=value + b"Q"), value + b")R", value):
            with pytest.raises(ConvertError) as caught:
                read(state(("w", content)))
            assert len(str(caught.value)) < 500
    with pytest.raises(ConvertError) as caught:
        read(state(*((f"w{i}", b"}") for i in range(1000))))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("number", [0, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40])
def test_numbers(number):
    assert pickle.loads(b"\x80\x02" + torch_pickle._number(number) + b".") == number


def test_a_storage_that_claims_to_be_larger_than_the_file():
    huge = STORAGE.replace(NUMBER(6), NUMBER(1 << 50))
    with pytest.raises(ConvertError, match="has no storage of"):
        read(state(("w", tensor(storage=huge + b"Q"))))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol):
    """Each writes texts, names and references in its own way."""
    description = pickle_of_a_tensor(protocol)
    found = read(description)
    np.testing.assert_array_equal(found["w"], [[0, 1, 2], [3, 4, 5]])


def pickle_of_a_tensor(protocol: int) -> bytes:
    """Returns data.pkl as Python's pickler writes it, without torch."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    modules["torch"].FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    rebuild = types.FunctionType((lambda *_: None).__code__, {}, "_rebuild_tensor_v2")
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    modules["torch._utils"]._rebuild_tensor_v2 = rebuild

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            kind = modules["torch"].FloatStorage
            return ("storage", kind, "0", "cpu", 6) if isinstance(value, Storage) else None

    target = io.BytesIO()
    arguments = (Storage(), 0, (2, 3), (3, 1), False, collections.OrderedDict())
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        Pickler(target, protocol).dump({"w": Call(rebuild, *arguments)})
    return target.getvalue()


def test_a_state_dict_under_its_name():
    nested = state(("state_dict", state(("w", tensor()))[2:-1]))
    np.testing.assert_array_equal(read(nested)["w"], [[0, 1, 2], [3, 4, 5]])


def test_names_that_are_no_texts():
    deep = b")" + b"q\0" + b"h\0h\0\x86q\0" * 60
    with pytest.raises(ConvertError, match="which is not a name; refused") as caught:
        read(b"\x80\x04" + deep + b"h\0\x93.")
    assert len(str(caught.value)) < 300
    for module, name in ((TEXT("torch"), b")"), (b")", TEXT("FloatStorage"))):
        with pytest.raises(ConvertError, match="which is not a name; refused"):
            read(b"\x80\x04" + module + name + b"\x93.")
