"""From a gradient to the next state: the optimizer's update, the running average, and when a step is skipped."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from nemojax.training.recipe import TrainingConfig, learning_rate, optimizer
from nemojax.training.state import Parameters, TrainState, partition


class Update(NamedTuple):
    """Numbers of one update, whether it was made or skipped."""

    gradient_norm: Float[Array, ""]  # before clipping
    learning_rate: Float[Array, ""]
    skipped: Bool[Array, ""]


def is_acceptable(
    loss: Float[Array, ""], norm: Float[Array, ""], norms: Float[Array, " window"], recipe: TrainingConfig
) -> Bool[Array, ""]:
    """Returns whether to make an update: loss and gradient norm are finite, and the norm has not exploded.

    The limit is `skip_norm` times the median of the recent norms, or times `clip_norm` where that is larger. Until half
    of the window is filled the median is infinite, and so is the limit.
    """
    median = jnp.sort(norms)[norms.shape[0] // 2]
    limit = recipe.skip_norm * jnp.maximum(median, recipe.clip_norm)
    return jnp.isfinite(loss) & jnp.isfinite(norm) & (norm <= limit)


def averaged(average: Parameters, trained: Parameters, updates: Int[Array, ""], decay: float) -> Parameters:
    """Returns the running average after update number `updates`, counted from 0.

    The average keeps the share min(decay, (1 + updates) / (10 + updates)): early in a run it forgets the initial
    weights faster.
    """
    made = updates.astype(jnp.float32)
    share = jnp.minimum(decay, (1 + made) / (10 + made))
    return {name: share * average[name] + (1 - share) * trained[name] for name in average}


def apply_gradient(
    state: TrainState, loss: Float[Array, ""], gradient: Parameters, recipe: TrainingConfig, width: int
) -> tuple[TrainState, Update]:
    """Returns the state after one optimizer update, or after a skipped step where `is_acceptable` is false.

    A skipped step changes `step` and the two counters of skipped steps, nothing else.

    Args:
      gradient: of the parameters that are not frozen.
      width: the encoder's, which scales the learning rate.
    """
    norm = optax.global_norm(gradient)
    accept = is_acceptable(loss, norm, state.norms, recipe)
    updates = state.step - state.skipped
    trained, frozen = partition(state.parameters, recipe.frozen, recipe.train_only)
    with jax.numpy_dtype_promotion("standard"):  # optax relies on it, whatever the user has set
        change, optimizer_state = optimizer(recipe, width).update(gradient, state.optimizer, trained)
    updated = optax.apply_updates(trained, change)
    average = averaged(state.average, updated, updates, recipe.average_decay)
    new = updated, average, optimizer_state, state.norms.at[updates % recipe.skip_window].set(norm)
    old = trained, state.average, state.optimizer, state.norms
    trained, average, optimizer_state, norms = jax.tree.map(lambda n, o: jnp.where(accept, n, o), new, old)
    after = TrainState(
        step=state.step + 1,
        parameters=trained | frozen,
        average=average,
        optimizer=optimizer_state,
        skipped=state.skipped + (~accept).astype(jnp.int32),
        skipped_in_a_row=jnp.where(accept, 0, state.skipped_in_a_row + 1),
        norms=norms,
        seed=state.seed,
    )
    return after, Update(norm, learning_rate(recipe, width)(updates), ~accept)
