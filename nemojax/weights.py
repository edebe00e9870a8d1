"""Reads the weights of a checkpoint: arrays that orbax wrote, or one file in the safetensors format.

Orbax writes with tensorstore. Reading with tensorstore alone takes a fraction of the time, for the released model has
hundreds of arrays, and orbax spends more on each than its bytes take. A file takes less again: its bytes go straight to
where the arrays stay, or through a few megabytes that stay in the processor's cache to their place in tiles.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import jax
import ml_dtypes  # noqa: F401  # gives numpy, and so tensorstore, the type bfloat16
import numpy as np

from nemojax import safetensors_format
from nemojax.arena import Arena, aligned
from nemojax.errors import CheckpointError
from nemojax.kernels import panels
from nemojax.safetensors_format import Place

CONCURRENT_BYTES = 1 << 26  # of arrays that are read at once; more is hardly faster
MAX_ARRAYS = 10_000  # the largest model that the settings allow has fewer
READERS = 2  # threads that read one file; more are hardly faster
AHEAD_BYTES = 1 << 30  # of arrays are read before their shapes are known to fit


class Weights(Protocol):
    """The arrays of a checkpoint, which are used once their shapes are known to fit.

    Attributes:
      shapes, types: of each array, by its name.
    """

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, np.dtype]

    def close(self) -> None:
        """Ends what reads ahead."""

    def read(self, types: Mapping[str, Any], device: Any) -> dict[str, jax.Array]:
        """Reads the arrays that `types` names, each in its type, onto a device.

        They are converted as they are read.
        """


class OrbaxWeights:
    """All arrays that orbax wrote into a directory. Errors are those of tensorstore, of several types.

    Raises:
      ValueError: there are more than a model has, or tensorstore can't open one; it raises other types, too.
    """

    def __init__(self, directory: Path):
        import tensorstore as ts  # here, for a file needs none

        database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{directory}/"}}
        context = ts.Context()
        keys = ts.KvStore.open(database, context=context).result().list().result()
        suffix = b"/.zarray"
        names = [key.removesuffix(suffix).decode() for key in keys if key.endswith(suffix)]
        if len(names) > MAX_ARRAYS:
            raise ValueError(f"it holds {len(names):,} arrays; a model has at most {MAX_ARRAYS:,}")
        opened = {
            # what is missing is an error, and not zero
            name: ts.open(
                {"driver": "zarr", "kvstore": {**database, "path": f"{name}/"}, "fill_missing_data_reads": False},
                open=True,
                read=True,
                context=context,
            )
            for name in names
        }
        self._stored = {name: array.result() for name, array in opened.items()}
        self.shapes = {name: tuple(array.shape) for name, array in self._stored.items()}
        self.types = {name: array.dtype.numpy_dtype for name, array in self._stored.items()}

    def close(self) -> None:
        """Does nothing: nothing is read ahead."""

    def read(self, types: Mapping[str, Any], device: Any) -> dict[str, jax.Array]:
        """Reads arrays; see `Weights`."""
        import tensorstore as ts

        reading: deque[tuple[str, np.ndarray, ts.WriteFutures]] = deque()
        arrays, waiting_bytes = {}, 0

        def finish_first() -> int:
            name, array, done = reading.popleft()
            done.result()
            arrays[name] = jax.device_put(array, device)
            return array.nbytes

        for name, dtype in types.items():
            source = self._stored[name]
            array = aligned(tuple(source.shape), np.dtype(dtype))
            target = ts.array(array, copy=False, write=True)
            reading.append((name, array, target.write(ts.cast(source, target.dtype))))
            waiting_bytes += array.nbytes
            while waiting_bytes > CONCURRENT_BYTES:
                waiting_bytes -= finish_first()
        while reading:
            finish_first()
        return arrays


class FileWeights:
    """All arrays of a file in the safetensors format. They are read from now on, while the caller checks their shapes.

    It has to be closed.

    Args:
      in_tiles: gives kernels in int8, whose layout is panels, in tiles (`kernels.panels`). `shapes` are the file's.

    Raises:
      CheckpointError: the file has another format, is damaged, or is cut short.
      OSError: it can't be read.
    """

    def __init__(self, path: Path, in_tiles: bool = False):
        self._in_tiles, self._buffers = in_tiles, threading.local()
        self._path, self._file = path, os.open(path, os.O_RDONLY)
        self._arena, self._readers = Arena(), ThreadPoolExecutor(READERS)
        self._reading: dict[str, Future[np.ndarray]] = {}
        try:
            self._places = self._find_places()
            totals = accumulate(map(self._bytes, self._places.values()))
            self._begin([name for name, total in zip(self._places, totals, strict=True) if total <= AHEAD_BYTES])
        except BaseException:
            self.close()
            raise
        self.shapes = {name: place.shape for name, place in self._places.items()}
        self.types = {name: place.dtype for name, place in self._places.items()}

    def _begin(self, names: Iterable[str]) -> None:
        """Begins to read arrays."""
        self._reading |= {name: self._readers.submit(self._read, self._places[name]) for name in names}

    def _find_places(self) -> dict[str, Place]:
        part = lambda begin, count: os.pread(self._file, count, begin)
        try:
            return safetensors_format.places(part, os.fstat(self._file).st_size)
        except CheckpointError as error:
            raise CheckpointError(f"{self._path.name} {error}") from None

    def close(self) -> None:
        """Ends what reads ahead, and closes the file."""
        self._readers.shutdown(cancel_futures=True)
        os.close(self._file)

    def read(self, types: Mapping[str, Any], device: Any) -> dict[str, jax.Array]:
        """Reads arrays; see `Weights`."""
        self._begin(name for name in types if name not in self._reading)
        arrays = [self._reading.pop(name).result().astype(dtype, copy=False) for name, dtype in types.items()]
        return dict(zip(types, jax.device_put(arrays, device), strict=True))  # one call: each takes 0.5 ms

    def _read(self, place: Place) -> np.ndarray:
        if self._is_tiled(place):
            return panels.tiles_in(self._arena, self._fill(self._buffer(place.size), place))
        # kernels in int8 mostly stay as they are; others may get another layout, and their memory is free then
        make = self._arena.empty if place.dtype == np.int8 else aligned
        return self._fill(make(place.shape, place.dtype), place)

    def _is_tiled(self, place: Place) -> bool:
        return self._in_tiles and place.dtype == np.int8 and panels.are_int8(place.shape)

    def _bytes(self, place: Place) -> int:
        """Returns the size of an array in memory: tiles are filled up, and can be many times as large as panels."""
        return math.prod(panels.tiles_shape(place.shape, place.dtype)) if self._is_tiled(place) else place.size

    def _buffer(self, size: int) -> np.ndarray:
        """Returns memory of this thread, which its next kernel uses again."""
        memory: np.ndarray | None = getattr(self._buffers, "memory", None)
        if memory is None or len(memory) < size:
            memory = self._buffers.memory = aligned((size,), np.dtype(np.uint8))
        return memory[:size]

    def _fill(self, memory: np.ndarray, place: Place) -> np.ndarray:
        """Reads an array into memory of its size."""
        data, done = memory.reshape(-1).view(np.uint8).data, 0
        while done < place.size:  # one call gives at most 2 GB
            count = os.preadv(self._file, [data[done:]], place.begin + done)
            if count == 0:
                raise CheckpointError(f"{self._path.name} was cut short while it was read")
            done += count
        return memory.view(place.dtype).reshape(place.shape)
