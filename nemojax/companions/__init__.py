"""The companions of nemojax: the packages `convert` and `experiments`, and the notebooks.

In a clone they are beside `nemojax`. A wheel has them inside this directory, because their names are too common for the
top of site-packages. nemojax never imports them, except for the commands `nemojax convert` and `nemojax experiments`.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from nemojax.errors import ConfigError

_HERE = Path(__file__).parent
NAMES = ("convert", "experiments")


def installed() -> bool:
    """Returns whether the companions are those of a wheel, not of a clone."""
    return all((_HERE / name).is_dir() for name in NAMES)


def directory() -> Path:
    """Returns the directory that holds the companions."""
    return _HERE if installed() else _HERE.parents[1]


def enable() -> None:
    """Makes `import convert` and `import experiments` find the companions in this process, and nothing else.

    Raises:
      ConfigError: another module of such a name has been imported already.
    """
    place = str(directory())
    for name in NAMES:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and Path(file).parent != Path(place, name):
            raise ConfigError(f"a module named {name} was imported already, from {file}; use another process")
    if place in sys.path:
        sys.path.remove(place)
    sys.path.insert(0, place)  # first, because other modules may have these names


def run(name: str, arguments: Sequence[str]) -> int:
    """Runs the command line of a companion; returns its exit code."""
    enable()
    code: int | None = importlib.import_module(f"{name}.__main__").main(list(arguments))
    return code or 0
