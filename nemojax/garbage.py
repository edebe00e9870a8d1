"""Pauses of Python's garbage collector, for work that makes many objects which stay.

Loading a model and tracing its step make hundreds of thousands of objects. A full collection walks all of them, in
vain, and is due again and again meanwhile.
"""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_pauses = 0  # that have begun and not ended, in all threads
_was_enabled = False  # before the first of them


@contextmanager
def paused() -> Iterator[None]:
    """Leaves the collector off; objects without a cycle are freed as ever. Pauses may overlap, in any threads."""
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
            if _pauses == 0 and _was_enabled:
                gc.enable()
