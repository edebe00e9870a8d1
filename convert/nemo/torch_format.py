"""torch.save's format for a state dict, without torch: read as data, and written.

The file is a zip: `data.pkl` describes the tensors, `data/0`, `data/1`, ... are their storages. `data.pkl` is
a pickle, a program for a machine that can call any Python function. It is not run: of the pickle machine's
instructions only those that a dictionary of tensors is made of are carried out, on strings, whole numbers,
tuples and dictionaries; the few names that may be "called" are only compared. All else is an error that
says what was found.
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
from convert.files import Window
from convert.source import Tensor

DESCRIPTION_BYTES = 8 << 20  # of data.pkl at most; 651 tensors take 0.1 MB
ENTRIES = 100_000
DIMENSIONS = 8
ALIGNMENT = 64  # of storages in the file, as torch writes them

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
# entries beside data.pkl and the storages
BOOKKEEPING = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}


class Global(NamedTuple):
    module: str
    name: str


class Storage(NamedTuple):
    dtype: np.dtype
    key: str
    size: int  # elements


class View(NamedTuple):
    """A tensor: elements of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(window: Window) -> dict[str, Tensor]:
    """The tensors of a state dict by name; their bytes are read, and checked, when asked for.

    Raises:
      ConvertError: not this format, damaged, or with anything in it but tensors.
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
    start = window.read(2)
    if start == b"\x80\x02":
        raise ConvertError("is in torch's old format, from before 1.6; load it and torch.save it again")
    if start != b"PK":
        raise ConvertError("is not a torch checkpoint (a zip file)")
    try:
        return zipfile.ZipFile(window)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, OverflowError, EOFError) as error:
        raise ConvertError(f"is not a whole zip file: {reason(error)}") from None


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Entries by name without the directory that torch puts them all in."""
    infos = archive.infolist()
    if len(infos) > ENTRIES:
        raise ConvertError(f"has more than {ENTRIES} entries")
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
        # torch compresses nothing; so nothing can inflate
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ConvertError(f"has the compressed entry {short(info.filename)}; torch.save it again")
        entries[name] = info
    if entries["data.pkl"].file_size > DESCRIPTION_BYTES:
        raise ConvertError(f"has a data.pkl of more than {DESCRIPTION_BYTES >> 20} MB")
    if "byteorder" in entries and (order := _read_entry(archive, entries["byteorder"])) != b"little":
        raise ConvertError(f"is in the byte order {short(order)}, not little")
    return entries


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of an entry, checked against their size and CRC-32."""
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
    dtype = view.storage.dtype
    offset, strides = view.offset * dtype.itemsize, tuple(stride * dtype.itemsize for stride in view.strides)
    return lambda: np.ndarray(view.shape, dtype, _read_entry(archive, info), offset, strides)


MARK = object()


def _run(description: bytes) -> Any:
    """What data.pkl describes: dictionaries, tuples, strings, whole numbers and `View`s."""
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
    """One instruction of the pickle machine (see the standard library's pickletools)."""
    match instruction:
        case "PROTO" | "STOP":
            pass
        case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
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
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set_items(stack[-1], [key, value])
        case "SETITEMS":
            items = _pop_to_mark(stack)
            _set_items(stack[-1], items)
        case "GLOBAL":
            name = Global(*argument.split(" ", 1))
            if name not in KNOWN:
                raise ConvertError(
                    f"names {short('.'.join(name))}, which a dictionary of tensors has no need of; refused"
                )
            stack.append(name)
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(_call(name, arguments))
        case "BUILD":  # attributes of an OrderedDict: versions of modules, of no use here
            stack.pop()
            if type(stack[-1]) is not dict:
                raise ConvertError("sets attributes of something that is not a dictionary; refused")
        case _:
            raise ConvertError(f"has the pickle instruction {instruction}, which tensors have no need of; refused")


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise ValueError("no mark")


def _set_items(target: Any, items: list[Any]) -> None:
    if type(target) is not dict or len(items) % 2:
        raise ConvertError("sets items of something that is not a dictionary; refused")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) is not str:
            raise ConvertError(f"has the key {short(key)} in a dictionary, not a name")
        if key in target:
            raise ConvertError(f"has the name {short(key)} twice in a dictionary")
        target[key] = value


def _storage(identity: Any) -> Storage:
    """What a persistent id names: ("storage", type, key, device, elements)."""
    match identity:
        case ("storage", Global() as kind, str() as key, str(), int() as size) if kind in STORAGES and size >= 0:
            return Storage(STORAGES[kind], key, size)
    raise ConvertError(f"has something other than a storage of numbers: {short(identity)}; refused")


def _call(name: Any, arguments: Any) -> Any:
    """What one of the known names makes of its arguments. Nothing is called."""
    match name, arguments:
        case Global("collections", "OrderedDict"), ():
            return {}
        case Global("torch._utils", "_rebuild_tensor_v2"), (Storage(), int(), tuple(), tuple(), bool(), dict()):
            return _view(*arguments[:4])
        case Global("torch._utils", "_rebuild_parameter"), (View() as view, bool(), dict()):
            return view
    kind = ".".join(name) if isinstance(name, Global) else name
    raise ConvertError(f"calls {short(kind)} in a way that a dictionary of tensors has no need of; refused")


def _view(storage: Storage, offset: int, shape: tuple, strides: tuple) -> View:
    if len(shape) != len(strides) or len(shape) > DIMENSIONS:
        raise ConvertError(f"has a tensor of shape {short(shape)} and strides {short(strides)}")
    if any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
        raise ConvertError(f"has a tensor of offset {short(offset)}, shape {short(shape)}, strides {short(strides)}")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # more elements than its storage: a repeated row, however large it claims to be
    if count and (last >= storage.size or count > storage.size):
        raise ConvertError(
            f"has a tensor of shape {short(shape)}, strides {short(strides)} and offset {short(offset)} "
            f"that runs out of its storage of {storage.size} elements"
        )
    return View(storage, offset, shape, strides)


def _state_dict(description: Any) -> dict[str, View]:
    if type(description) is not dict:
        raise ConvertError(f"holds {type(description).__name__}, not a dictionary of tensors")
    if strange := [key for key, value in description.items() if not isinstance(value, View)]:
        raise ConvertError(f"holds more than tensors, under {listed([short(key) for key in strange])}")
    return description


def write(target: IO[bytes], arrays: Iterable[tuple[str, Any]], shapes: Mapping[str, Any]) -> None:
    """Writes a state dict as torch.save does, so that torch.load reads it with `weights_only=True`.

    Args:
      target: an empty seekable file.
      arrays: names and arrays, asked for one at a time, in the order of `shapes`.
      shapes: for each name something with its `shape` and `dtype`.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", _describe(shapes))
        _write_entry(archive, "byteorder", b"little")
        for key, (_, array) in enumerate(arrays):
            _write_entry(archive, f"data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        _write_entry(archive, "version", b"3\n")


def _write_entry(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(f"archive/{name}")
    # an extra field, as torch's "FB", fills up to the alignment of the data that follows the header
    header = archive.start_dir + 30 + len(info.filename) + 4
    padding = -header % ALIGNMENT
    info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    archive.writestr(info, data)


def _describe(shapes: Mapping[str, Any]) -> bytes:
    """data.pkl: a pickle of protocol 2 that makes an OrderedDict of tensors."""
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
