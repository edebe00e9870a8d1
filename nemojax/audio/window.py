"""A part of an open file, as a file."""

import io
from collections.abc import Callable, Mapping
from typing import Any


class Window(io.RawIOBase):
    """The `size` bytes of an open file from byte `first` on: a member of a tar file, for example.

    libsndfile reads it through callbacks, in which an exception is printed and lost. Where reading fails, the data end,
    and `check` raises the error.

    Attributes:
      furthest: the end of the bytes that have been read.
    """

    def __init__(self, file: Any, first: int, size: int):
        self.size, self.furthest = size, 0
        self._failure: OSError | None = None
        self._file, self._first, self._position = file, first, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._reported_size()}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.bytes_at(self._position, len(buffer))
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            self._failure, data = error if isinstance(error, OSError) else OSError(str(error)), b""
        buffer[: len(data)] = data
        self._position += len(data)
        self.furthest = max(self.furthest, self._position)
        return len(data)

    def check(self) -> None:
        """Raises the OSError of a read that failed."""
        if self._failure is not None:
            raise self._failure

    def part(self, begin: int, end: int | None = None) -> "Window":
        """Returns the window of the bytes from `begin` to `end`."""
        end = self.size if end is None else min(end, self.size)
        return Window(self._file, self._first + begin, max(end - begin, 0))

    def _reported_size(self) -> int:
        """Returns the size in bytes that a seek from the end counts from."""
        return self.size

    def bytes_at(self, position: int, size: int) -> bytes:
        """Returns the bytes from `position` on: `size` of them, fewer at the end. The position stays as it is."""
        size = min(size, self.size - position)
        if size <= 0:  # a position that a damaged header gives may be too large for `seek`
            return b""
        self._file.seek(self._first + position)
        data: bytes = self._file.read(size)
        return data


class PatchedWindow(Window):
    """A window some bytes of which are replaced: {position: bytes}. It repairs a header without a copy of the file."""

    def __init__(self, window: Window, patches: Mapping[int, bytes]):
        super().__init__(window._file, window._first, window.size)
        self._patches = patches

    def part(self, begin: int, end: int | None = None) -> Window:
        return PatchedWindow(super().part(begin, end), {at - begin: patch for at, patch in self._patches.items()})

    def bytes_at(self, position: int, size: int) -> bytes:
        data = bytearray(super().bytes_at(position, size))
        for at, patch in self._patches.items():
            begin, end = max(at, position), min(at + len(patch), position + len(data))
            if begin < end:
                data[begin - position : end - position] = patch[begin - at : end - at]
        return bytes(data)


def read_whole(read1: Callable[[int], bytes], size: int) -> bytes:
    """Reads `size` bytes, fewer only at the end, with a function that may return fewer than requested."""
    data = bytearray()
    while len(data) < size and (more := read1(size - len(data))):
        data += more
    return bytes(data)
