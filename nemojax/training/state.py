"""The state of a training run, as one value."""

import functools
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.training import lora
from nemojax.training.lora import NO_LORA, LoraConfig
from nemojax.training.recipe import TrainingConfig, optimizer

Parameters = dict[str, Array]  # by path, with the names of `named_parameters`


class TrainState(NamedTuple):
    """Everything that a run carries from step to step. `step` counts skipped steps too: it is the data's position."""

    step: Int[Array, ""]
    parameters: Parameters  # float32; adapters of LoRA are among them
    average: Parameters  # running average of the trained parameters; empty without `average_decay`
    optimizer: Any  # optax's state for the trained parameters
    skipped: Int[Array, ""]  # skipped steps since the run began
    skipped_in_a_row: Int[Array, ""]
    norms: Float[Array, " window"]  # gradient norms of the last updates; inf in places not yet filled
    seed: UInt[Array, ""]


def partition(parameters: Mapping[str, Any], recipe: TrainingConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into those that a recipe trains and all others.

    Trained are the parameters that `train_only` names and adapters of LoRA, or all where the recipe has neither. A
    parameter that a pattern of `frozen` matches is not trained.

    Raises:
      ConfigError: a pattern matches no parameter, or nothing is left to train.
    """
    for pattern in recipe.frozen:
        if not any(fnmatchcase(name, pattern) for name in parameters):
            raise ConfigError(
                f"frozen: no parameter's path matches {pattern!r}; the paths are those of {groups(parameters)}"
            )
    chosen = set(parameters)
    if recipe.train_only or recipe.lora.rank:
        named = {name for name in parameters if recipe.train_only and re.search(recipe.train_only, name)}
        if recipe.train_only and not named:
            raise ConfigError(
                f"train_only: {recipe.train_only!r} is found in no parameter's path; the paths are those of "
                f"{groups(parameters)}"
            )
        chosen = named | {name for name in parameters if lora.is_adapter(name)}
    chosen -= {name for name in parameters if any(fnmatchcase(name, pattern) for pattern in recipe.frozen)}
    if not chosen:
        raise ConfigError(f"frozen: {', '.join(recipe.frozen)} leave no parameter to train")
    trained = {name: value for name, value in parameters.items() if name in chosen}
    return trained, {name: value for name, value in parameters.items() if name not in chosen}


def groups(parameters: Iterable[str]) -> str:
    """Returns the paths of parameters for a message: without their last name, and with N for the number of a block."""
    paths = (re.sub(r"\.\d+(?=\.|$)", ".N", name.rpartition(".")[0]) for name in parameters)
    return ", ".join(dict.fromkeys(paths))


def init(model: Transducer, recipe: TrainingConfig) -> TrainState:
    """Returns the state of a run that starts from a model's weights, copied as float32."""
    state: TrainState = _init(named_parameters(model), recipe, model.config.encoder.width)
    return state


@functools.partial(jax.jit, static_argnames=("recipe", "width"))  # the arrays are made where the weights are
def _init(named: Parameters, recipe: TrainingConfig, width: int) -> TrainState:
    # a step donates each buffer, so parameters are copied, and no array is shared
    parameters = {name: jnp.array(value, jnp.float32, copy=True) for name, value in named.items()}
    parameters |= lora.adapters(parameters, recipe.lora, recipe.seed)
    trained, _ = partition(parameters, recipe)
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


def model_of(state: TrainState, config: ModelConfig, adapters: LoraConfig = NO_LORA) -> Transducer:
    """Returns the model to evaluate and export: averaged weights where the recipe takes an average, adapters merged.

    Args:
      adapters: the recipe's `lora`.
    """
    return fill(config, lora.merged(state.parameters | state.average, adapters))
