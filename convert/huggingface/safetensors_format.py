"""Reads and writes the safetensors format: a JSON header, then the tensors' bytes.

The safetensors library (0.8) writes from arrays that are all in memory; here they are written one at a time, so that a
2.5 GB checkpoint is never in memory twice. Writing needs the types and the header's layout in any case. Reading adds
what the library's reader lacks: a name that is there twice is an error, and so is a file that is cut short while it is
read (the library maps the file into memory, where that ends the process).
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from convert.errors import ConvertError, short
from convert.files import FilePart
from convert.source import Tensor

MAX_HEADER_BYTES = 4 << 20  # 651 tensors take 0.1 MB; the format itself allows 100 MB, which takes seconds to parse
MAX_DIMENSIONS = 8
MAX_LENGTH = 1 << 62  # of a dimension; one of length 0 beside it would let it be any number
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


def header_bytes(file: FilePart) -> int:
    """Returns the size of a file's header as the file gives it; it may be larger than the file."""
    return int.from_bytes(file.part(0, 8).read().ljust(8, b"\0"), "little")


def read(file: FilePart) -> dict[str, Tensor]:
    """Returns the tensors of a file by name; their bytes are read when they are used.

    Raises:
      ConvertError: the file has another format, is damaged, or is cut short.
    """
    length = header_bytes(file)
    start = 8 + length
    if length < 2 or start > file.size:
        raise ConvertError("is not a safetensors file, or is cut short in its header")
    if length > MAX_HEADER_BYTES:
        raise ConvertError(f"has a safetensors header of more than {MAX_HEADER_BYTES >> 20} MB")
    try:
        header = json.loads(file.part(8, length).read().decode(), object_pairs_hook=_unique)
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
    if start + end != file.size:
        raise ConvertError(f"is {file.size} bytes long, its header says {start + end}")
    return {
        name: Tensor(shape, dtype, _loader(file, dtype, shape, start + begin, stop - begin))
        for name, (dtype, shape, begin, stop) in places.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; a key that is used twice is an error."""
    if len(values := dict(pairs)) != len(pairs):
        raise ValueError("a name is used twice")
    return values


def _place(name: str, entry: Any) -> tuple[np.dtype, tuple[int, ...], int, int]:
    """Returns type, shape, first byte and end of a tensor; bytes are counted from the end of the header."""
    match entry:
        case {"dtype": str() as kind, "shape": [*shape], "data_offsets": [int() as begin, int() as end]}:
            natural = all(type(n) is int and n >= 0 for n in (*shape, begin)) and len(shape) <= MAX_DIMENSIONS
            if (
                kind in TYPES
                and natural
                and max(shape, default=0) <= MAX_LENGTH
                and end - begin == math.prod(shape) * TYPES[kind].itemsize
            ):
                return TYPES[kind], tuple(shape), begin, end
    raise ConvertError(f"has a damaged entry for the tensor {short(name)}: {short(entry)}")


def _loader(file: FilePart, dtype: np.dtype, shape: tuple[int, ...], start: int, size: int) -> Callable[[], np.ndarray]:
    """Returns a function that reads the `size` bytes of a tensor at byte `start` of the file."""

    def load() -> np.ndarray:
        try:
            data = file.part(start, size).read()
        except OSError as error:
            raise ConvertError(f"can't be read: {error.strerror}") from None
        if len(data) != size:
            raise ConvertError("was cut short while it was read")
        return np.frombuffer(data, dtype).reshape(shape)

    return load


def write(target: IO[bytes], arrays: Iterable[tuple[str, Any]], shapes: Mapping[str, Any]) -> None:
    """Writes a file of tensors.

    Args:
      arrays: names and arrays in the order of `shapes`; one at a time is in memory.
      shapes: for each name an object with its `shape` and `dtype`.
    """
    kinds = {dtype: kind for kind, dtype in TYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, array in shapes.items():
        begin, end = end, end + math.prod(array.shape) * np.dtype(array.dtype).itemsize
        header[name] = {"dtype": kinds[np.dtype(array.dtype)], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors to 8 bytes, as the library does
    target.write(struct.pack("<Q", len(text)) + text)
    for _, array in arrays:
        target.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
