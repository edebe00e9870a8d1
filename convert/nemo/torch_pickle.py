"""Parses and writes the pickle in torch.save's format (data.pkl) that describes the tensors of a state dict.

A pickle is a program for a machine that can call any Python function. It is parsed as data instead of being run. Only
the instructions that a dictionary of tensors needs are interpreted, on strings, whole numbers, tuples and dictionaries.
The few functions that such a file names are recognized by name and never called. Anything else is an error.
"""

import math
import pickletools
import struct
from collections.abc import Iterable, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from convert.errors import ConvertError, listed, reason, short

MAX_DESCRIPTION_BYTES = 2 << 20  # 651 tensors take 0.1 MB
MAX_DIMENSIONS = 8

ORDERED_DICT = ("collections", "OrderedDict")
REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
STORAGES: dict[tuple[str, str], np.dtype] = {
    ("torch", f"{name}Storage"): np.dtype(dtype)  # jax runs on little-endian machines alone, as torch writes
    for name, dtype in {
        "Float": np.float32,
        "Half": np.float16,
        "BFloat16": ml_dtypes.bfloat16,
        "Double": np.float64,
        "Long": np.int64,
        "Int": np.int32,
        "Short": np.int16,
        "Char": np.int8,
        "Byte": np.uint8,
        "Bool": np.bool_,
    }.items()
}
KNOWN = {ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, *STORAGES}


class Global(NamedTuple):
    """The name of a Python object in a pickle."""

    module: str
    name: str


class Storage(NamedTuple):
    """A storage: an array of `size` elements in the zip entry "data/`key`"."""

    dtype: np.dtype
    key: str
    size: int


class View(NamedTuple):
    """A tensor: a strided view of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def parse(description: bytes) -> dict[str, View]:
    """Returns the tensors that data.pkl describes, by name.

    Raises:
      ConvertError: it is damaged, or holds anything but tensors.
    """
    return tensors_of(run(description))


MARK = object()  # on the stack: where a tuple or a list of items begins


def run(description: bytes | IO[bytes]) -> Any:
    """Returns the value of a pickle: dictionaries, tuples, lists, strings, whole numbers, None and `View`s.

    Args:
      description: the pickle, or a file that is read up to its end.

    Raises:
      ConvertError: it is damaged, or has an instruction that tensors do not need.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for instruction, argument, _ in pickletools.genops(description):
            _step(instruction.name, argument, stack, memo)
        (result,) = stack
    except ConvertError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        raise ConvertError(f"has a damaged description of its tensors: {reason(error)}") from None
    return result


