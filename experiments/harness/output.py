"""Tables, plots and files that experiments write."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, TypeVar

from nemojax.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
T = TypeVar("T")


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """Returns a markdown table. The first `left` columns are text, the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *lines))


def median_and_range(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Returns the median, and the range where the values differ; "" for no values."""
    if not values:
        return ""
    middle, low, high = (form.format(value) for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low}, {high}]"


def plot_format(path: Path) -> str:
    """Returns the format of a plot's file. Raises ConfigError where a plot can't be drawn or written there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError('a plot needs matplotlib: pip install "nemojax[experiments]"') from None
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: the format of a plot is one of {', '.join(FORMATS)}, by the file's name")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no directory {path.parent}")
    return suffix


@contextmanager
def drawing(path: Path, width_inches: float, height_inches: float) -> Iterator["Figure"]:
    """Gives a figure to draw on, and writes it to a file. The same drawing gives the same file."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        yield figure
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def labels(manifests: Sequence[Path]) -> dict[str, Path]:
    """Returns manifests by a short name, unique among them."""
    stems = [path.stem for path in manifests]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in manifests}


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """Returns at most `count` items, spread evenly over them; None for all."""
    count = min(count or len(items), len(items))
    return [items[index * len(items) // count] for index in range(count)]


def open_for_writing(path: Path, mode: str) -> IO[str]:
    """Opens a text file. Raises ConfigError where it can't be written."""
    try:
        return path.open(mode, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} can't be written ({error.strerror})") from None
