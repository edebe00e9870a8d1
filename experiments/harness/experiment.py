"""An experiment: a command with settings that makes rows of results, and shows them as a table and a plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import tyro

from experiments.harness.command import command
from experiments.harness.output import plot_format
from experiments.harness.rows import Row, Rows

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


class ExperimentSettings(Protocol):
    """Frozen settings of an experiment; `plot`, a path or None, and `seed` are optional."""

    @property
    def output(self) -> Path: ...

    def check(self) -> None:
        """Raises ConfigError for a setting that can't work, before any work begins."""


S = TypeVar("S", bound=ExperimentSettings)


@dataclass(frozen=True)
class Experiment(Generic[S]):
    """A command that measures.

    Attributes:
      name: as `python -m experiments` lists it.
      settings: a frozen dataclass.
      measure: adds rows, and reports recordings and peers that fail; its return value, if any, is the exit code.
      description: for --help.
      table: of the rows that were added, in markdown.
      plot: draws the rows into the file that the setting `plot` names.
      packages: whose versions go into each row.
      rows_path: the file of the rows, which by default is the setting `output`.
      catch: further errors that end the command with a sentence and exit code 2.
    """

    name: str
    settings: type[S]
    measure: Callable[[S, Rows], int | None]
    description: str | None
    table: Callable[[Sequence[Row]], str] | None = None
    plot: Callable[[Sequence[Row], Path], None] | None = None
    packages: Sequence[str] = PACKAGES
    rows_path: Callable[[S], Path] = lambda settings: settings.output
    catch: tuple[type[Exception], ...] = ()

    def main(self, arguments: Sequence[str] | None = None) -> int:
        return command(self.settings, self.run, self.name, self.description, arguments, catch=self.catch)

    def run(self, settings: S) -> int:
        """Checks the settings, measures, and shows the rows; returns the exit code.

        The exit code is 1 where a problem was reported, unless `measure` returns another.
        """
        settings.check()
        plot_path: Path | None = getattr(settings, "plot", None)
        if plot_path is not None:
            plot_format(plot_path)
        facts: dict[str, Any] = {"experiment": self.name}
        if hasattr(settings, "seed"):
            facts["seed"] = settings.seed
        with Rows(self.rows_path(settings), facts, self.packages) as rows:
            code = self.measure(settings, rows)
        if rows.rows and self.table is not None:
            print(self.table(rows.rows))
        if rows.rows and self.plot is not None and plot_path is not None:
            self.plot(rows.rows, plot_path)
        return code if code is not None else int(bool(rows.problems))
