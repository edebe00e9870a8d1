"""Settings of training, the learning rate and the optimizer."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import optax

from nemojax.config import ModelConfig
from nemojax.errors import ConfigError
from nemojax.training.augment import SpecAugmentConfig

DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe; the defaults are the family's. Dropout rates and look-aheads are the model's own settings."""

    learning_rate: float = 5.0  # Noam's factor
    warmup_steps: int = 10_000
    minimum_learning_rate: float = 1e-6  # after the warm-up
    # from the update `cooldown_from` on, the rate falls in a straight line, to the minimum after `cooldown_steps` more;
    # 0 for never. Not part of the family's recipe
    cooldown_from: int = 0
    cooldown_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    average_decay: float = 0.0  # of the running average of the weights, which is what is evaluated; 0 for none
    fastemit: float = 5e-3
    ctc_weight: float = 0.0  # of the auxiliary loss in `ctc`; not part of the family's recipe
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    dither: float = 1e-5
    lookahead_probabilities: tuple[float, ...] = ()  # of each of the model's look-aheads; () for uniform
    dtype: str = "bfloat16"  # in which products are computed; weights and sums are float32
    accumulation: int = 1  # parts that a batch is computed in, one after the other
    remat: bool = False  # compute each block's activations twice rather than keep them
    frozen: tuple[str, ...] = ()  # patterns of the paths of parameters that stay as they are, such as "encoder.*"
    # skip a step whose gradient norm is so many times the recent median, or `clip_norm` where that is larger; inf for
    # never. Clipping makes a bad step harmless, and a hard batch must not be skipped each time: only for explosions
    skip_norm: float = 1000.0
    skip_window: int = 101  # recent norms; before half of them are known, only what is not finite is skipped
    seed: int = 0

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be {' or '.join(DTYPES)}, not {self.dtype!r}")
        for name in ("accumulation", "skip_window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "skip_norm"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be greater than 0, not {getattr(self, name)}")
        for name in ("cooldown_from", "cooldown_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        if self.ctc_weight < 0:
            raise ConfigError(f"ctc_weight must be at least 0, not {self.ctc_weight}")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay must be at least 0 and less than 1, not {self.average_decay}")
        if any(p < 0 for p in self.lookahead_probabilities) or sum(self.lookahead_probabilities or (1,)) <= 0:
            raise ConfigError(f"lookahead_probabilities {self.lookahead_probabilities} are not probabilities")


def noam(recipe: TrainingConfig, width: int) -> optax.Schedule:
    """The learning rate after so many updates (Vaswani et al. 2017, 5.3), as NeMo counts: the first two are equal."""

    def schedule(updates):
        step, warmup = jnp.maximum(updates, 1).astype(jnp.float32), max(recipe.warmup_steps, 1)
        rate = recipe.learning_rate * width**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)
        if recipe.cooldown_steps:
            rate *= jnp.clip(1 - (step - recipe.cooldown_from) / recipe.cooldown_steps, 0, 1)
        return jnp.where(step > recipe.warmup_steps, jnp.maximum(rate, recipe.minimum_learning_rate), rate)

    return schedule


def optimizer(config: ModelConfig, recipe: TrainingConfig) -> optax.GradientTransformation:
    b1, b2 = recipe.betas
    schedule = noam(recipe, config.encoder.width)
    adamw = optax.adamw(schedule, b1=b1, b2=b2, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), adamw)
