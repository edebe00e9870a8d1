"""Trains a model, or resumes its training.

    python -m experiments train smoke runs/first --train train.jsonl --dev dev.jsonl

Presets are `family`, `tune`, `114m`, `small` and `smoke`; `python -m experiments train PRESET --help` lists all
settings. `--train-only PATTERN` is `--training.train-only`.
The same command resumes a run that was stopped or killed. So does `--settings RUN/settings.json` alone; followed by
another RUN, it starts the same run there. Exit codes: 0, trained to the last step; 1, the run failed; 2, the command or
a setting is wrong; 143, stopped by SIGTERM or control-C, state saved.
"""

import sys
from collections.abc import Sequence

import jax

from experiments.harness.command import command, ending
from experiments.training.presets import FORMER_FLAGS, PRESETS, RECORDED, SHORT_FLAGS, Experiment
from nemojax.data.command import current_flags
from nemojax.errors import CheckpointError, DataError

STOPPED = 128 + 15


def run(experiment: Experiment) -> int:
    """Runs the command; returns its exit code."""
    from experiments.training.loop import Run, Stopped
    from experiments.training.run_directory import RunError

    if experiment.distributed:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")  # where there are only CPUs
        jax.distributed.initialize()
    training_run = Run(experiment)
    try:
        return ending(training_run.train, (CheckpointError, DataError, RunError), 1)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED


def main(arguments: Sequence[str] | None = None) -> int:

    arguments = current_flags(sys.argv[1:] if arguments is None else arguments, FORMER_FLAGS | SHORT_FLAGS)
    return command(Experiment, run, "train", __doc__, arguments, presets=PRESETS, recorded=RECORDED)
