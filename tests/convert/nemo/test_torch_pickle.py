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
from tests.helpers.messages import is_message, whole

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
        (
            state(("w", b"ccollections\nOrderedDict\n(X\1\0\0\0atR")),
            "calls 'collections.OrderedDict' in a way that a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", REBUILD + b")R")),
            "calls 'torch._utils._rebuild_tensor_v2' in a way that a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", REBUILD + TUPLE([TEXT("a")] * 6) + b"R")),
            "calls 'torch._utils._rebuild_tensor_v2' in a way that a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", b"ctorch\nFloatStorage\n)R")),
            "calls 'torch.FloatStorage' in a way that a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", TEXT("text") + b")R")),
            "calls 'text' in a way that a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", tensor() + b")R")),
            (
                "calls View(storage=Storage(dtype=dtype('floa...offset=0, shape=(2, 3), strides=(3, 1)) "
                "in a way that a dictionary of tensors does not need; refused"
            ),
        ),
        (
            state(("w", tensor(hooks=b"X\1\0\0\0a"))),
            "calls 'torch._utils._rebuild_tensor_v2' in a way that a dictionary of tensors does not need; refused",
        ),
        # unknown names
        (state(("w", b"ctorch\nload\n")), "names 'torch.load', which a dictionary of tensors does not need; refused"),
        (
            state(("w", b"cconvert.nemo\nread\n")),
            "names 'convert.nemo.read', which a dictionary of tensors does not need; refused",
        ),
        (
            state(("w", b"ctorch\nQInt8Storage\n")),
            "names 'torch.QInt8Storage', which a dictionary of tensors does not need; refused",
        ),
        (state(("w", b"i" + b"os\nsystem\n")), "has the pickle instruction INST, which tensors do not need; refused"),
        (state(("w", b"\x82\x01")), "has the pickle instruction EXT1, which tensors do not need; refused"),
        (
            state(("w", b"(ccollections\nOrderedDict\no")),
            "has the pickle instruction OBJ, which tensors do not need; refused",
        ),
        (
            state(("w", b"ccollections\nOrderedDict\n)\x81")),
            "has the pickle instruction NEWOBJ, which tensors do not need; refused",
        ),
        # persistent ids
        (
            state(("w", tensor(storage=TEXT("storage") + b"Q"))),
            "has something other than a storage of numbers: 'storage'; refused",
        ),
        (
            state(("w", tensor(storage=STORAGE + b"QQ"))),
            "has something other than a storage of numbers: Storage(dtype=dtype('float32'), key='0', size=6); refused",
        ),
        (
            state(("w", tensor(storage=b"P0\n"))),
            "has the pickle instruction PERSID, which tensors do not need; refused",
        ),
        (
            state(("w", tensor(storage=b"N"))),
            "calls 'torch._utils._rebuild_tensor_v2' in a way that a dictionary of tensors does not need; refused",
        ),
        (state(("w", b"N")), "holds more than tensors, under 'w'"),
        (state(("w", b"]" + tensor() + b"a")), "holds more than tensors, under 'w'"),
        (
            state(("w", tensor(storage=STORAGE.replace(NUMBER(6), NUMBER(-6)) + b"Q"))),
            (
                "has something other than a storage of numbers: ('storage', Global(module='torch', "
                "name='FloatStorage'), '0', 'cpu', -6); refused"
            ),
        ),
        # attributes, items, contents
        (b"\x80\x02" + tensor() + b"}b.", "sets attributes of something that is not a dictionary; refused"),
        (
            b"\x80\x02" + ORDERED + b"ccollections\nOrderedDict\n}b0.",
            "sets attributes of something that is not a dictionary; refused",
        ),
        (
            b"\x80\x02ccollections\nOrderedDict\n" + TEXT("a") + TEXT("b") + b"s.",
            "sets items of something that is not a dictionary; refused",
        ),
        (state(("w", b"}")), "holds more than tensors, under 'w'"),
        (
            state(("state_dict", state(("w", tensor()))[2:-1]), ("epoch", NUMBER(3))),
            "holds more than tensors, under 'state_dict'; 'epoch'",
        ),
        (b"\x80\x02" + tensor() + b".", "holds View, not a dictionary of tensors"),
        (b"\x80\x02(" + TEXT("w") + tensor() + b"t.", "holds tuple, not a dictionary of tensors"),
        (b"\x80\x02" + ORDERED + NUMBER(3) + tensor() + b"s.", "has the key 3 in a dictionary, not a name"),
        (state(("w", tensor()), ("w", tensor())), "has the name 'w' twice in a dictionary"),
        # shapes, strides, offsets
        (
            state(("w", tensor(1))),
            "has a tensor of shape (2, 3), strides (3, 1) and offset 1 that exceeds its storage of 6 elements",
        ),
        (
            state(("w", tensor(0, (3, 3), (3, 1)))),
            "has a tensor of shape (3, 3), strides (3, 1) and offset 0 that exceeds its storage of 6 elements",
        ),
        (
            state(("w", tensor(0, (2, 3), (4, 1)))),
            "has a tensor of shape (2, 3), strides (4, 1) and offset 0 that exceeds its storage of 6 elements",
        ),
        (
            state(("w", tensor(0, (7,), (1,)))),
            "has a tensor of shape (7,), strides (1,) and offset 0 that exceeds its storage of 6 elements",
        ),
        (
            state(("w", tensor(0, (1 << 30, 1 << 30), (0, 0)))),
            (
                "has a tensor of shape (1073741824, 1073741824), strides (0, 0) and offset 0 that "
                "exceeds its storage of 6 elements"
            ),
        ),
        (
            state(("w", tensor(0, (1 << 60,), (1 << 60,)))),
            (
                "has a tensor of shape (1152921504606846976,), strides (1152921504606846976,) and offset "
                "0 that exceeds its storage of 6 elements"
            ),
        ),
        (
            state(("w", tensor(0, (7,), (0,)))),
            "has a tensor of shape (7,), strides (0,) and offset 0 that exceeds its storage of 6 elements",
        ),
        (state(("w", tensor(5, (2, 3), (-3, -1)))), "has a tensor of offset 5, shape (2, 3), strides (-3, -1)"),
        (state(("w", tensor(-1, (1,), (1,)))), "has a tensor of offset -1, shape (1,), strides (1,)"),
        (state(("w", tensor(0, (2, 3), (1,)))), "has a tensor of shape (2, 3) and strides (1,)"),
        (
            state(("w", tensor(0, (1,) * 9, (1,) * 9))),
            "has a tensor of shape (1, 1, 1, 1, 1, 1, ...) and strides (1, 1, 1, 1, 1, 1, ...)",
        ),
        (
            state(("w", tensor(shape=(), strides=()).replace(b"(t(t", b"(\x88t(\x88t"))),
            "has a tensor of offset 0, shape (True,), strides (True,)",
        ),
        # damage
        (b"", "has a damaged description of its tensors: "),
        (b"\x80\x02", "has a damaged description of its tensors: "),
        (state(("w", tensor()))[:-9], "has a damaged description of its tensors: "),
        (b"\x80\x02h\7.", "has a damaged description of its tensors: "),
        (b"\x80\x02u.", "has a damaged description of its tensors: "),
        (b"\x80\x02t.", "has a damaged description of its tensors: "),
        (b"\x80\x02\x87.", "has a damaged description of its tensors: "),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "has a damaged description of its tensors: "),
        (b"\x80\x02))..", "has a damaged description of its tensors: "),
        (b"\xffnot a pickle", "has a damaged description of its tensors: "),
    ],
)
def test_descriptions_of_more_than_tensors(description, message):
    with pytest.raises(ConvertError) as caught:
        read(description)
    assert is_message(caught.value, message)


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
    with pytest.raises(ConvertError, match=whole("the tensor 'w' has no storage of 4503599627370496 bytes")):
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
    with pytest.raises(
        ConvertError,
        match=whole(
            "names ((((...), (...)), ((...), (...))), (((...), (...)), ((...), (...)))), which is not a name; refused"
        ),
    ) as caught:
        read(b"\x80\x04" + deep + b"h\0\x93.")
    assert len(str(caught.value)) < 300
    for module, name in ((TEXT("torch"), b")"), (b")", TEXT("FloatStorage"))):
        with pytest.raises(ConvertError, match="which is not a name; refused"):
            read(b"\x80\x04" + module + name + b"\x93.")
