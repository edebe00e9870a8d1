"""Services that show the numbers of a run besides metrics.jsonl: TensorBoard, and Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from experiments.harness.checks import needed
from nemojax.errors import ConfigError

Service = Literal["tensorboard", "wandb"]
PROJECT = "nemojax"  # of Weights & Biases, unless $WANDB_PROJECT names another


class Tracker(Protocol):
    """Takes numbers by name."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Takes the numbers of a step."""

    def close(self) -> None:
        """Writes what is left."""


class TensorBoard:
    """Event files in a directory; those of steps after `step` are superseded."""

    def __init__(self, directory: Path, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(needed("tensorboardX")) from None
        self._writer: Any = SummaryWriter(str(directory), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases with the name of the run's directory; a resumed run continues it.

    Its own variables choose the account, the project and the mode (WANDB_API_KEY, WANDB_PROJECT, WANDB_MODE=offline).
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]):
        try:
            import wandb
        except ImportError:
            raise ConfigError(needed("wandb")) from None
        kept = directory / "wandb_id"
        identity = kept.read_text() if kept.exists() else wandb.util.generate_id()
        kept.write_text(identity)
        project = wandb.Settings().project or PROJECT
        self._run: Any = wandb.init(
            project=project, name=directory.name, id=identity, resume="allow", dir=directory, config=dict(settings)
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


def open_trackers(
    services: tuple[Service, ...], directory: Path, step: int, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Opens services for a run that starts or resumes after a step. Raises ConfigError for a missing package."""
    opened: list[Tracker] = []
    for service in dict.fromkeys(services):
        if service == "tensorboard":
            opened.append(TensorBoard(directory / "tensorboard", step))
        else:
            opened.append(WeightsAndBiases(directory, settings))
    return opened
