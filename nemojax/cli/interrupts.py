"""SIGINT and SIGTERM as the end of a live recording, so that its text is finished and printed."""

import io
import os
import select
import signal
import stat
import sys
import time
from types import FrameType
from typing import Any

REPEATED_S = 0.5  # `timeout` and shells may send one signal twice within less time


class Interrupts:
    """Handles SIGINT and SIGTERM while it is a context: the first one ends the input, a second one the program.

    Standard input then ends after the bytes that have arrived. Whoever reads files asks `ended`.

    Args:
      enabled: False leaves signals and standard input as they are.
    """

    def __init__(self, enabled: bool = True):
        self._enabled, self._number, self._at_s = enabled, 0, 0.0
        self._handlers: dict[int, Any] = {}
        self._stdin, self._pipe = sys.stdin, (-1, -1)

    @property
    def ended(self) -> bool:
        """Whether a signal has come."""
        return self._number > 0

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, as shells count; 0 without a signal."""
        return 128 + self._number if self.ended else 0

    def __enter__(self) -> "Interrupts":
        if not self._enabled:
            return self
        self._pipe, self._stdin = os.pipe(), sys.stdin
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        except ValueError:  # not the main thread: signals are not ours
            return self
        if (file := _descriptor(sys.stdin)) is not None and sys.platform != "win32":  # there select is for sockets only
            sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(file, self._pipe[0])))
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._enabled:
            sys.stdin = self._stdin
            for end in self._pipe:
                os.close(end)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if not self.ended:
            self._number, self._at_s = number, now_s
            os.write(self._pipe[1], b"!")
        elif now_s - self._at_s > REPEATED_S:
            raise SystemExit(128 + number)


class _Input(io.RawIOBase):
    """A file that ends once `stop` can be read, after the bytes that have arrived. Both are descriptors."""

    def __init__(self, file: int, stop: int):
        self._file, self._stop = file, stop
        self._left: int | None = None  # bytes to read after the stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left is None and self._stop in select.select([self._file, self._stop], [], [])[0]:
            self._left = _waiting_bytes(self._file)
        size = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = os.read(self._file, size) if size else b""
        if self._left is not None:
            self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


def _descriptor(file: Any) -> int | None:
    """Returns the descriptor of a text file; None where it has none."""
    try:
        return int(file.buffer.fileno())
    except (AttributeError, OSError, ValueError):
        return None


def _waiting_bytes(file: int) -> int:
    """Returns the bytes that a pipe, a socket or a terminal holds, and 0 for any other file."""
    if stat.S_ISREG(os.fstat(file).st_mode):
        return 0
    import fcntl
    import termios

    count = bytearray(4)
    try:
        fcntl.ioctl(file, termios.FIONREAD, count)
    except OSError:
        return 0
    return int.from_bytes(count, sys.byteorder)
