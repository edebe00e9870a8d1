"""Trains a model, or goes on training it.

    python -m experiments train smoke runs/first --train train.jsonl --dev dev.jsonl

Presets are `family`, `114m`, `small` and `smoke`; `python -m experiments train PRESET --help` lists all settings.
The same command goes on with a run that was stopped or killed. `--settings RUN/settings.json` in place of all else
does so too, and followed by another RUN begins the same run there. Exit codes: 0, trained to the last step; 1, it
can't go on; 2, the command or a setting is wrong; 143, stopped by SIGTERM or control-C, state saved.
"""

import sys
from collections.abc import Sequence

import jax

from experiments.harness.command import command, ending
from experiments.training.presets import PRESETS, RECORDED, Experiment
from nemojax.errors import CheckpointError

STOPPED = 128 + 15


def run(experiment: Experiment) -> int:
    from experiments.training.loop import Run, Stopped
    from experiments.training.run_directory import RunError
    from nemojax.data.pipeline import DataError

    if experiment.distributed:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")  # where there are only CPUs
        jax.distributed.initialize()
    begun = Run(experiment)
    try:
        return ending(begun.train, (CheckpointError, DataError, RunError), 1)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED


def main(arguments: Sequence[str] | None = None) -> int:
    from experiments.training.run_directory import RunError

    return command(Experiment, run, "train", __doc__, arguments, presets=PRESETS, recorded=RECORDED, catch=(RunError,))
