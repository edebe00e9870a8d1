"""The learning rate and the optimizer, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.errors import ConfigError
from nemojax.training.recipe import TrainingConfig, learning_rate, noam, optimizer

WIDTH = 512


def test_noam_schedule():
    schedule = noam(TrainingConfig(), WIDTH)
    peak = 5.0 * WIDTH**-0.5 * 10_000**-0.5
    np.testing.assert_allclose(schedule(10_000), peak, rtol=1e-6)
    np.testing.assert_allclose(schedule(5_000), peak / 2, rtol=1e-6)
    np.testing.assert_allclose(schedule(40_000), peak / 2, rtol=1e-6)
    np.testing.assert_allclose([schedule(0), schedule(1), schedule(2)], [peak / 1e4, peak / 1e4, peak / 5e3], rtol=1e-6)
    low = noam(TrainingConfig(minimum_learning_rate=1e-3), WIDTH)
    assert low(1) < 1e-5 and low(10_000_000) == np.float32(1e-3)


def test_linear_cooldown():
    usual = noam(TrainingConfig(), WIDTH)
    cooled = noam(TrainingConfig(cooldown_from=20_000, cooldown_steps=1_000), WIDTH)
    assert cooled(20_000) == usual(20_000) and cooled(500) == usual(500)
    np.testing.assert_allclose(
        [cooled(20_250), cooled(20_750)], [usual(20_250) * 0.75, usual(20_750) * 0.25], rtol=1e-5
    )
    assert cooled(21_000) == cooled(30_000) == np.float32(1e-6)


def adamw(parameter, gradients, rates, *, betas, weight_decay, clip_norm):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) in float64, on gradients clipped by their norm."""
    (b1, b2), first, second = betas, np.zeros_like(parameter), np.zeros_like(parameter)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        gradient = gradient * min(1.0, clip_norm / np.linalg.norm(gradient))
        first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
        direction = first / (1 - b1**step) / (np.sqrt(second / (1 - b2**step)) + 1e-8)
        parameter = parameter - rate * (direction + weight_decay * parameter)
        yield parameter


def test_optimizer_is_adamw_on_clipped_gradients():
    recipe = TrainingConfig(learning_rate=2.0, warmup_steps=3, betas=(0.8, 0.95), weight_decay=0.3, clip_norm=0.7)
    rng = np.random.default_rng(0)
    start = rng.normal(size=5)
    gradients = [scale * rng.normal(size=5) for scale in (0.1, 20.0, 0.3, 5.0, 0.01)]
    assert np.linalg.norm(gradients[0]) < recipe.clip_norm < np.linalg.norm(gradients[1])
    rates = [float(noam(recipe, WIDTH)(update)) for update in range(5)]
    expected = adamw(start, gradients, rates, betas=(0.8, 0.95), weight_decay=0.3, clip_norm=0.7)

    transform = optimizer(recipe, WIDTH)
    update = jax.jit(transform.update)
    # two parameters: the gradient is clipped by the norm of both
    parameters = {"a": jnp.asarray(start[:2], jnp.float32), "b": jnp.asarray(start[2:], jnp.float32)}
    state = transform.init(parameters)
    for gradient, wanted in zip(gradients, expected, strict=True):
        parts = {"a": jnp.asarray(gradient[:2], jnp.float32), "b": jnp.asarray(gradient[2:], jnp.float32)}
        change, state = update(parts, state, parameters)
        parameters = jax.tree.map(jnp.add, parameters, change)
        np.testing.assert_allclose(np.concatenate([parameters["a"], parameters["b"]]), wanted, rtol=1e-5)


def test_defaults_are_the_familys():
    recipe = TrainingConfig()
    assert (recipe.learning_rate, recipe.warmup_steps, recipe.minimum_learning_rate) == (5.0, 10_000, 1e-6)
    assert (recipe.betas, recipe.weight_decay, recipe.clip_norm) == ((0.9, 0.98), 1e-3, 1.0)
    assert (recipe.fastemit, recipe.dither, recipe.ctc_weight, recipe.average_decay) == (5e-3, 1e-5, 0.0, 0.0)
    masks = recipe.spec_augment
    assert (masks.frequency_masks, masks.frequency_width_bins, masks.time_masks, masks.time_width) == (2, 27, 10, 0.05)
    assert (recipe.cooldown_from, recipe.cooldown_steps, recipe.frozen, recipe.accumulation) == (0, 0, (), 1)
    assert (recipe.skip_norm, recipe.skip_window, recipe.dtype, recipe.remat) == (1000.0, 101, "bfloat16", False)
    assert (recipe.lookahead_probabilities, recipe.seed, masks.value) == ((), 0, 0.0)


