"""The training step as a pure function: a state and a batch to the next state.

All randomness is a function of the seed and the step's number, so a resumed run computes what it would have computed
without the interruption.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill
from nemojax.training.forward import ONE_DEVICE, Batch, Placement
from nemojax.training.losses import Counts, Loss, LossValues, compute_losses
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import Parameters, TrainState, partition
from nemojax.training.update import apply_gradient


class StepMetrics(NamedTuple):
    """Numbers of one training step."""

    loss: Float[Array, ""]  # the weighted sum of the losses; FastEmit's factor is in it
    losses: dict[str, Float[Array, ""]]  # each loss by its name, without its weight
    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    lookahead: Int[Array, ""]
    skipped: Bool[Array, ""]
    counts: Counts


def narrow(parameters: Parameters, dtype: str) -> Parameters:
    """Returns the parameters with kernels in the type in which products are computed; all others stay float32."""
    return {name: p.astype(dtype) if name.endswith("kernel") else p for name, p in parameters.items()}


def value_and_gradient(
    parameters: Parameters,
    batch: Batch,
    lookahead: int | Int[Array, ""],
    key: Array | None,
    config: ModelConfig,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
    losses: tuple[Loss, ...] | None = None,
) -> tuple[LossValues, Parameters]:
    """Returns the losses, and the gradient of their weighted sum for the parameters that are not frozen.

    With `accumulation`, part i holds rows i, i + accumulation, ...; the mean is over all rows that are not filler,
    in any part. So the result is that of the whole batch, except for random draws.

    Args:
      losses: None for the recipe's own, `losses.standard_losses(recipe)`.
    """
    trained, frozen = partition(parameters, recipe.frozen, recipe.train_only)

    def part_loss(trained: Parameters, batch: Batch, key: Array | None) -> tuple[Array, LossValues]:
        whole = placement.gather(narrow(trained | frozen, recipe.dtype))
        values = compute_losses(fill(config, whole), batch, lookahead, key, recipe, placement, losses)
        return values.total, values

    differentiate = jax.value_and_grad(part_loss, has_aux=True)

    def compute(batch: Batch, key: Array | None) -> tuple[LossValues, Parameters]:
        (_, values), gradient = differentiate(trained, batch, key)
        return values, gradient

    return compute(batch, key) if recipe.accumulation == 1 else _accumulate(compute, batch, key, recipe.accumulation)


def _accumulate(
    compute: Callable[[Batch, Array | None], tuple[LossValues, Parameters]],
    batch: Batch,
    key: Array | None,
    parts: int,
) -> tuple[LossValues, Parameters]:
    """Computes a batch in parts, one after the other, and returns their mean, weighted by the number of rows."""
    if batch.samples.shape[0] % parts:
        raise ValueError(f"a batch of {batch.samples.shape[0]} rows can't be computed in {parts} equal parts")
    # a row's place in the batch decides its device, so each part takes every parts-th row: rows of every device
    split_rows = lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
    keys = None if key is None else jax.random.split(key, parts)

    def add(sums: Any, inputs: Any) -> tuple[Any, None]:
        values, gradient = compute(*inputs)
        rows = values.counts.rows.astype(jnp.float32)
        weighted = jax.tree.map(lambda x: x * rows, (values.total, values.by_name, gradient))
        return jax.tree.map(jnp.add, sums, (weighted, values.counts)), None

    pieces = jax.tree.map(split_rows, batch)
    first = jax.tree.map(lambda x: x[0], (pieces, keys))
    values, gradient = jax.eval_shape(compute, *first)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), ((values.total, values.by_name, gradient), values.counts)
    )
    (weighted, counts), _ = jax.lax.scan(add, zeros, (pieces, keys))
    rows = jnp.maximum(counts.rows, 1).astype(jnp.float32)
    total, by_name, gradient = jax.tree.map(lambda x: x / rows, weighted)
    return LossValues(total, by_name, counts), gradient


def draw_lookahead(key: Array, config: ModelConfig, recipe: TrainingConfig) -> Int[Array, ""]:
    """Draws one of the model's look-aheads.

    Raises:
      ConfigError: there is not one probability for each look-ahead.
    """
    lookaheads, probabilities = config.encoder.lookaheads, recipe.lookahead_probabilities
    if probabilities and len(probabilities) != len(lookaheads):
        raise ConfigError(
            f"lookahead_probabilities: {len(probabilities)} for the {len(lookaheads)} look-aheads {lookaheads}"
        )
    weights = jnp.array(probabilities or [1.0] * len(lookaheads), jnp.float32)
    return jax.random.choice(key, jnp.array(lookaheads, jnp.int32), p=weights / weights.sum())


def train_step(
    state: TrainState,
    batch: Batch,
    config: ModelConfig,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
    losses: tuple[Loss, ...] | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Returns the state after one step, and the step's numbers. See `update` for when a step is skipped.

    Args:
      losses: None for the recipe's own, `losses.standard_losses(recipe)`.
    """
    lookahead_key, key = jax.random.split(jax.random.fold_in(jax.random.key(state.seed), state.step))
    lookahead = draw_lookahead(lookahead_key, config, recipe)
    values, gradient = value_and_gradient(state.parameters, batch, lookahead, key, config, recipe, placement, losses)
    state, update = apply_gradient(state, values.total, gradient, recipe, config.encoder.width)
    return state, StepMetrics(
        loss=values.total,
        losses=values.by_name,
        gradient_norm=update.gradient_norm,
        learning_rate=update.learning_rate,
        lookahead=lookahead,
        skipped=update.skipped,
        counts=values.counts,
    )


train_step_jit = jax.jit(train_step, static_argnames=("config", "recipe", "losses"), donate_argnames="state")
