"""Pauses of Python's garbage collector, for work that makes many objects which stay.

Loading a model and tracing its step make hundreds of thousands of objects. A full collection walks all of them, in
vain, and is due again and again meanwhile. After such work, memory that it has freed is given back to the system: the C
library would keep it, 30 MB after a live step is compiled, and 100 MB after one of a recording.
"""

import ctypes
import functools
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LONG_S = 0.3  # in a shorter pause nothing is loaded or compiled, and little is freed; to give it back takes 1 to 15 ms

_lock = threading.Lock()
_pauses = 0  # that have begun and not ended, in all threads
_begun_s = 0.0  # the first of them
_was_enabled = False  # before the first of them


@contextmanager
def paused() -> Iterator[None]:
    """Leaves the collector off; objects without a cycle are freed as ever. Pauses may overlap, in any threads.

    Where they took long, the end of the last one gives memory back.
    """
    global _pauses, _was_enabled, _begun_s
    with _lock:
        if _pauses == 0:
            _was_enabled, _begun_s = gc.isenabled(), time.monotonic()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if _pauses == 0 and _was_enabled:
                gc.enable()
            took_long = _pauses == 0 and time.monotonic() - _begun_s > LONG_S
        if took_long:
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
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    trim.argtypes = [ctypes.c_size_t]
    return trim
