"""Reads the arrays of a checkpoint.

Orbax writes them, with tensorstore. Reading them with tensorstore alone takes a fraction of the time, for the released
model has hundreds of arrays, and orbax spends more on each than its bytes take.
"""

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes  # noqa: F401  # gives numpy, and so tensorstore, the type bfloat16
import numpy as np
import tensorstore as ts

ALIGNMENT = 64  # bytes; jax on a CPU takes an array so aligned as it is, without a copy
CONCURRENT_BYTES = 1 << 26  # of arrays that are read at once; more is hardly faster
MAX_ARRAYS = 10_000  # the largest model that the settings allow has fewer


def open_arrays(directory: Path) -> dict[str, ts.TensorStore]:
    """Opens all arrays that orbax wrote into a directory, by name.

    Raises:
      ValueError: there are more than a model has, or tensorstore can't open one; it raises other types, too.
    """
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
    return {name: array.result() for name, array in opened.items()}


def read_arrays(stored: Mapping[str, ts.TensorStore], types: Mapping[str, Any], device: Any) -> dict[str, jax.Array]:
    """Reads the arrays that `types` names, each in its type, onto a device.

    They are converted as they are read, a few at a time. Errors are those of tensorstore.
    """
    reading: deque[tuple[str, np.ndarray, ts.WriteFutures]] = deque()
    arrays, waiting_bytes = {}, 0

    def finish_first() -> int:
        name, array, done = reading.popleft()
        done.result()
        arrays[name] = jax.device_put(array, device)
        return array.nbytes

    for name, dtype in types.items():
        source = stored[name]
        array = _aligned(source.shape, np.dtype(dtype))
        target = ts.array(array, copy=False, write=True)
        reading.append((name, array, target.write(ts.cast(source, target.dtype))))
        waiting_bytes += array.nbytes
        while waiting_bytes > CONCURRENT_BYTES:
            waiting_bytes -= finish_first()
    while reading:
        finish_first()
    return arrays


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Makes an array without values whose memory begins at a multiple of `ALIGNMENT` bytes."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)
