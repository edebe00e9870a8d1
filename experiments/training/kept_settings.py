"""The settings that a run keeps in its directory, and what it started with."""

import dataclasses
import json
from typing import Any

from experiments.training.presets import FIXED, Experiment, changes, current_names
from experiments.training.run_directory import ORIGIN, SETTINGS, TOKENIZER, RunError, saved_steps, write_json
from experiments.training.start import Start, start
from nemojax.config import ModelConfig
from nemojax.model.parameters import abstract_model
from nemojax.training.losses import Loss


def started_run(experiment: Experiment) -> Start:
    """Returns what a run to resume started with. Its model is abstract: the checkpoint holds the weights.

    Raises:
      RunError: the directory does not hold a run.
    """
    directory = experiment.run
    try:
        tokenizer, origin = (directory / TOKENIZER).read_bytes(), json.loads((directory / ORIGIN).read_text())
        config = ModelConfig.from_json(json.dumps(json.loads((directory / SETTINGS).read_text())["started"]))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{directory} does not hold a run that can be resumed: {error}") from None
    if not saved_steps(directory / "checkpoints"):
        return start(dataclasses.replace(experiment, tokenizer=directory / TOKENIZER))
    return Start(abstract_model(config), tokenizer, origin)


def keep_settings(
    experiment: Experiment, started: Start, fingerprint: str, losses: tuple[Loss, ...] | None, chief: bool
) -> dict[str, Any]:
    """Writes the settings of a new run, or compares them with those of the run to resume; returns what changed.

    Args:
      fingerprint: of the data, see `Plan`.
      losses: those that the run was given, if any.
      chief: whether this process writes.

    Raises:
      RunError: a setting changed that can't change, or that was not accepted; or the directory can't be written.
    """
    path = experiment.run / SETTINGS
    config = started.model.config
    now = json.loads(experiment.to_json()) | {"started": json.loads(config.to_json()), "data": fingerprint}
    now["process"] = None  # each process has its own
    if losses is not None:
        now["losses"] = {loss.name: loss.weight for loss in losses}
    if path.exists():
        different = changes(current_names(json.loads(path.read_text())), now)
        fixed = {name: change for name, change in different.items() if name.startswith(FIXED)}
        if fixed or (different and not experiment.accept_changes):
            shown = fixed or different
            listed = "; ".join(f"{name}: {old!r} then, {new!r} now" for name, (old, new) in shown.items())
            others = "or another directory" if fixed else "another directory, or --accept-changes"
            raise RunError(f"{experiment.run} was started with other settings ({listed}); use those, {others}")
    else:
        different = {}
    if chief:
        try:
            if not path.exists():
                (experiment.run / TOKENIZER).write_bytes(started.tokenizer)
                write_json(experiment.run / ORIGIN, started.origin)
            write_json(path, now)  # last: where this file exists, the others do
        except OSError as error:
            raise RunError(f"{experiment.run} can't be written: {error.strerror}") from None
    return different
