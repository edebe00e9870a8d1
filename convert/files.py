"""Files as windows to read and to seek in."""

import io
import os
import stat
from pathlib import Path

from convert.errors import ConvertError


class Window(io.RawIOBase):
    """A file, or `size` bytes of it from `start` on, to read and to seek in.

    Windows share one file descriptor, without sharing a position.
    """

    def __init__(self, file: "_File", start: int = 0, size: int | None = None):
        self.file, self.start = file, start
        self.size = file.size - start if size is None else size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if origin + offset < 0:
            raise ValueError(f"negative position {origin + offset}")
        self.position = origin + offset
        return self.position

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), max(0, self.size - self.position))
        data = os.pread(self.file.descriptor, wanted, self.start + self.position)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def part(self, start: int, size: int) -> "Window":
        return Window(self.file, self.start + start, size)


class _File:
    """An open file descriptor, closed with the last window on it."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def __del__(self, close=os.close):  # bound here: `os` may be gone when Python ends
        close(self.descriptor)


def open_file(path: str | Path) -> Window:
    """A regular file as a window.

    Raises:
      ConvertError: it is not there, is not a regular file, or can't be read.
    """
    try:
        # a pipe or a device would block or never end
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConvertError(f"{path} is {'a directory' if os.path.isdir(path) else 'not a regular file'}")
        return Window(_File(os.open(path, os.O_RDONLY)))
    except OSError as error:
        raise ConvertError(f"{path} can't be read: {error.strerror}") from None
