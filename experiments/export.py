"""A step of a training run as a native checkpoint, which `nemojax`, and `convert` in turn, read.

python -m experiments.export RUN OUT
"""

import json
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import tyro

from experiments.run_directory import ORIGIN, SETTINGS, TOKENIZER, Checkpoints, RunError
from nemojax import checkpoint, training
from nemojax.augment import SpecAugmentConfig
from nemojax.config import ConfigError, ModelConfig
from nemojax.training import TrainingConfig


def export(run: Path, out: Path, step: int | None = None, dtype: str = "float32", replace: bool = False) -> int:
    """Writes the weights of a step, averaged where the run takes an average; returns the step.

    Args:
      step: None for that with the best dev WER, or the last where none was evaluated.

    Raises:
      RunError: `run` holds no such checkpoint.
      CheckpointError: `out` can't be written.
    """
    try:
        settings = json.loads((run / SETTINGS).read_text())
        origin, tokenizer = json.loads((run / ORIGIN).read_text()), (run / TOKENIZER).read_bytes()
    except (OSError, ValueError) as error:
        raise RunError(f"{run} does not hold a training run: {error}") from None
    config = ModelConfig.from_json(json.dumps(settings["started"]))
    recipe = recipe_of(settings["training"])
    checkpoints = Checkpoints(run / "checkpoints", keep=None)
    try:
        step = step if step is not None else checkpoints.best if checkpoints.best is not None else checkpoints.last
        if step is None or step not in checkpoints.steps:
            there = ", ".join(map(str, checkpoints.steps)) or "no checkpoint"
            raise RunError(f"{run} does not have a checkpoint of step {step}; it has {there}")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.eval_shape(partial(training.init, recipe=recipe), checkpoint.abstract_model(config))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
        model = training.model_of(checkpoints.restore(like, step), config)
    finally:
        checkpoints.close()
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    if replace and out.exists():
        shutil.rmtree(out)
    checkpoint.save(out, model, tokenizer, origin | {"step": step})
    return step


def recipe_of(settings: dict) -> TrainingConfig:
    """The recipe that `Experiment.to_json` wrote."""
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    return TrainingConfig(**{**settings, **lists, "spec_augment": SpecAugmentConfig(**settings["spec_augment"])})


def command(
    run: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    /,
    step: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> int:
    """Write the weights of a training run as a native checkpoint.

    Args:
      run: the run's directory.
      out: a new directory.
      step: None for that with the best dev WER, or the last where none was evaluated.
      dtype: in which weights are kept.
    """
    print(f"{out} holds the weights of step {export(run, out, step, dtype)}", file=sys.stderr)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return tyro.cli(command, prog="python -m experiments.export", args=arguments)
    except (ConfigError, RunError, checkpoint.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
