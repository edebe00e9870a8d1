"""Memory for the weights of a model: aligned as jax takes it without a copy, and in pages of 2 MB where Linux has them.

A live step reads every weight once. With pages of 4 kB, the processor looks up the address of each page meanwhile, and
Linux prepares each page when weights are loaded.
"""

import contextlib
import math
import mmap
import threading

import numpy as np

ALIGNMENT = 64  # bytes; jax on a CPU takes an array so aligned as it is
HUGE_PAGE = 1 << 21
MOST_EMPTY = 0.1  # of an array's bytes may be left over in its last huge page
BLOCK_BYTES = 1 << 26  # of memory for arrays; it is freed once all of them are


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Makes an array without values, in memory of its own; in huge pages, if it fills them."""
    size = _size(shape, dtype)
    fills = size > 0 and -size % HUGE_PAGE <= MOST_EMPTY * size
    memory = _huge(size) if fills else _from(np.empty(size + ALIGNMENT, np.uint8), ALIGNMENT)
    return memory[:size].view(dtype).reshape(shape)


class Arena:
    """Gives arrays memory in a few large blocks of huge pages, for those that stay. It is safe among threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block, self._used = np.empty(0, np.uint8), 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Makes an array without values."""
        size = _size(shape, dtype)
        with self._lock:
            begin = -(-self._used // ALIGNMENT) * ALIGNMENT
            if begin + size > len(self._block):
                self._block, begin = _huge(max(size, BLOCK_BYTES)), 0
            self._used = begin + size
            memory = self._block[begin : self._used]
        return memory.view(dtype).reshape(shape)


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    return math.prod(shape) * dtype.itemsize


def _from(memory: np.ndarray, alignment: int) -> np.ndarray:
    """Returns the bytes from the first address that is a multiple of `alignment`."""
    return memory[-memory.ctypes.data % alignment :]


def _huge(size: int) -> np.ndarray:
    """Returns memory that begins with a huge page, and consists of such where the system has them."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return _from(np.empty(size + HUGE_PAGE, np.uint8), HUGE_PAGE)[:size]
    # private: memory that processes could share gets no huge pages. What is not used takes no memory
    memory = mmap.mmap(-1, size + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # Linux may be built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return _from(np.frombuffer(memory, np.uint8), HUGE_PAGE)[:size]
