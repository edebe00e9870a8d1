"""Output that is whole or not there: written under another name beside the place, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convert.errors import ConvertError


def check_new(path: Path, size: int = 0) -> None:
    """Raises ConvertError where `path` exists (an empty directory does not count) or `size` bytes do not fit."""
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise ConvertError(f"{path} exists already; give another name or remove it first")
    place = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise ConvertError(f"{path} needs {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in {place}")


@contextmanager
def new_file(path: str | Path, size: int) -> Iterator[Path]:
    """A temporary file's path, which becomes `path` when the block ends, and is removed when it fails.

    Args:
      size: about as many bytes as will be written.

    Raises:
      ConvertError: `path` exists already, or can't be written.
    """
    path = Path(path).absolute()
    check_new(path, size)
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
    """A temporary directory, which becomes `path` when the block ends, and is removed when it fails.

    Args:
      size: about as many bytes as will be written.

    Raises:
      ConvertError: `path` exists and is not an empty directory, or can't be written.
    """
    path = Path(path).absolute()
    check_new(path, size)
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
