"""Settings of training, the learning rate and the optimizer."""

import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.lora import LoraConfig

DTYPES = ("bfloat16", "float32")
SCHEDULES = ("noam", "cosine", "constant")


@dataclass(frozen=True)
class TrainingConfig:
    """The training recipe; the defaults are the family's. Dropout and look-aheads are settings of the model."""

    # how the rate changes after the warm-up: `constant`, a `cosine` down to the minimum, or `noam`, the family's, which
    # falls with the square root of the step
    schedule: str = "noam"
    learning_rate: float = 5.0  # the peak; for `noam` a factor: the peak is the factor / sqrt(width * warmup_steps)
    warmup_steps: int = 10_000  # updates in which the rate rises from 0 to its peak
    decay_steps: int = 0  # update at which `cosine` reaches the minimum; in a run, 0 stands for its last step
    minimum_learning_rate: float = 1e-6  # after the warm-up; `constant` has none

    # linear cool-down: from update `cooldown_from` on, the rate falls linearly to 0 within `cooldown_steps` updates;
    # no cool-down if that is 0. Not part of the family's recipe
    cooldown_from: int = 0

    cooldown_steps: int = 0  # updates within which the rate falls to 0; 0: no cool-down

    betas: tuple[float, float] = (0.9, 0.98)  # AdamW's decay of the mean of the gradient, and of its square
    weight_decay: float = 1e-3  # AdamW's, times the learning rate
    clip_norm: float = 1.0  # a gradient with a larger norm is scaled down to it
    average_decay: float = 0.0  # of the running average of the weights, which is evaluated and exported; 0: no average
    fastemit: float = 5e-3  # weight of FastEmit, which makes the model emit labels earlier
    ctc_weight: float = 0.0  # of the auxiliary CTC loss; not part of the family's recipe
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    dither: float = 1e-5  # standard deviation of the noise added to samples
    lookahead_probabilities: tuple[float, ...] = ()  # one for each of the model's look-aheads; () for uniform
    dtype: str = "bfloat16"  # of products; weights and sums are float32
    accumulation: int = 1  # parts of a batch, computed one after the other
    remat: bool = False  # recompute each block's activations in the backward pass instead of keeping them
    frozen: tuple[str, ...] = ()  # patterns of the paths of parameters that are not trained, such as "encoder.*"

    # a regular expression, such as "joint|prediction": parameters in whose path it is found are trained, and no others.
    # What is not trained has no gradient and no state of the optimizer
    train_only: str = ""

    # adapters beside kernels, which are trained in their place; what `train_only` names is trained too
    lora: LoraConfig = field(default_factory=LoraConfig)

    # a step is skipped if its gradient norm is more than `skip_norm` times the median of recent norms (or `clip_norm`,
    # if larger); inf never skips a finite step. The limit is high, so that only explosions are skipped: a hard batch
    # should be trained on, and clipping makes it harmless
    skip_norm: float = 1000.0

    skip_window: int = 101  # number of recent norms; until half of them are known, only steps that are not finite skip
    seed: int = 0  # of the new weights, dropout, dither, masks and look-aheads

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be {' or '.join(DTYPES)}, not {self.dtype!r}")
        for name in ("accumulation", "skip_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "skip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        for name in ("warmup_steps", "decay_steps", "cooldown_from", "cooldown_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        if 0 < self.decay_steps <= self.warmup_steps and self.schedule == "cosine":
            raise ConfigError(
                f"the warm-up of {self.warmup_steps} steps must end before the schedule does, at step "
                f"{self.decay_steps}; set a shorter warmup_steps"
            )
        try:
            re.compile(self.train_only)
        except re.error as error:
            raise ConfigError(f"train_only: {self.train_only!r} is not a regular expression ({error})") from None
        if self.ctc_weight < 0:
            raise ConfigError(f"ctc_weight must be at least 0, not {self.ctc_weight}")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay must be at least 0 and less than 1, not {self.average_decay}")
        if any(p < 0 for p in self.lookahead_probabilities) or sum(self.lookahead_probabilities or (1,)) <= 0:
            raise ConfigError(f"lookahead_probabilities {self.lookahead_probabilities} are not probabilities")


def learning_rate(recipe: TrainingConfig, width: int) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made; updates 0 and 1 have the same rate.

    Args:
      width: the encoder's, which `noam` depends on.

    Raises:
      ConfigError: a `cosine` without its end, `decay_steps`.
    """
    if recipe.schedule == "noam":
        return noam(recipe, width)
    warmup, low = recipe.warmup_steps, min(recipe.minimum_learning_rate, recipe.learning_rate)
    if recipe.schedule == "cosine":
        if not recipe.decay_steps:
            raise ConfigError("the cosine schedule needs decay_steps, the update at which it ends")
        after = optax.cosine_decay_schedule(
            recipe.learning_rate, recipe.decay_steps - warmup, low / recipe.learning_rate
        )
    else:
        after = optax.constant_schedule(recipe.learning_rate)
    rising = optax.linear_schedule(0.0, recipe.learning_rate, warmup)
    joined = optax.join_schedules([rising, after], [warmup]) if warmup else after

    def schedule(updates: ArrayLike) -> Array:
        step = jnp.maximum(updates, 1).astype(jnp.float32)
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it, whatever the user has set
            return jnp.asarray(joined(step), jnp.float32) * _cooldown(recipe, step)

    return schedule


def noam(recipe: TrainingConfig, width: int) -> optax.Schedule:
    """Returns the family's learning rate as a function of the number of updates made (Vaswani et al. 2017, 5.3).

    It counts as NeMo does: updates 0 and 1 have the same rate.

    Args:
      width: the encoder's.
    """

    def schedule(updates: ArrayLike) -> Array:
        step, warmup = jnp.maximum(updates, 1).astype(jnp.float32), max(recipe.warmup_steps, 1)
        rate = recipe.learning_rate * width**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)
        rate *= _cooldown(recipe, step)
        return jnp.where(step > recipe.warmup_steps, jnp.maximum(rate, recipe.minimum_learning_rate), rate)

    return schedule


def _cooldown(recipe: TrainingConfig, step: Array) -> Array:
    """Returns the factor of the linear cool-down at a step; 1 without one."""
    if not recipe.cooldown_steps:
        return jnp.ones_like(step)
    return jnp.clip(1 - (step - recipe.cooldown_from) / recipe.cooldown_steps, 0, 1)


def peak_rate(recipe: TrainingConfig, width: int) -> float:
    """Returns the largest learning rate of the schedule, before any cool-down."""
    if recipe.schedule != "noam":
        return recipe.learning_rate
    return float(recipe.learning_rate * (width * max(recipe.warmup_steps, 1)) ** -0.5)


def optimizer(recipe: TrainingConfig, width: int) -> optax.GradientTransformation:
    """Returns AdamW on the recipe's `learning_rate`, after clipping the gradient by its global norm."""
    b1, b2 = recipe.betas
    adamw = optax.adamw(learning_rate(recipe, width), b1=b1, b2=b2, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), adamw)
