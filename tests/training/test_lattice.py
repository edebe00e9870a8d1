import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.training import lattice
from nemojax.training.lattice import lattice_loss
from tests.training.alignments import sum_alignments

FRAMES, POSITIONS = 5, 5


@jax.jit
def losses_and_gradients(log_blank, log_label, frame_lengths, label_lengths):
    total = lambda *nodes: (lambda y: (y.sum(), y))(lattice_loss(*nodes, frame_lengths, label_lengths))
    (_, losses), gradients = jax.value_and_grad(total, (0, 1), has_aux=True)(log_blank, log_label)
    return losses, gradients


def random_nodes(seed: int, rows: int, frames: int = FRAMES, positions: int = POSITIONS, scale: float = 2.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(2, rows, frames, positions)) - scale).astype(np.float32)


def float64_lattice(log_blank: np.ndarray, log_label: np.ndarray):
    """Row by row rather than along diagonals; a row's labels are one cumulative sum in the log semiring."""
    frames, positions = log_blank.shape
    blank, label = log_blank.astype(np.float64), log_label.astype(np.float64)
    label_sum = np.concatenate([np.zeros((frames, 1)), np.cumsum(label[:, :-1], axis=1)], axis=1)
    alpha, beta = np.empty((frames, positions)), np.full((frames + 1, positions), -np.inf)
    entering = np.where(np.arange(positions) == 0, 0.0, -np.inf)
    for t in range(frames):
        alpha[t] = label_sum[t] + np.logaddexp.accumulate(entering - label_sum[t])
        entering = alpha[t] + blank[t]
    beta[frames, -1] = 0.0
    for t in reversed(range(frames)):
        leaving = (beta[t + 1] + blank[t])[::-1]
        rest = (label_sum[t, -1] - label_sum[t])[::-1]
        beta[t] = (rest + np.logaddexp.accumulate(leaving - rest))[::-1]
    total = alpha[-1, -1] + blank[-1, -1]
    labels = np.zeros_like(label)
    labels[:, :-1] = np.exp(alpha[:, :-1] + label[:, :-1] + beta[:-1, 1:] - total)
    return -total, np.exp(alpha + blank + beta[1:] - total), labels


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, FRAMES), st.integers(0, POSITIONS - 1)), min_size=3, max_size=3),
)
def test_loss_and_gradient_are_the_sum_over_alignments(seed, lengths):
    log_blank, log_label = random_nodes(seed, rows=3)
    for row, (frames, labels) in enumerate(lengths):  # what is past the lengths is poison
        log_blank[row, frames:] = log_label[row, frames:] = np.nan
        log_blank[row, :, labels + 1 :] = log_label[row, :, labels:] = np.nan
    frame_lengths, label_lengths = jnp.array(lengths, jnp.int32).T
    losses, (d_blank, d_label) = losses_and_gradients(log_blank, log_label, frame_lengths, label_lengths)
    for row, (frames, labels) in enumerate(lengths):
        loss, blank_share, label_share = sum_alignments(log_blank[row], log_label[row], frames, labels)
        np.testing.assert_allclose(losses[row], loss, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(d_blank[row], -blank_share, atol=2e-6)
        np.testing.assert_allclose(d_label[row], -label_share, atol=2e-6)


@pytest.mark.parametrize("mean,scale", [(-7.0, 1.0), (-3.0, 4.0), (-0.5, 0.3)])
def test_float32_holds_over_a_thousand_frames(mean, scale):
    frames, positions = 1000, 301
    log_blank, log_label = random_nodes(0, 1, frames, positions, scale) + np.float32(mean + scale)
    length = lambda n: jnp.array([n], jnp.int32)
    losses, (d_blank, d_label) = losses_and_gradients(log_blank, log_label, length(frames), length(positions - 1))
    loss, blank_share, label_share = float64_lattice(log_blank[0], log_label[0])
    np.testing.assert_allclose(losses[0], loss, rtol=1e-5)
    # a gradient from the two variables less the whole likelihood, not normalized per diagonal, is 3e-3 off
    error = np.abs(d_blank[0] + blank_share).sum() + np.abs(d_label[0] + label_share).sum()
    assert error < 5e-5 * (blank_share.sum() + label_share.sum())
    crossed = np.asarray(lattice._skew(d_blank) + lattice._skew(jnp.asarray(d_label)))[:, 0]
    crossed = np.where(crossed < lattice.NEVER / 2, 0.0, crossed).sum(-1)
    np.testing.assert_allclose(crossed, -1.0, rtol=1e-5)


def test_the_float64_lattice_is_the_sum_over_alignments():
    log_blank, log_label = random_nodes(5, 1)[:, 0]
    expected = sum_alignments(log_blank, log_label, FRAMES, POSITIONS - 1)
    for got, want in zip(float64_lattice(log_blank, log_label), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-12)


def test_what_has_no_alignment():
    """No frames: zero. Probability zero: inf. Lengths beyond the arrays: NaN. The gradient is zero for all."""
    log_blank, log_label = random_nodes(1, rows=7)
    log_label[2, :, 1] = -np.inf  # the second label cannot follow
    frame_lengths = jnp.array([0, 0, 5, 6, 5, -1, 4], jnp.int32)
    label_lengths = jnp.array([0, 3, 3, 1, 5, 1, 2], jnp.int32)
    losses, gradients = losses_and_gradients(log_blank, log_label, frame_lengths, label_lengths)
    np.testing.assert_array_equal(losses[:6], [0.0, 0.0, np.inf, np.nan, np.nan, np.nan])
    assert np.isfinite(losses[6])
    for gradient in gradients:
        assert not np.asarray(gradient[:6]).any() and np.asarray(gradient[6]).any()


def test_a_move_of_probability_zero_is_avoided():
    log_blank, log_label = random_nodes(2, rows=1)
    log_label[0, :4, 0] = -np.inf  # the first label waits for the last frame,
    log_blank[0, 0, 1:] = -np.inf  # and some positions that it would lead to are shut off twice
    lengths = jnp.array([FRAMES], jnp.int32), jnp.array([POSITIONS - 1], jnp.int32)
    losses, (d_blank, d_label) = losses_and_gradients(log_blank, log_label, *lengths)
    only_path = log_blank[0, :4, 0].sum() + log_label[0, 4, :-1].sum() + log_blank[0, 4, -1]
    np.testing.assert_allclose(losses[0], -only_path, rtol=1e-6)
    np.testing.assert_allclose(d_label[0, 4, :-1], -1.0, rtol=1e-6)
    assert np.isfinite(d_blank).all() and not np.asarray(d_label[0, :4]).any()


def test_nan_inside_the_lattice_is_not_hidden():
    log_blank, log_label = random_nodes(3, rows=2)
    log_blank[0, 2, 1] = np.nan
    lengths = jnp.array([FRAMES] * 2, jnp.int32), jnp.array([3, 3], jnp.int32)
    losses, gradients = losses_and_gradients(log_blank, log_label, *lengths)
    assert np.isnan(losses[0]) and np.isfinite(losses[1])
    assert np.isnan(gradients[0][0]).any() and all(np.isfinite(g[1]).all() for g in gradients)


def test_fastemit_scales_the_loss_and_the_labels_alone():
    log_blank, log_label = (jnp.asarray(x) for x in random_nodes(4, rows=2))
    lengths = jnp.array([5, 3], jnp.int32), jnp.array([4, 2], jnp.int32)
    loss = lambda weight: lambda *nodes: lattice_loss(*nodes, *lengths, fastemit=weight).sum()
    value_and_grad = lambda weight: jax.jit(jax.value_and_grad(loss(weight), (0, 1)))(log_blank, log_label)
    plain, (plain_blank, plain_label) = value_and_grad(0.0)
    scaled, (scaled_blank, scaled_label) = value_and_grad(0.25)
    np.testing.assert_allclose(scaled, 1.25 * plain, rtol=1e-6)
    np.testing.assert_array_equal(scaled_blank, plain_blank)
    np.testing.assert_allclose(scaled_label, 1.25 * plain_label, rtol=1e-6)


@pytest.mark.parametrize("frames,positions", [(1, 1), (1, 4), (4, 1), (5, 3)])
def test_skewing_puts_each_node_on_its_diagonal(frames, positions):
    nodes = jax.random.normal(jax.random.key(0), (2, frames, positions))
    skewed = lattice._skew(nodes)
    expected = np.full(skewed.shape, lattice.NEVER, np.float32)
    for t in range(frames):
        for u in range(positions):
            expected[t + u, :, u] = nodes[:, t, u]
    np.testing.assert_array_equal(skewed, expected)
    np.testing.assert_array_equal(lattice._unskew(skewed), nodes)
