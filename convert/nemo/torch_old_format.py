"""Reads a state dict in torch.save's format from before torch 1.6, which is not a zip file.

Five pickles follow each other: a mark, the version of the format, the machine, the tensors (see torch_pickle.py), and
the keys of their storages. The storages follow in the order of the keys: their number of elements in 8 bytes, then the
elements.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np

from convert.errors import ConvertError
from convert.files import FilePart
from convert.nemo import torch_pickle
from convert.nemo.torch_pickle import MAX_DESCRIPTION_BYTES, View
from convert.source import Tensor

FORMAT_MARK, FORMAT_VERSION = 0x1950A86A20F9469CFC6C, 1001
COUNT_BYTES = 8


def read(file: FilePart) -> dict[str, Tensor]:
    """Returns the tensors of a state dict by name; their bytes are read when they are used.

    Raises:
      ConvertError: the file has another format, is damaged, or holds anything but tensors.
    """
    description = io.BytesIO(file.part(0, min(file.size, MAX_DESCRIPTION_BYTES)).read())
    if torch_pickle.run(description) != FORMAT_MARK or torch_pickle.run(description) != FORMAT_VERSION:
        raise ConvertError("is a pickle, but not a torch checkpoint; load it and torch.save it again")
    machine = torch_pickle.run(description)
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise ConvertError("is not in the byte order little; load it and torch.save it again")
    views = torch_pickle.tensors_of(torch_pickle.run(description))
    begins = _storage_begins(file, views, torch_pickle.run(description), description.tell())
    return {
        name: Tensor(view.shape, view.storage.dtype, _loader(file, begins[view.storage.key], view))
        for name, view in views.items()
    }


def _storage_begins(file: FilePart, views: Mapping[str, View], keys: object, position: int) -> dict[str, int]:
    """Returns the byte at which the elements of each storage begin, by key.

    Args:
      keys: the last pickle.
      position: the byte after it.

    Raises:
      ConvertError: the file does not hold exactly the storages of its tensors.
    """
    storages = {view.storage.key: view.storage for view in views.values()}
    if any(storages[view.storage.key] != view.storage for view in views.values()):
        raise ConvertError("has a storage of two types or sizes")
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not isinstance(keys, list) or not named or sorted(keys) != sorted(storages):
        raise ConvertError("holds other storages than those of its tensors")
    begins = {}
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(file.part(position, COUNT_BYTES).read(), "little")
        begins[key] = position + COUNT_BYTES
        position = begins[key] + storage.size * storage.dtype.itemsize
        if position > file.size:
            raise ConvertError("is cut short in its tensors")
        if count != storage.size:
            raise ConvertError(f"has a storage of {count} elements, which its description gives {storage.size}")
    if position != file.size:
        raise ConvertError(f"has {file.size - position} bytes after its tensors")
    return begins


def _loader(file: FilePart, begin: int, view: View) -> Callable[[], np.ndarray]:
    """Returns a function that reads a tensor whose storage begins at a byte of the file."""
    dtype, size = view.storage.dtype, view.storage.size * view.storage.dtype.itemsize
    offset, strides = view.offset * dtype.itemsize, tuple(stride * dtype.itemsize for stride in view.strides)

    def load() -> np.ndarray:
        data = file.part(begin, size).read()
        if len(data) != size:
            raise ConvertError("was cut short while it was read")
        return np.ndarray(view.shape, dtype, data, offset, strides)

    return load
