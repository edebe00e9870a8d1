"""Trains a model, or resumes its training.

    python -m experiments train smoke runs/first --train train.jsonl --dev dev.jsonl

    python -m experiments train fine-tune runs/mine --init MODEL --train mine.jsonl --replay old.jsonl --dev dev.jsonl

Presets are `family`, `114m`, `fine-tune`, `fine-tune-lora`, `small` and `smoke`; `python -m experiments train PRESET
--help` lists all settings. `--train-only "joint|prediction"` is short for --training.train-only, `--lora 16` for
--training.lora.rank. `--dry` says what a run would do and how much memory it takes, and does nothing else.
The same command resumes a run that was stopped or killed. So does `--settings RUN/settings.json` alone; followed by
another RUN, it starts the same run there. Exit codes: 0, trained to the last step; 1, the run failed, or with `--dry`
the step does not fit the card; 2, the command or a setting is wrong; 134, another process of the job was lost; 143,
stopped by SIGTERM or control-C, state saved.
"""

import os
import sys
import traceback
from collections.abc import Sequence

import jax

from experiments.harness.command import command, ending
from experiments.training.presets import FORMER_FLAGS, PRESETS, RECORDED, Experiment
from experiments.training.processes import connect, find, note_of_tasks_apart
from experiments.training.progress import say
from nemojax.data.command import current_flags
from nemojax.errors import CheckpointError, DataError

STOPPED = 128 + 15
LOST = 128 + 6  # jax aborts a process that has lost the coordinator, which gives this code too
OF_CONNECTIONS = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED")  # words in jax's errors of a job's connections


def run(experiment: Experiment) -> int:
    """Runs the command; returns its exit code."""
    from experiments.training.loop import Run, Stopped
    from experiments.training.run_directory import RunError

    if experiment.dry:
        from experiments.training.estimate import dry_run

        return dry_run(experiment)
    named = experiment.coordinator, experiment.processes, experiment.process
    if experiment.distributed or any(value is not None for value in named):
        found = find(os.environ, *named)
        connect(found)
        if jax.process_index() == 0:
            say(f"processes: {jax.process_count()}, found by {found.source}")
    elif note := note_of_tasks_apart(os.environ):
        print(note, file=sys.stderr)
    try:
        training_run = Run(experiment)
        return ending(training_run.train, (CheckpointError, DataError, RunError), 1)
    except Stopped as stopped:
        if jax.process_index() == 0:
            print(stopped, file=sys.stderr)
        return STOPPED
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        if jax.process_count() == 1 or not any(word in reason for word in OF_CONNECTIONS):
            raise
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} lost another one, whose own message says "
            f"why; the same command resumes from the last checkpoint ({reason})",
            file=sys.stderr,
        )
        return LOST


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = current_flags(sys.argv[1:] if arguments is None else arguments, FORMER_FLAGS)
    try:
        code = command(Experiment, run, "train", __doc__, arguments, presets=PRESETS, recorded=RECORDED)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        code = 1
    if code not in (0, STOPPED) and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at an ordinary end, jax would wait minutes for the others, and they for this process
    return code
