"""The update of the state from a gradient, on a few numbers in the place of a model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nemojax.training.recipe import TrainingConfig, noam, optimizer
from nemojax.training.state import TrainState
from nemojax.training.update import apply_gradient, averaged, is_acceptable

WIDTH = 64
RECIPE = TrainingConfig(
    learning_rate=0.5, warmup_steps=10, frozen=("frozen.*",), skip_norm=4.0, skip_window=5, average_decay=0.2
)
START = {"a": jnp.array([1.0, -2.0, 3.0]), "b.kernel": jnp.array([[0.5], [0.1]]), "frozen.a": jnp.ones(2)}
GRADIENT = {"a": jnp.array([0.3, -0.2, 0.1]), "b.kernel": jnp.array([[0.2], [-0.4]])}


@pytest.fixture(scope="module")
def state():
    trained = {name: START[name] for name in GRADIENT}
    zero = jnp.int32(0)
    transform = optimizer(RECIPE, WIDTH).init(trained)
    return TrainState(zero, START, trained, transform, zero, zero, jnp.full(5, jnp.inf), jnp.uint32(7))


@pytest.fixture(scope="module")
def update():
    """apply_gradient(state, loss, gradient)"""
    return jax.jit(partial(apply_gradient, recipe=RECIPE, width=WIDTH))


def scaled(factor):
    return jax.tree.map(lambda g: g * factor, GRADIENT)


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_an_update_is_the_optimizers(state, update):
    after, numbers = update(state, 1.0, GRADIENT)
    change, optimizer_state = optimizer(RECIPE, WIDTH).update(GRADIENT, state.optimizer, state.average)
    wanted = optax.apply_updates({name: START[name] for name in GRADIENT}, change)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), after.parameters, wanted | {"frozen.a": jnp.ones(2)})
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), after.optimizer, optimizer_state)
    norm = np.sqrt(sum(np.square(g).sum() for g in GRADIENT.values()))
    np.testing.assert_allclose(numbers.gradient_norm, norm, rtol=1e-6)
    np.testing.assert_allclose(after.norms, [norm, *[np.inf] * 4], rtol=1e-6)
    assert numbers.learning_rate == noam(RECIPE, WIDTH)(0) and not numbers.skipped
    assert (after.step, after.skipped, after.skipped_in_a_row, after.seed) == (1, 0, 0, 7)


def test_norm_is_reported_before_clipping_and_fills_the_window_in_turn(state, update):
    norm = float(optax.global_norm(GRADIENT))
    factors = (1.0, 2.0, 5.0, 3.0, 4.0, 6.0, 7.0)
    for factor in factors:
        state, numbers = update(state, 1.0, scaled(factor))
        np.testing.assert_allclose(numbers.gradient_norm, factor * norm, rtol=1e-5)
    np.testing.assert_allclose(state.norms, np.array([6.0, 7.0, 5.0, 3.0, 4.0]) * norm, rtol=1e-5)


@pytest.mark.parametrize("cause", ["loss", "gradient", "norm"])
def test_a_skipped_step_changes_counters_alone(state, update, cause):
    """The steps after it are what they would have been without it: rate, optimizer, average, window."""
    before, _ = update(state, 1.0, GRADIENT)
    calm, calm_numbers = update(before, 1.0, scaled(2.0))
    if cause == "norm":
        before = before._replace(norms=jnp.full(5, 1.0))
        calm, calm_numbers = update(before, 1.0, scaled(2.0))
    bad = {"loss": (jnp.nan, GRADIENT), "gradient": (1.0, scaled(jnp.inf)), "norm": (1.0, scaled(50.0))}[cause]
    after = before
    for count in (1, 2):
        after, numbers = update(after, *bad)
        assert numbers.skipped and numbers.learning_rate == calm_numbers.learning_rate
        counters = {"step": 1 + count, "skipped": count, "skipped_in_a_row": count}
        assert_equal(after, before._replace(**{name: np.int32(value) for name, value in counters.items()}))
    recovered, numbers = update(after, 1.0, scaled(2.0))
    assert not numbers.skipped and numbers.learning_rate == calm_numbers.learning_rate
    assert_equal(recovered, calm._replace(step=np.int32(4), skipped=np.int32(2), skipped_in_a_row=np.int32(0)))


def test_the_limit_is_a_multiple_of_the_median_norm():
    recipe = TrainingConfig(skip_norm=3.0, clip_norm=0.1, skip_window=5)
    accept = lambda norm, norms, loss=1.0: bool(
        is_acceptable(jnp.float32(loss), jnp.float32(norm), jnp.array(norms), recipe)
    )
    norms = [40.0, 1.0, 2.0, 1.5, 10.0]  # the median is 2
    assert accept(5.9, norms) and accept(6.0, norms) and not accept(6.1, norms)
    assert not accept(np.nan, norms) and not accept(np.inf, norms) and not accept(1.0, norms, np.nan)
    assert not accept(1.0, norms, np.inf)
    # no limit until half of the window is known
    assert accept(1e9, [np.inf, 1.0, np.inf, 1.0, np.inf]) and not accept(1e9, [1.0, 1.0, np.inf, 1.0, np.inf])
    assert not accept(np.inf, [np.inf] * 5)


def test_the_limit_is_at_least_a_multiple_of_the_clip_norm():
    recipe = TrainingConfig(skip_norm=3.0, clip_norm=2.0, skip_window=3)
    small = jnp.full(3, 1e-6)
    assert is_acceptable(jnp.float32(1), jnp.float32(5.9), small, recipe)
    assert not is_acceptable(jnp.float32(1), jnp.float32(6.1), small, recipe)


def test_the_average_follows_trained_parameters(state, update):
    """It keeps a tenth of the start after the first update, and 2 / 11 of itself at most, later `average_decay`."""
    first, _ = update(state, 1.0, GRADIENT)
    second, _ = update(first, 1.0, GRADIENT)
    assert set(second.average) == set(GRADIENT)
    for name in GRADIENT:
        expected = 0.1 * START[name] + 0.9 * first.parameters[name]
        np.testing.assert_allclose(first.average[name], expected, atol=1e-6)
        expected = 2 / 11 * first.average[name] + 9 / 11 * second.parameters[name]
        np.testing.assert_allclose(second.average[name], expected, atol=1e-6)
    late = averaged({"x": jnp.ones(1)}, {"x": jnp.zeros(1)}, jnp.int32(10**6), 0.2)
    assert late["x"][0] == np.float32(0.2)
