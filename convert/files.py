"""Read-only parts of files: several readers of one open file, each with its own position."""

import io
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, reason


class FilePart(io.RawIOBase):
    """A binary file, or `size` bytes of one from byte `start`, for reading and seeking.

    Parts of one file share its descriptor; each has its own position.
    """

    def __init__(self, file: "OpenFile", start: int = 0, size: int | None = None) -> None:
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
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), max(0, self.size - self.position))
        data = os.pread(self.file.descriptor, size, self.start + self.position)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def part(self, start: int, size: int) -> "FilePart":
        """Returns the part of `size` bytes of this one from its byte `start`."""
        return FilePart(self.file, self.start + start, size)


class LimitedPart(FilePart):
    """A part for reading headers: after `limit` bytes in all, reading is an error.

    Readers of archives take the sizes of headers from the file, which may claim any size.
    """

    def __init__(self, part: FilePart, limit: int) -> None:
        super().__init__(part.file, part.start, part.size)
        self.limit = limit
        self.left: float = limit

    def release(self) -> None:
        """Ends the limit: the headers are read."""
        self.left = math.inf

    def readinto(self, buffer: Any) -> int:
        self.left -= min(len(buffer), max(0, self.size - self.position))
        if self.left < 0:
            raise ConvertError(f"has more than {self.limit >> 20} MB of headers; refused")
        return super().readinto(buffer)


class OpenFile:
    """An open file descriptor. It is closed when its last part is deleted."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # bound here: `os` may be unloaded at exit
        close(self.descriptor)


def open_file(path: str | Path) -> FilePart:
    """Opens a regular file; all of it is one part.

    Raises:
      ConvertError: the file does not exist, is not a regular file, or can't be read.
    """
    try:
        # reading a pipe or a device could block, or never end
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConvertError(f"{path} is {'a directory' if os.path.isdir(path) else 'not a regular file'}")
        return FilePart(OpenFile(os.open(path, os.O_RDONLY)))
    except ConvertError:
        raise
    except OSError as error:
        raise ConvertError(f"{path} can't be read: {error.strerror}") from None
    except ValueError as error:  # a name with a NUL byte
        raise ConvertError(f"{path} can't be read: {reason(error)}") from None
