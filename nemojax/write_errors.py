"""Errors of orbax and tensorstore while they write: without the tracebacks that they print, and as a short reason.

Both raise an error of a write where the caller waits for it. Beside that, orbax logs the traceback of each of its
threads, and tensorstore prints one for each write that ends after the error.
"""

import logging
import re
import sys
from collections.abc import Callable
from types import TracebackType

SYSTEM_ERROR = re.compile(r": ([^:]+) \[os_error_code='\d+'\]")  # at the end of tensorstore's message


def print_no_tracebacks() -> None:
    """Keeps orbax and tensorstore from printing tracebacks, from now on in this process."""
    logger = logging.getLogger("absl")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
        sys.excepthook = _Hook(sys.excepthook)


def reason(error: Exception) -> str:
    """Returns why a file can't be written or read: what the system says, or else the first line of the message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if match := SYSTEM_ERROR.search(str(error)):
        return match[1]
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _is_news(record: logging.LogRecord) -> bool:
    """Returns whether a record of the log is no traceback of orbax."""
    return not record.exc_info or "orbax" not in record.pathname


class _Hook:
    """An exception hook that passes all on but what tensorstore calls in an event loop of orbax that has ended."""

    def __init__(self, before: Callable[[type[BaseException], BaseException, TracebackType | None], object]):
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        called_by_tensorstore = trace is not None and trace.tb_frame.f_code.co_name == "call_soon_threadsafe"
        if not (called_by_tensorstore and str(error) == "Event loop is closed"):
            self.before(kind, error, trace)
