"""A part of an open file, as a file."""

import io
from typing import Any


class Window(io.RawIOBase):
    """The `size` bytes of an open file from byte `first` on: a member of a tar file, for example."""

    def __init__(self, file: Any, first: int, size: int):
        self.size = size
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
        data = self._bytes_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _reported_size(self) -> int:
        """Returns the size in bytes that a seek from the end counts from."""
        return self.size

    def _bytes_at(self, position: int, size: int) -> bytes:
        self._file.seek(self._first + position)
        data: bytes = self._file.read(max(min(size, self.size - position), 0))
        return data
