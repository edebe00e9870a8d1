"""Pauses of Python's garbage collector, for work that makes many objects which stay.

Loading a model and tracing its step make hundreds of thousands of objects. A full collection walks all of them, in
vain, and is due again and again meanwhile. After a pause, memory that this work has freed is given back to the system:
the C library would keep it, 30 MB after a live step is compiled, and 100 MB after one of a recording.
"""

import ctypes
import functools
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_pauses = 0  # that have begun and not ended, in all threads
_was_enabled = False  # before the first of them


@contextmanager
def paused() -> Iterator[None]:
    """Leaves the collector off; objects without a cycle are freed as ever. Pauses may overlap, in any threads.

    The last one's end gives memory back, which takes some milliseconds.
    """
    global _pauses, _was_enabled
    with _lock:
        if _pauses == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            last = _pauses == 0
            if last and _was_enabled:
                gc.enable()
        if last:
            give_back()


def give_back() -> None:
    """Gives memory that is free back to the system, where the C library can do that."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Any:
    """Returns the function of the GNU C library; None with another one."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
