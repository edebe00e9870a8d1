"""Programs that show a run's numbers while it trains: TensorBoard and Weights & Biases."""

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from experiments.training.run_directory import RunError

TENSORBOARD, WANDB = "tensorboard", "wandb"
MODULES = {TENSORBOARD: "tensorboardX", WANDB: "wandb"}
ID = "wandb.id"  # file of a run that keeps its name at Weights & Biases, so that a resumed run is the same there


class Tracker(Protocol):
    """Receives numbers by name, such as "train/loss", with the number of steps completed before."""

    def add(self, values: Mapping[str, float], step: int) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Writes event files into the run's `tensorboard`. Rows after step `step` are those of an interrupted run."""

    def __init__(self, run: Path, step: int):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def add(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Logs to Weights & Biases, in the project `nemojax` unless WANDB_PROJECT names another.

    WANDB_MODE=offline writes files only, which `wandb sync` uploads later.
    """

    def __init__(self, run: Path, settings: Mapping[str, Any]):
        import wandb  # type: ignore[import-not-found, unused-ignore]

        kept = run / ID
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex[:16] + "\n")
        project = os.environ.get("WANDB_PROJECT", "nemojax")
        try:
            self._run = wandb.init(
                project=project,
                name=run.name,
                id=kept.read_text().strip(),
                resume="allow",
                dir=str(run),
                config=dict(settings),
            )
        except Exception as error:  # wandb has several kinds: of the network, of the account, of its own service
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(
                f"Weights & Biases does not begin: {reason}; run `wandb login`, or set WANDB_MODE=offline"
            ) from None

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def check_installed(names: Iterable[str]) -> None:
    """Raises RunError where the package of a tracker is not installed; says how to install it."""
    for name in names:
        module = MODULES[name]
        if sys.modules[module] is None if module in sys.modules else importlib.util.find_spec(module) is None:
            raise RunError(f'--track {name} needs {module}, which is not installed: pip install "nemojax[{name}]"')


def trackers(names: Sequence[str], run: Path, step: int, settings: Mapping[str, Any]) -> list[Tracker]:
    """Returns the trackers of these names. Raises RunError where one can't begin; says what to install or set."""
    check_installed(names)
    made: list[Tracker] = []
    for name in dict.fromkeys(names):
        made.append(TensorBoard(run, step) if name == TENSORBOARD else WeightsAndBiases(run, settings))
    return made
