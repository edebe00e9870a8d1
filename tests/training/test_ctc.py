"""The auxiliary loss against a sum over all paths, and what its padding may hold."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.training.ctc import ctc_losses

BLANK = 3


def all_paths(log_probabilities: np.ndarray, labels: list[int]) -> float:
    """Minus the log of the probability of every path that reads as the labels."""
    frames, symbols = log_probabilities.shape
    total = -np.inf
    for path in itertools.product(range(symbols), repeat=frames):
        read = [symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK]
        if read == labels:
            total = np.logaddexp(total, sum(log_probabilities[t, symbol] for t, symbol in enumerate(path)))
    return -total


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    encoded = rng.standard_normal((4, 5, 6)).astype(np.float32)
    kernel, bias = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    labels = np.array([[0, 2, 1], [1, 1, 0], [2, 0, 0], [1, 1, 1]], np.int32)
    return [*map(jnp.asarray, (encoded, kernel, bias, labels, np.array([5, 4, 3, 4]), np.array([3, 2, 0, 3])))]


def test_equals_the_sum_over_all_paths(inputs):
    losses = ctc_losses(*inputs, BLANK)
    encoded, kernel, bias, labels, frames, count = map(np.asarray, inputs)
    logits = np.maximum(encoded, 0) @ kernel + bias
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    for row in range(3):
        expected = all_paths(log_probabilities[row, : frames[row]], labels[row, : count[row]].tolist())
        assert losses[row] == pytest.approx(expected, rel=1e-5)
    assert losses[3] == 0  # three times the same label takes five frames


def test_padding_and_filler_change_nothing(inputs):
    """Padding that repeats a row's last label needs no frame: the second row has just enough of them."""
    encoded, kernel, bias, labels, frames, count = inputs
    frames = frames.at[:2].set(jnp.array([0, 3]))
    beyond = jnp.arange(5)[None] >= frames[:, None]
    poured = jnp.where(beyond[..., None], jnp.nan, encoded)
    other = jnp.where(jnp.arange(3)[None] >= count[:, None], 1, labels)
    value = lambda encoded, labels: ctc_losses(encoded, kernel, bias, labels, frames, count, BLANK).sum()
    want, gradient = jax.value_and_grad(value)(encoded, labels)
    got, poured_gradient = jax.value_and_grad(value)(poured, other)
    assert got == want and np.isfinite(poured_gradient).all() and gradient[1].any()
    np.testing.assert_array_equal(poured_gradient, gradient)
    assert not np.asarray(gradient)[np.asarray(beyond)].any() and not gradient[0].any() and not gradient[3].any()
