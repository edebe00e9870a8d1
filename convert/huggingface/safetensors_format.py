"""The safetensors format, read and written: a JSON header, then the tensors' bytes.

Own code because a 2.5 GB checkpoint must not be in memory twice: tensors are read, and written, one at a
time, bfloat16 among them.
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from convert.errors import ConvertError, short
from convert.files import Window
from convert.source import Tensor

HEADER_BYTES = 100_000_000  # the format's own limit
TYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read(window: Window) -> dict[str, Tensor]:
    """The tensors of a file by name; their bytes are read when asked for.

    Raises:
      ConvertError: not this format, damaged, or cut short.
    """
    length = int.from_bytes(window.read(8).ljust(8, b"\0"), "little")
    start = 8 + length
    if not 2 <= length <= HEADER_BYTES or start > window.size:
        raise ConvertError("is not a safetensors file, or is cut short in its header")
    try:
        header = json.loads(window.read(length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise ConvertError("has a damaged safetensors header") from None
    if not isinstance(header, dict):
        raise ConvertError("has a damaged safetensors header")
    header.pop("__metadata__", None)
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, (_, _, begin, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise ConvertError(f"has a tensor that overlaps another or leaves a gap: {short(name)}")
        end = stop
    if start + end != window.size:
        raise ConvertError(f"is {window.size} bytes long, its header says {start + end}")
    return {
        name: Tensor(shape, dtype, _loader(window, dtype, shape, start + begin, stop - begin))
        for name, (dtype, shape, begin, stop) in places.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(values := dict(pairs)) != len(pairs):
        raise ValueError("a name is there twice")
    return values


def _place(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Type, shape, and first and last byte of a tensor after the header."""
    match entry:
        case {"dtype": str() as kind, "shape": [*shape], "data_offsets": [int() as begin, int() as end]}:
            whole = all(type(n) is int and n >= 0 for n in (*shape, begin))
            if kind in TYPES and whole and end - begin == math.prod(shape) * TYPES[kind].itemsize:
                return TYPES[kind], tuple(shape), begin, end
    raise ConvertError(f"has a damaged entry for the tensor {short(name)}: {short(entry)}")


def _loader(window: Window, dtype: np.dtype, shape: tuple[int, ...], start: int, size: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        try:
            data = window.part(start, size).read()
        except OSError as error:
            raise ConvertError(f"can't be read: {error.strerror}") from None
        if len(data) != size:
            raise ConvertError("was cut short while it was read")
        return np.frombuffer(data, dtype).reshape(shape)

    return load


def write(target: IO[bytes], arrays: Iterable[tuple[str, Any]], shapes: Mapping[str, Any]) -> None:
    """Writes tensors.

    Args:
      arrays: names and arrays, asked for one at a time, in the order of `shapes`.
      shapes: for each name something with its `shape` and `dtype`.
    """
    kinds = {dtype: kind for kind, dtype in TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in shapes.items():
        begin, end = end, end + math.prod(array.shape) * np.dtype(array.dtype).itemsize
        header[name] = {"dtype": kinds[np.dtype(array.dtype)], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    target.write(struct.pack("<Q", len(text)) + text)
    for _, array in arrays:
        target.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
