"""What experiments write: tables, plots and files."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from nemojax.errors import ConfigError

FORMATS = ("svg", "png", "pdf")


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table whose first `left` columns are text."""
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines))


def plot_format(path: Path) -> str:
    """Of a plot's file. Raises ConfigError where `plot` would fail."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError('a plot needs matplotlib: pip install "nemojax[experiments]"') from None
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: a plot is one of {', '.join(FORMATS)}, by its name")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no directory {path.parent}")
    return suffix


T = TypeVar("T")


def labels(manifests: Sequence[Path]) -> dict[str, Path]:
    """Manifests by a short name, unique among them."""
    stems = [path.stem for path in manifests]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in manifests}


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """At most so many of some items, spread evenly over them; None for all."""
    count = min(count or len(items), len(items))
    return [items[index * len(items) // count] for index in range(count)]


def writable(path: Path, mode: str) -> IO[str]:
    try:
        return path.open(mode, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be written ({error.strerror})") from None