def _step(instruction: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """Interprets one instruction of the pickle machine (see the standard library's pickletools)."""
    match instruction:
        case "PROTO" | "STOP" | "FRAME":
            pass
        case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
            stack.append(argument)
        case "NEWTRUE" | "NEWFALSE":
            stack.append(instruction == "NEWTRUE")
        case "NONE":
            stack.append(None)
        case "MARK":
            stack.append(MARK)
        case "EMPTY_DICT":
            stack.append({})
        case "EMPTY_LIST":
            stack.append([])
        case "APPENDS":
            items = _pop_to_mark(stack)
            _append(stack[-1], items)
        case "APPEND":
            item = stack.pop()
            _append(stack[-1], [item])
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            size = int(instruction[-1])
            stack.append(tuple(reversed([stack.pop() for _ in range(size)])))
        case "TUPLE":
            stack.append(tuple(_pop_to_mark(stack)))
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":  # protocol 4; numbers are given in order
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        case "SETITEMS":
            items = _pop_to_mark(stack)
            _set_items(stack[-1], items)
        case "GLOBAL":
            stack.append(_known(*argument.split(" ", 1)))
        case "STACK_GLOBAL":  # protocol 4
            name, module = stack.pop(), stack.pop()
            stack.append(_known(module, name))
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(_call(name, arguments))
        case "BUILD":  # attributes of an OrderedDict: versions of modules, which are not needed
            stack.pop()
            if type(stack[-1]) is not dict:
                raise ConvertError("sets attributes of something that is not a dictionary; refused")
        case _:
            raise ConvertError(f"has the pickle instruction {instruction}, which tensors do not need; refused")


def _known(module: Any, name: Any) -> Global:
    """Returns a name of a Python object if tensors need it."""
    if type(module) is not str or type(name) is not str:
        raise ConvertError(f"names {short((module, name))}, which is not a name; refused")
    if (module, name) not in KNOWN:
        raise ConvertError(f"names {short(f'{module}.{name}')}, which a dictionary of tensors does not need; refused")
    return Global(module, name)


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    """Removes the values after the last mark, and the mark; returns the values."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise ValueError("no mark")


def _append(target: Any, items: list[Any]) -> None:
    """Adds items to a list."""
    if type(target) is not list:
        raise ConvertError("adds items to something that is not a list; refused")
    target += items


def _set_items(target: Any, items: list[Any]) -> None:
    """Adds keys and values, which alternate in `items`, to a dictionary."""
    if type(target) is not dict or len(items) % 2:
        raise ConvertError("sets items of something that is not a dictionary; refused")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise ConvertError(f"has the key {short(key)} in a dictionary, not a name")
        if key in target:
            raise ConvertError(f"has the name {short(key)} twice in a dictionary")
        target[key] = value


def _storage(identity: Any) -> Storage:
    """Returns the storage that a persistent id describes: ("storage", type, key, device, number of elements).

    In the format from before torch 1.6, None follows.
    """
    match identity:
        case ("storage", Global() as kind, str() as key, str(), int() as size, *rest) if (
            kind in STORAGES and size >= 0 and rest in ([], [None])
        ):
            return Storage(STORAGES[kind], key, size)
    raise ConvertError(f"has something other than a storage of numbers: {short(identity)}; refused")


def _call(name: Any, arguments: Any) -> Any:
    """Returns the value that a known function would return for its arguments. No function is called."""
    match name, arguments:
        case Global("collections", "OrderedDict"), ():
            return {}
        case Global("torch._utils", "_rebuild_tensor_v2"), (Storage(), int(), tuple(), tuple(), bool(), dict()):
            return _view(*arguments[:4])
        case Global("torch._utils", "_rebuild_parameter"), (View() as view, bool(), dict()):
            return view
    kind = ".".join(name) if isinstance(name, Global) else name
    raise ConvertError(f"calls {short(kind)} in a way that a dictionary of tensors does not need; refused")


def _view(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    """Returns a view after checking that it lies within its storage."""
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise ConvertError(f"has a tensor of shape {short(shape)} and strides {short(strides)}")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise ConvertError(f"has a tensor of offset {short(offset)}, shape {short(shape)}, strides {short(strides)}")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # stride 0 could repeat one element without limit, so a view may not have more elements than its storage
    if count and (last >= storage.size or count > storage.size):
        raise ConvertError(
            f"has a tensor of shape {short(shape)}, strides {short(strides)} and offset {short(offset)} "
            f"that exceeds its storage of {storage.size} elements"
        )
    return View(storage, offset, shape, strides)


def tensors_of(description: Any) -> dict[str, View]:
    """Returns the value of a pickle if it is a dictionary of tensors and nothing else, also one under "state_dict"."""
    if type(description) is dict and description.keys() == {"state_dict"}:
        description = description["state_dict"]
    if type(description) is not dict:
        raise ConvertError(f"holds {type(description).__name__}, not a dictionary of tensors")
    if others := [key for key, value in description.items() if not isinstance(value, View)]:
        raise ConvertError(f"holds more than tensors, under {listed([short(key) for key in others])}")
    return description


def describe(shapes: Mapping[str, Any]) -> bytes:
    """Returns data.pkl: a pickle of protocol 2 that builds an OrderedDict of tensors."""
    storages = {dtype: name for (_, name), dtype in STORAGES.items()}
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", ordered_dict, b"("]
    for key, (name, array) in enumerate(shapes.items()):
        strides = [math.prod(array.shape[i + 1 :]) for i in range(len(array.shape))]
        kind = f"ctorch\n{storages[np.dtype(array.dtype)]}\n".encode()
        identity = [_text("storage"), kind, _text(str(key)), _text("cpu"), _number(math.prod(array.shape))]
        rebuild = [_tuple(identity), b"Q", _number(0), _tuple(map(_number, array.shape)), _tuple(map(_number, strides))]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", _tuple([*rebuild, b"\x89", ordered_dict]), b"R"]
    return b"".join([*parts, b"u."])


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _number(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _tuple(items: Iterable[bytes]) -> bytes:
    return b"".join([b"(", *items, b"t"])
