"""Trains a model, or goes on training it.

    python -m experiments.train smoke runs/first --train train.jsonl --dev dev.jsonl

Presets are `family`, `114m`, `small` and `smoke`; `python -m experiments.train PRESET --help` lists all settings.
The same command goes on with a run that was stopped or killed. Exit codes: 0, trained to the last step; 1, it
can't go on; 2, the command or a setting is wrong; 143, stopped by SIGTERM or control-C, state saved.
"""

import sys
from collections.abc import Sequence

import jax
import tyro

from experiments.settings import PRESETS
from nemojax.checkpoint import CheckpointError
from nemojax.config import ConfigError
from nemojax.tokenizer import TokenizerError

STOPPED = 128 + 15


def main(arguments: Sequence[str] | None = None) -> int:
    from experiments.loop import Run, Stopped
    from experiments.run_directory import RunError
    from nemojax.data.pipeline import DataError

    try:
        experiment = tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.train", args=arguments)
        if experiment.distributed:
            jax.config.update("jax_cpu_collectives_implementation", "gloo")  # where there are only CPUs
            jax.distributed.initialize()
        run = Run(experiment)
    except (CheckpointError, ConfigError, RunError, TokenizerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        run.train()
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return STOPPED
    except (CheckpointError, DataError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
