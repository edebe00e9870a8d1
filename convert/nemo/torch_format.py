"""Reads and writes torch.save's format for a state dict, without torch.

The file is a zip: `data.pkl` describes the tensors (see torch_pickle.py); `data/0`, `data/1`, ... are their storages.
Before torch 1.6 it was another one, which is only read (see torch_old_format.py).
"""

import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import numpy as np

from convert.errors import ConvertError, reason, short
from convert.files import FilePart, LimitedPart
from convert.nemo import torch_old_format, torch_pickle
from convert.nemo.torch_pickle import MAX_DESCRIPTION_BYTES, View
from convert.source import Tensor

MAX_DIRECTORY_BYTES = 8 << 20  # of the zip file's list of entries; 651 take 0.1 MB
MAX_ENTRIES = 100_000
PICKLE = b"\x80"  # the first byte of torch's format from before 1.6
ALIGNMENT = 64  # bytes, of storages in the file, as torch writes them

# zip entries other than data.pkl and the storages
BOOKKEEPING = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}


def read(file: FilePart) -> dict[str, Tensor]:
    """Returns the tensors of a state dict by name; their bytes are read and checked when they are used.

    Raises:
      ConvertError: the file has another format, is damaged, or holds anything but tensors.
    """
    if file.part(0, 1).read() == PICKLE:
        return torch_old_format.read(file)
    archive = _open_zip(file)
    entries = _entries(archive)
    views = torch_pickle.parse(_read_entry(archive, entries["data.pkl"]))
    sizes = {name: info.file_size for name, info in entries.items()}
    for name, view in views.items():
        expected = view.storage.size * view.storage.dtype.itemsize
        if sizes.get(f"data/{view.storage.key}") != expected:
            raise ConvertError(f"the tensor {short(name)} has no storage of {expected} bytes")
    return {
        name: Tensor(view.shape, view.storage.dtype, _loader(archive, entries[f"data/{view.storage.key}"], view))
        for name, view in views.items()
    }


def _open_zip(file: FilePart) -> zipfile.ZipFile:
    """Opens the zip file. Raises ConvertError if it is another format or damaged."""
    if file.part(0, 2).read() != b"PK":
        raise ConvertError("is not a torch checkpoint (a zip file)")
    limited = LimitedPart(file, MAX_DIRECTORY_BYTES)
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


def write(target: IO[bytes], arrays: Iterable[tuple[str, Any]], shapes: Mapping[str, Any]) -> None:
    """Writes a state dict as torch.save does, so that torch.load reads it with `weights_only=True`.

    Args:
      target: an empty seekable file.
      arrays: names and arrays in the order of `shapes`; one at a time is in memory.
      shapes: for each name an object with its `shape` and `dtype`.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        _write_entry(archive, "data.pkl", torch_pickle.describe(shapes))
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
