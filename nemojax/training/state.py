"""The state of a training run, as one value."""

import functools
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.training.recipe import TrainingConfig, optimizer

Parameters = dict[str, Array]  # by path, with the names of `named_parameters`


class TrainState(NamedTuple):
    """Everything that a run carries from step to step. `step` counts skipped steps too: it is the data's position."""

    step: Int[Array, ""]
    parameters: Parameters  # float32
    average: Parameters  # running average of the trained parameters; empty without `average_decay`
    optimizer: Any  # optax's state for the trained parameters
    skipped: Int[Array, ""]  # skipped steps since the run began
    skipped_in_a_row: Int[Array, ""]
    norms: Float[Array, " window"]  # gradient norms of the last updates; inf in places not yet filled
    seed: UInt[Array, ""]


def partition(
    parameters: Mapping[str, Any], frozen: tuple[str, ...], train_only: str = ""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into those to train and those that stay as they are.

    Args:
      frozen: patterns of whole paths, such as "encoder.*", that are not trained.
      train_only: a regular expression that is found in the paths to train; "" for all.

    Raises:
      ConfigError: a pattern matches no parameter, or nothing is left to train.
    """
    for pattern in frozen:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(f"frozen: no parameter's path matches {pattern!r}; paths are like {min(parameters)!r}")
    matched = {name for name in parameters if any(fnmatchcase(name, pattern) for pattern in frozen)}
    wanted = re.compile(train_only)
    if not any(wanted.search(name) for name in parameters):
        raise ConfigError(f"train_only: {train_only!r} is in no parameter's path; paths are like {min(parameters)!r}")
    matched |= {name for name in parameters if not wanted.search(name)}
    if len(matched) == len(parameters):
        settings = ", ".join([*frozen, *([f"train_only {train_only!r}"] if train_only else [])])
        raise ConfigError(f"frozen: {settings} leave no parameter to train")
    trained = {name: value for name, value in parameters.items() if name not in matched}
    return trained, {name: value for name, value in parameters.items() if name in matched}


def init(model: Transducer, recipe: TrainingConfig) -> TrainState:
    """Returns the state of a run that starts from a model's weights, copied as float32."""
    state: TrainState = _init(named_parameters(model), recipe, model.config.encoder.width)
    return state


@functools.partial(jax.jit, static_argnames=("recipe", "width"))  # the arrays are made where the weights are
def _init(named: Parameters, recipe: TrainingConfig, width: int) -> TrainState:
    # a step donates each buffer, so parameters are copied, and no array is shared
    parameters = {name: jnp.array(value, jnp.float32, copy=True) for name, value in named.items()}
    trained, _ = partition(parameters, recipe.frozen, recipe.train_only)
    step, skipped, skipped_in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))
    return TrainState(
        step,
        parameters,
        {name: jnp.array(p, copy=True) for name, p in trained.items()} if recipe.average_decay else {},
        optimizer(recipe, width).init(trained),
        skipped,
        skipped_in_a_row,
        jnp.full(recipe.skip_window, jnp.inf, jnp.float32),
        jnp.array(recipe.seed, jnp.uint32),
    )


def model_of(state: TrainState, config: ModelConfig) -> Transducer:
    """Returns the model to evaluate and export: with averaged weights where the recipe takes an average."""
    return fill(config, state.parameters | state.average)
