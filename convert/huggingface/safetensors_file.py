"""The weights of a Hugging Face directory: files in the safetensors format, as tensors to convert."""

from collections.abc import Callable

import numpy as np

from convert.errors import ConvertError
from convert.files import FilePart
from convert.source import Tensor
from nemojax import safetensors_format
from nemojax.errors import CheckpointError
from nemojax.safetensors_format import Place


def header_bytes(file: FilePart) -> int:
    """Returns the size of a file's header as the file gives it; it may be larger than the file."""
    return safetensors_format.header_bytes(lambda begin, count: file.part(begin, count).read())


def read(file: FilePart) -> dict[str, Tensor]:
    """Returns the tensors of a file by name; their bytes are read when they are used.

    Raises:
      ConvertError: the file has another format, is damaged, or is cut short.
    """
    try:
        places = safetensors_format.places(lambda begin, count: file.part(begin, count).read(), file.size)
    except CheckpointError as error:
        raise ConvertError(str(error)) from None
    return {name: Tensor(place.shape, place.dtype, _loader(file, place)) for name, place in places.items()}


def _loader(file: FilePart, place: Place) -> Callable[[], np.ndarray]:
    """Returns a function that reads a tensor."""

    def load() -> np.ndarray:
        try:
            data = file.part(place.begin, place.size).read()
        except OSError as error:
            raise ConvertError(f"can't be read: {error.strerror}") from None
        if len(data) != place.size:
            raise ConvertError("was cut short while it was read")
        return np.frombuffer(data, place.dtype).reshape(place.shape)

    return load
