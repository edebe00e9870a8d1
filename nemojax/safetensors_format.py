"""The safetensors format: the size of a header in 8 bytes, the header in JSON, then the tensors' bytes.

The safetensors library (0.8) writes from arrays that are all in memory; here they are written one at a time, so that a
2.5 GB checkpoint is never in memory twice. Reading adds what the library's reader lacks: a name that is there twice is
an error, and so is a file that is cut short while it is read (the library maps the file into memory, where that ends
the process).
"""

import json
import math
import reprlib
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from nemojax.errors import CheckpointError, shown

LENGTH_BYTES = 8  # of the header's size
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
Part = Callable[[int, int], bytes]  # (first byte, count) to the bytes; fewer where the file ends

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 80, 80, 40


class Place(NamedTuple):
    """Where a tensor is in its file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int  # byte of the file
    size: int  # bytes


def header_bytes(part: Part) -> int:
    """Returns the size of a file's header as the file gives it; it may be larger than the file."""
    return int.from_bytes(part(0, LENGTH_BYTES).ljust(LENGTH_BYTES, b"\0"), "little")


def places(part: Part, size: int) -> dict[str, Place]:
    """Returns where the tensors of a file of `size` bytes are, by name.

    Raises:
      CheckpointError: the file has another format, is damaged, or is cut short; the message follows its name.
    """
    length = header_bytes(part)
    start = LENGTH_BYTES + length
    if length < 2 or start > size:
        raise CheckpointError("is not a safetensors file, or is cut short in its header")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"has a safetensors header of more than {MAX_HEADER_BYTES >> 20} MB")
    try:
        header = json.loads(part(LENGTH_BYTES, length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise CheckpointError("has a damaged safetensors header") from None
    if not isinstance(header, dict):
        raise CheckpointError("has a damaged safetensors header")
    header.pop("__metadata__", None)
    found = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for name, place in sorted(found.items(), key=lambda item: item[1][2:]):
        if place.begin != end:
            raise CheckpointError(f"has a tensor that overlaps another or leaves a gap: {_quoted(name)}")
        end += place.size
    if start + end != size:
        raise CheckpointError(f"is {size} bytes long, its header says {start + end}")
    return {name: place._replace(begin=start + place.begin) for name, place in found.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; a key that is used twice is an error."""
    if len(values := dict(pairs)) != len(pairs):
        raise ValueError("a name is used twice")
    return values


def _place(name: str, entry: Any) -> Place:
    """Returns the place of a tensor; `begin` is counted from the end of the header."""
    match entry:
        case {"dtype": str() as kind, "shape": [*shape], "data_offsets": [int() as begin, int() as end]}:
            natural = all(type(n) is int and n >= 0 for n in (*shape, begin)) and len(shape) <= MAX_DIMENSIONS
            if (
                kind in TYPES
                and natural
                and max(shape, default=0) <= MAX_LENGTH
                and end - begin == math.prod(shape) * TYPES[kind].itemsize
            ):
                return Place(TYPES[kind], tuple(shape), begin, end - begin)
    raise CheckpointError(f"has a damaged entry for the tensor {_quoted(name)}: {_quoted(entry)}")


def _quoted(value: object) -> str:
    return shown(_short.repr(value))


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
