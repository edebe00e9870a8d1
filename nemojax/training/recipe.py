"""Settings of training, the learning rate and the optimizer."""

import re
from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig

DTYPES = ("bfloat16", "float32")
SCHEDULES = ("noam", "constant", "cosine")


@dataclass(frozen=True)
class TrainingConfig:
    """The training recipe; the defaults are the family's. Dropout and look-aheads are settings of the model."""

    # settings that runs of earlier versions do not have; those runs have the defaults
    ADDED: ClassVar[frozenset[str]] = frozenset({"schedule", "decay_steps", "train_only"})

    # of the rate: "noam"; or linear up to the peak, and then "constant", or "cosine" down to the minimum
    schedule: str = "noam"

    learning_rate: float = 5.0  # the peak of a constant or cosine schedule; the factor of the Noam schedule
    warmup_steps: int = 10_000  # updates until the rate is at its peak
    decay_steps: int = 0  # of the cosine schedule: updates from the peak to the minimum

    minimum_learning_rate: float = 1e-6  # after the warm-up

    # the update from which on the rate falls linearly to 0, within cooldown_steps; not part of the family's recipe
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

    train_only: str = ""  # a regular expression, such as "joint|prediction": paths without a match are not trained

    # a step is skipped if its gradient norm is more than `skip_norm` times the median of recent norms (or `clip_norm`,
    # if larger); inf never skips a finite step. The limit is high, so that only explosions are skipped: a hard batch
    # should be trained on, and clipping makes it harmless
    skip_norm: float = 1000.0

    skip_window: int = 101  # number of recent norms; until half of them are known, only steps that are not finite skip
    seed: int = 0  # of the new weights, dropout, dither, masks and look-aheads

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be {' or '.join(DTYPES)}, not {self.dtype!r}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}")
        if self.schedule == "cosine" and self.decay_steps < 1:
            raise ConfigError("the cosine schedule needs decay_steps, the updates from the peak to the minimum")
        try:
            re.compile(self.train_only)
        except re.error as error:
            raise ConfigError(f"train_only {self.train_only!r} is not a regular expression ({error})") from None
        for name in ("accumulation", "skip_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "skip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        for name in ("cooldown_from", "cooldown_steps", "decay_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.ctc_weight < 0:
            raise ConfigError(f"ctc_weight must be at least 0, not {self.ctc_weight}")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay must be at least 0 and less than 1, not {self.average_decay}")
        if any(p < 0 for p in self.lookahead_probabilities) or sum(self.lookahead_probabilities or (1,)) <= 0:
            raise ConfigError(f"lookahead_probabilities {self.lookahead_probabilities} are not probabilities")


def learning_rate(recipe: TrainingConfig, width: int) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made, by the recipe's schedule.

    Args:
      width: the encoder's, which only the Noam schedule needs.
    """
    if recipe.schedule == "noam":
        return noam(recipe, width)

    def schedule(updates: ArrayLike) -> Array:
        step, warmup = jnp.asarray(updates, jnp.float32), max(recipe.warmup_steps, 1)
        peak, minimum = recipe.learning_rate, min(recipe.minimum_learning_rate, recipe.learning_rate)
        rate = jnp.asarray(peak, jnp.float32)
        if recipe.schedule == "cosine":
            done = jnp.clip((step - warmup) / recipe.decay_steps, 0, 1)
            rate = minimum + (peak - minimum) * (1 + jnp.cos(jnp.pi * done)) / 2
        cooled = jnp.maximum(_cooled(rate, step, recipe), minimum)
        return jnp.where(step < warmup, peak * (step + 1) / warmup, cooled)  # the first update has a rate above 0

    return schedule


def _cooled(rate: Array, step: Array, recipe: TrainingConfig) -> Array:
    """Returns the rate within the linear cool-down."""
    if not recipe.cooldown_steps:
        return rate
    return rate * jnp.clip(1 - (step - recipe.cooldown_from) / recipe.cooldown_steps, 0, 1)


def noam(recipe: TrainingConfig, width: int) -> optax.Schedule:
    """Returns the learning rate as a function of the number of updates made (Vaswani et al. 2017, 5.3).

    It counts as NeMo does: updates 0 and 1 have the same rate.

    Args:
      width: the encoder's.
    """

    def schedule(updates: ArrayLike) -> Array:
        step, warmup = jnp.maximum(updates, 1).astype(jnp.float32), max(recipe.warmup_steps, 1)
        rate = recipe.learning_rate * width**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)
        rate = _cooled(rate, step, recipe)
        return jnp.where(step > recipe.warmup_steps, jnp.maximum(rate, recipe.minimum_learning_rate), rate)

    return schedule


def optimizer(recipe: TrainingConfig, width: int) -> optax.GradientTransformation:
    """Returns AdamW on the recipe's schedule, after clipping the gradient by its global norm."""
    b1, b2 = recipe.betas
    adamw = optax.adamw(learning_rate(recipe, width), b1=b1, b2=b2, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), adamw)
