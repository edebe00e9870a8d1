"""Exports a step of a training run as a native checkpoint, which `nemojax` and `nemojax-convert` read.

python -m experiments export RUN OUT
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import tyro

from experiments.harness.command import command
from experiments.harness.settings import from_json
from experiments.training.run_directory import ORIGIN, SETTINGS, TOKENIZER, Checkpoints, RunError
from experiments.training.start import read_model
from nemojax import checkpoint
from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.parameters import abstract_model
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init, model_of


def export(
    run: Path,
    out: Path,
    step: int | None = None,
    dtype: str = "float32",
    replace: bool = False,
    mix_with: Path | None = None,
    mix_share: float = 0.0,
    average: int = 1,
) -> int:
    """Writes the weights of a step, averaged where the run takes an average, and returns the step.

    Args:
      mix_with, mix_share: a native checkpoint of the same settings, and its share of the weights that are written: a
        model that was trained on keeps more of what it knew before (Wortsman et al. 2022, "Robust fine-tuning").
      average: the mean of this many checkpoints is written: that of `step` and those before it.
      step: None for the step with the lowest dev WER, or the last step where none was evaluated.

    Raises:
      RunError: `run` is not a training run, or has no checkpoint of this step.
      CheckpointError: `out` can't be written, or `mix_with` can't be read.
      ConfigError: `mix_with` has other settings than the run's model.
    """
    try:
        settings = json.loads((run / SETTINGS).read_text())
        origin, tokenizer = json.loads((run / ORIGIN).read_text()), (run / TOKENIZER).read_bytes()
    except (OSError, ValueError) as error:
        raise RunError(f"{run} does not hold a training run: {error}") from None
    config = ModelConfig.from_json(json.dumps(settings["started"]))
    recipe = from_json(TrainingConfig, settings["training"])
    checkpoints = Checkpoints(run / "checkpoints", keep=None)
    try:
        step = step if step is not None else checkpoints.best if checkpoints.best is not None else checkpoints.last
        if step is None or step not in checkpoints.steps:
            found = ", ".join(map(str, checkpoints.steps)) or "no checkpoint"
            raise RunError(f"{run} does not have a checkpoint of step {step}; it has {found}")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        like = jax.eval_shape(partial(init, recipe=recipe), abstract_model(config))
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
        steps = [saved for saved in checkpoints.steps if saved <= step]
        if len(steps) < average:
            raise RunError(
                f"{run} has {len(steps)} checkpoints up to step {step} ({', '.join(map(str, steps))}), and the mean of "
                f"{average} is asked for; set a lower --average"
            )
        model = model_of(checkpoints.restore(like, step), config, recipe.lora)
        for earlier in steps[-average:-1]:
            other = model_of(checkpoints.restore(like, earlier), config, recipe.lora)
            model = jax.tree.map(jnp.add, model, other)
        model = jax.tree.map(lambda x: x / average, model) if average > 1 else model
    finally:
        checkpoints.close()
    origin = origin | {"step": step} | ({"averaged": steps[-average:]} if average > 1 else {})
    if mix_with is not None:
        weights, _, other_origin = read_model(mix_with)
        if weights.config != config:
            raise ConfigError(f"{mix_with} has other settings than the model of {run}")
        model = jax.tree.map(lambda ours, theirs: (1 - mix_share) * ours + mix_share * theirs, model, weights)
        origin |= {"mixed": {"directory": mix_with.name, "share": mix_share, "origin": other_origin}}
    model = jax.tree.map(lambda x: x.astype(dtype), model)
    if replace and out.exists():
        shutil.rmtree(out)
    checkpoint.save(out, model, tokenizer, origin)
    return step


@dataclass(frozen=True)
class Settings:
    """Settings of the export."""

    run: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="RUN")]]
    """The directory of a training run."""
    out: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="OUT")]]
    """A new directory."""
    step: int | None = None
    """The step to export; by default the one with the lowest dev WER, or the last where none was evaluated."""
    average: int = 1
    """Number of checkpoints whose mean is exported: that of the step and those saved before it (see `train --keep`)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights."""
    mix_with: Path | None = None
    """A native checkpoint of the same settings, such as the one that the run started from; its weights are mixed in."""
    mix_share: float = 0.3
    """The share of --mix-with in the weights."""

    def check(self) -> None:
        if self.average < 1:
            raise ConfigError(f"--average must be at least 1, not {self.average}")
        if not 0 <= self.mix_share <= 1:
            raise ConfigError(f"--mix-share must be from 0 to 1, not {self.mix_share}")


def run(settings: Settings) -> int:
    """Runs the command."""
    settings.check()
    one = settings
    step = export(one.run, one.out, one.step, one.dtype, False, one.mix_with, one.mix_share, one.average)
    print(f"{settings.out} holds the weights of step {step}", file=sys.stderr)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "export", __doc__, arguments)
