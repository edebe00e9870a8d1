"""Writes output completely or not at all: under a temporary name in the same directory, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convert.errors import ConvertError

Progress = Callable[[Iterable[Any]], Iterable[Any]]  # wraps the items of a loop, as `tqdm` does


def check_new(path: Path) -> None:
    """Raises ConvertError if `path` exists, or has a name that is not text; an empty directory is allowed."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConvertError(f"{path} can't be written: its name is not UTF-8") from None
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise ConvertError(f"{path} exists already; give another name or remove it first")


def check_room(path: Path, size: int) -> None:
    """Raises ConvertError if the disk of `path` has less than `size` bytes free."""
    place = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise ConvertError(f"{path} needs {size / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB are free in {place}")


@contextmanager
def new_file(path: str | Path, size: int) -> Iterator[Path]:
    """Yields a temporary file's path; renames the file to `path` when the block ends, deletes it if the block fails.

    Args:
      size: approximate number of bytes that will be written.

    Raises:
      ConvertError: `path` exists already, can't be written, or is larger than the free space.
    """
    path = Path(path).absolute()
    check_new(path)
    check_room(path, size)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        try:
            yield Path(name)
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextmanager
def new_directory(path: str | Path, size: int) -> Iterator[Path]:
    """Yields a temporary directory; renames it to `path` when the block ends, deletes it if the block fails.

    Args:
      size: approximate number of bytes that will be written.

    Raises:
      ConvertError: `path` is a file or a directory with content, can't be written, or is larger than the free space.
    """
    path = Path(path).absolute()
    check_new(path)
    check_room(path, size)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield partial
            partial.chmod(0o755)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConvertError(f"{path} can't be written: {error.strerror or error}") from None
