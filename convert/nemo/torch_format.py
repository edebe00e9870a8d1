"""Reads and writes torch.save's format for a state dict, without torch.

The file is a zip: `data.pkl` describes the tensors; `data/0`, `data/1`, ... are their storages. `data.pkl` is a pickle:
a program for a machine that can call any Python function. It is parsed as data instead of being run. Only the
instructions that a dictionary of tensors needs are interpreted, on strings, whole numbers, tuples and dictionaries.
The few functions that such a file names are recognized by name and never called. Anything else is an error.
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from convert.errors import ConvertError, listed, reason, short
from convert.files import LimitedWindow, Window
from convert.source import Tensor

MAX_DESCRIPTION_BYTES = 2 << 20  # of data.pkl; 651 tensors take 0.1 MB
MAX_DIRECTORY_BYTES = 8 << 20  # of the zip file's list of entries; 651 take 0.1 MB
MAX_ENTRIES = 100_000
MAX_DIMENSIONS = 8
ALIGNMENT = 64  # bytes, of storages in the file, as torch writes them

ORDERED_DICT = ("collections", "OrderedDict")
REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
STORAGES: dict[tuple[str, str], np.dtype] = {
    ("torch", f"{name}Storage"): np.dtype(dtype).newbyteorder("<") if name != "BFloat16" else np.dtype(dtype)
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
# zip entries other than data.pkl and the storages
BOOKKEEPING = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}


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


def read(window: Window) -> dict[str, Tensor]:
    """Returns the tensors of a state dict by name; their bytes are read and checked when they are used.

    Raises:
      ConvertError: the file has another format, is damaged, or holds anything but tensors.
    """
    archive = _open_zip(window)
    entries = _entries(archive)
    views = _state_dict(_run(_read_entry(archive, entries["data.pkl"])))
    sizes = {name: info.file_size for name, info in entries.items()}
    for name, view in views.items():
        expected = view.storage.size * view.storage.dtype.itemsize
        if sizes.get(f"data/{view.storage.key}") != expected:
            raise ConvertError(f"the tensor {short(name)} has no storage of {expected} bytes")
    return {
        name: Tensor(view.shape, view.storage.dtype, _loader(archive, entries[f"data/{view.storage.key}"], view))
        for name, view in views.items()
    }


def _open_zip(window: Window) -> zipfile.ZipFile:
    """Opens the zip file. Raises ConvertError if it is another format or damaged."""
    start = window.read(2)
    if start == b"\x80\x02":
        raise ConvertError("has torch's format from before 1.6; load it and torch.save it again")
    if start != b"PK":
        raise ConvertError("is not a torch checkpoint (a zip file)")
    limited = LimitedWindow(window, MAX_DIRECTORY_BYTES)
    try:
        archive = zipfile.ZipFile(limited)
        limited.release()
        return archive
    except ConvertError:
        raise
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OverflowError, EOFError) as error:
        raise ConvertError(f"is not a complete zip file: {reason(error)}") from None


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries by name, without the directory in which torch puts all of them."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise ConvertError(f"has more than {MAX_ENTRIES} entries")
    prefixes = [info.filename.removesuffix("data.pkl") for info in infos if info.filename.endswith("/data.pkl")]
    if len(prefixes) != 1 or prefixes[0].count("/") != 1:
        raise ConvertError("has no data.pkl, or several; not a torch checkpoint")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix(prefixes[0])
        if name == info.filename or not (name in BOOKKEEPING or name == "data.pkl" or name.startswith("data/")):
            raise ConvertError(f"has the entry {short(info.filename)}, which has no place in a state dict")
        if name in entries:
            raise ConvertError(f"has the entry {short(info.filename)} twice")
        if info.flag_bits & 0x1:
            raise ConvertError(f"has the encrypted entry {short(info.filename)}")
        # torch compresses nothing; without compression no entry can be larger than the file
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ConvertError(f"has the compressed entry {short(info.filename)}; torch.save it again")
        entries[name] = info
    if entries["data.pkl"].file_size > MAX_DESCRIPTION_BYTES:
        raise ConvertError(f"has a data.pkl of more than {MAX_DESCRIPTION_BYTES >> 20} MB")
    if "byteorder" in entries and (order := _read_entry(archive, entries["byteorder"])) != b"little":
        raise ConvertError(f"is in the byte order {short(order)}, not little")
    return entries


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Returns the bytes of an entry after checking their size and CRC-32."""
    if info.file_size > archive.fp.size:  # type: ignore[union-attr]
        raise ConvertError(f"is cut short in its entry {short(info.filename)}")
    try:
        data = archive.read(info)
    except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError, EOFError, OSError) as error:
        raise ConvertError(f"is damaged in its entry {short(info.filename)}: {reason(error)}") from None
    if len(data) != info.file_size:
        raise ConvertError(f"is cut short in its entry {short(info.filename)}")
    return data


def _loader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, view: View) -> Callable[[], np.ndarray]:
    """Returns a function that reads a tensor."""
    dtype = view.storage.dtype
    offset, strides = view.offset * dtype.itemsize, tuple(stride * dtype.itemsize for stride in view.strides)
    return lambda: np.ndarray(view.shape, dtype, _read_entry(archive, info), offset, strides)


MARK = object()  # on the stack: where a tuple or a list of items begins


def _run(description: bytes) -> Any:
    """Returns the value that data.pkl describes: dictionaries, tuples, strings, whole numbers and `View`s."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for instruction, argument, _ in pickletools.genops(description):
            _step(instruction.name, argument, stack, memo)
        (result,) = stack
    except ConvertError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, struct.error, OverflowError) as error:
        raise ConvertError(f"has a damaged description of its tensors (data.pkl): {reason(error)}") from None
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
        case "MARK":
            stack.append(MARK)
        case "EMPTY_DICT":
            stack.append({})
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
    """Returns the storage that a persistent id describes: ("storage", type, key, device, number of elements)."""
    match identity:
        case ("storage", Global() as kind, str() as key, str(), int() as size) if kind in STORAGES and size >= 0:
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


def _state_dict(description: Any) -> dict[str, View]:
    """Returns the description if it is a dictionary of tensors and nothing else, also one under "state_dict"."""
    if type(description) is dict and description.keys() == {"state_dict"}:
        description = description["state_dict"]
    if type(description) is not dict:
        raise ConvertError(f"holds {type(description).__name__}, not a dictionary of tensors")
    if others := [key for key, value in description.items() if not isinstance(value, View)]:
        raise ConvertError(f"holds more than tensors, under {listed([short(key) for key in others])}")
    return description


def write(target: IO[bytes], arrays: Iterable[tuple[str, Any]], shapes: Mapping[str, Any]) -> None:
    """Writes a state dict as torch.save does, so that torch.load reads it with `weights_only=True`.

    Args:
      target: an empty seekable file.
      arrays: names and arrays in the order of `shapes`; one at a time is in memory.
      shapes: for each name an object with its `shape` and `dtype`.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", _describe(shapes))
        _write_entry(archive, "byteorder", b"little")
        for key, (_, array) in enumerate(arrays):
            _write_entry(archive, f"data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        _write_entry(archive, "version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Writes a zip entry whose data is aligned."""
    info = zipfile.ZipInfo(f"archive/{name}")
    # the data follows the header, which is padded with torch's extra field "FB"
    header = archive.start_dir + 30 + len(info.filename) + 4
    padding = -header % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


def _describe(shapes: Mapping[str, Any]) -> bytes:
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