def test_settings_at_their_limits():
    TrainingConfig(accumulation=1, skip_window=1, cooldown_from=0, cooldown_steps=0, ctc_weight=0.0, average_decay=0.0)
    TrainingConfig(average_decay=0.9999, skip_norm=float("inf"), dtype="float32", lookahead_probabilities=(0.0, 2.0))
    schedule = noam(TrainingConfig(warmup_steps=0), WIDTH)
    np.testing.assert_allclose([schedule(1), schedule(4)], [5.0 * WIDTH**-0.5, 2.5 * WIDTH**-0.5], rtol=1e-6)
    # the minimum holds after the warm-up, not at its last update
    low = noam(TrainingConfig(warmup_steps=4, minimum_learning_rate=10.0), WIDTH)
    np.testing.assert_allclose([low(4), low(5)], [5.0 * WIDTH**-0.5 / 2, 10.0], rtol=1e-6)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"dtype": "float16"}, "dtype must be bfloat16 or float32, not 'float16'"),
        ({"accumulation": 0}, "accumulation must be at least 1, not 0"),
        ({"skip_window": 0}, "skip_window must be at least 1, not 0"),
        ({"clip_norm": 0.0}, "clip_norm must be greater than 0, not 0.0"),
        ({"skip_norm": float("nan")}, "skip_norm must be greater than 0, not nan"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and less than 1, not 1.0"),
        ({"ctc_weight": -1.0}, "ctc_weight must be at least 0, not -1.0"),
        ({"cooldown_steps": -1}, "cooldown_steps must be at least 0, not -1"),
        ({"cooldown_from": -1}, "cooldown_from must be at least 0, not -1"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, not 0.0"),
        ({"average_decay": -0.1}, "average_decay must be at least 0 and less than 1, not -0.1"),
        ({"lookahead_probabilities": (-1.0, 2.0)}, "lookahead_probabilities (-1.0, 2.0) are not probabilities"),
        ({"lookahead_probabilities": (0.0, 0.0)}, "lookahead_probabilities (0.0, 0.0) are not probabilities"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**settings)
    assert str(caught.value) == message


def test_plain_schedules():
    constant = learning_rate(TrainingConfig(schedule="constant", learning_rate=3e-4, warmup_steps=10), WIDTH)
    np.testing.assert_allclose([constant(0), constant(4)], [3e-5, 1.5e-4], rtol=1e-6)  # linear; never 0
    assert constant(10) == constant(10_000) == np.float32(3e-4)
    recipe = TrainingConfig(schedule="cosine", learning_rate=2e-3, warmup_steps=10, decay_steps=100)
    cosine = learning_rate(recipe, WIDTH)
    expected = [2e-3, 1e-6 + (2e-3 - 1e-6) * (1 + np.cos(np.pi / 4)) / 2, (2e-3 + 1e-6) / 2, 1e-6, 1e-6]
    np.testing.assert_allclose([cosine(step) for step in (10, 35, 60, 110, 500)], expected, rtol=1e-5)
    cooled = TrainingConfig(schedule="constant", learning_rate=1.0, warmup_steps=1, cooldown_from=10, cooldown_steps=10)
    assert learning_rate(cooled, WIDTH)(15) == 0.5
    assert learning_rate(TrainingConfig(), WIDTH)(500) == noam(TrainingConfig(), WIDTH)(500)


@pytest.mark.parametrize(
    "settings, sentence",
    [
        ({"schedule": "step"}, "schedule must be one of noam, constant, cosine, not 'step'"),
        ({"schedule": "cosine"}, "the cosine schedule needs decay_steps, the updates from the peak to the minimum"),
        ({"decay_steps": -1}, "decay_steps must be at least 0, not -1"),
        (
            {"train_only": "("},
            "train_only '(' is not a regular expression (missing ), unterminated subpattern at position 0)",
        ),
    ],
)
def test_schedules_and_patterns_that_are_wrong(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**settings)
    assert str(caught.value) == sentence
