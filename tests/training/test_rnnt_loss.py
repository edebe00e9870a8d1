from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.training import rnnt_loss as losses
from nemojax.training.rnnt_loss import REDUCTIONS, reduce_losses, rnnt_loss, rnnt_loss_logits
from tests.training.alignments import sum_alignments_of_logits

FRAMES, LABELS, VOCABULARY, WIDTH = 5, 4, 6, 7
BLANK = 2  # neither the first nor the last
LENGTHS = ((5, 4), (3, 2), (1, 3), (4, 0), (0, 2))  # frames and labels of each row; the last is filler


def int32(values) -> jax.Array:
    return jnp.array(values, jnp.int32)


def lengths_of(rows=LENGTHS) -> tuple[jax.Array, jax.Array]:
    frame_lengths, label_lengths = int32(rows).T
    return frame_lengths, label_lengths


def random_labels(seed: int, rows: int) -> np.ndarray:
    """Any labels, blank too: nothing emits it, but its sum over alignments is as well defined."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, (rows, LABELS), np.int32)


def random_joint(seed: int = 0, rows: int = len(LENGTHS)) -> dict[str, jax.Array]:
    key = jax.random.split(jax.random.key(seed), 4)
    return {
        "encoded": jax.random.normal(key[0], (rows, FRAMES, WIDTH)),
        "predicted": jax.random.normal(key[1], (rows, LABELS + 1, WIDTH)),
        "kernel": jax.random.normal(key[2], (WIDTH, VOCABULARY)),
        "bias": jax.random.normal(key[3], (VOCABULARY,)),
    }


def joint_logits(encoded, predicted, kernel, bias):
    hidden = jax.nn.relu(encoded[:, :, None] + predicted[:, None])
    return jnp.einsum("btsj,jv->btsv", hidden, kernel) + bias[None, None, None]


def arguments(labels, rows=LENGTHS):
    return (jnp.asarray(labels), *lengths_of(rows))


def fused(joint, labels, frame_lengths, label_lengths, **settings):
    return rnnt_loss(**joint, labels=labels, frame_lengths=frame_lengths, label_lengths=label_lengths, **settings)


def whole(joint, labels, frame_lengths, label_lengths, **settings):
    return rnnt_loss_logits(joint_logits(**joint), labels, frame_lengths, label_lengths, **settings)


@cache
def compiled(loss, **settings):
    return jax.jit(jax.value_and_grad(partial(loss, blank=BLANK, **settings)))


@cache
def compiled_rows(loss):
    return jax.jit(partial(loss, blank=BLANK, reduction="none"))


def assert_same(got, want, atol=2e-6):
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=2e-6), got, want)


def test_published_values():
    """The example that warp-transducer's tests and those of its descendants use."""
    logits = jnp.array(
        [
            [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.2, 0.8, 0.1]],
            [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.2, 0.1, 0.1], [0.7, 0.1, 0.2, 0.1, 0.1]],
        ]
    )[None]
    loss = lambda x: rnnt_loss_logits(x, int32([[1, 2]]), int32([2]), int32([2]), blank=0, reduction="sum")
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits)
    np.testing.assert_allclose(value, 4.495666, rtol=1e-6)
    expected = [
        [
            [-0.13116688, -0.3999269, 0.17703125, 0.17703125, 0.17703125],
            [-0.18572757, 0.12247056, -0.18168412, 0.12247056, 0.12247056],
            [-0.32091254, 0.06269141, 0.06928472, 0.12624499, 0.06269141],
        ],
        [
            [0.05456069, -0.21824276, 0.05456069, 0.05456069, 0.05456069],
            [0.12073959, 0.12073959, -0.48295835, 0.12073959, 0.12073959],
            [-0.6925882, 0.16871116, 0.18645467, 0.16871116, 0.16871116],
        ],
    ]
    np.testing.assert_allclose(gradient[0], expected, atol=2e-7)


@partial(jax.jit, static_argnames=("fastemit", "clamp"))
def logit_losses(logits, labels, frame_lengths, label_lengths, fastemit, clamp):
    def total(logits):
        y = rnnt_loss_logits(
            logits,
            labels,
            frame_lengths,
            label_lengths,
            blank=BLANK,
            fastemit=fastemit,
            clamp=clamp,
            reduction="none",
        )
        return y.sum(), y

    (_, y), gradient = jax.value_and_grad(total, has_aux=True)(logits)
    return y, gradient


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, FRAMES), st.integers(0, LABELS)), min_size=3, max_size=3),
    st.sampled_from([(0.0, -1.0), (0.3, 0.05)]),
)
def test_loss_and_gradient_are_the_sum_over_alignments(seed, rows, weights):
    fastemit, clamp = weights
    logits = (2 * np.random.default_rng(seed).normal(size=(3, FRAMES, LABELS + 1, VOCABULARY))).astype(np.float32)
    labels = random_labels(seed, rows=3)
    poisoned = logits.copy()
    for row, (frames, count) in enumerate(rows):
        poisoned[row, frames:] = poisoned[row, :, count + 1 :] = np.nan
    y, gradient = logit_losses(poisoned, labels, *lengths_of(rows), fastemit, clamp)
    for row, (frames, count) in enumerate(rows):
        loss, expected = sum_alignments_of_logits(logits[row], labels[row, :count], frames, BLANK, fastemit)
        expected = np.clip(expected, -clamp, clamp) if clamp > 0 else expected
        np.testing.assert_allclose(y[row], loss, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(gradient[row], expected, atol=3e-6)


def test_the_gradient_of_the_sum_over_alignments_is_its_slope():
    logits, labels = np.random.default_rng(0).normal(size=(3, 3, VOCABULARY)), np.array([1, 4])
    _, gradient = sum_alignments_of_logits(logits, labels, 3, BLANK)
    loss = lambda logits: sum_alignments_of_logits(logits, labels, 3, BLANK)[0]
    for index in np.ndindex(logits.shape):
        step = np.zeros(logits.shape)
        step[index] = 1e-5
        np.testing.assert_allclose((loss(logits + step) - loss(logits - step)) / 2e-5, gradient[index], atol=1e-8)


@pytest.mark.parametrize("frames_per_block", [1, 2, 3, 9, None])
def test_blocks_of_frames_change_nothing(frames_per_block):
    joint, labels = random_joint(), arguments(random_labels(0, len(LENGTHS)))
    weights = {"fastemit": 0.2, "clamp": 0.01} if frames_per_block != 3 else {}
    got = compiled(fused, frames_per_block=frames_per_block, **weights)(joint, *labels)
    assert_same(got, compiled(whole, **weights)(joint, *labels))


def test_reductions():
    joint, labels = random_joint(), arguments(random_labels(0, len(LENGTHS)))
    each = np.asarray(compiled_rows(fused)(joint, *labels))
    assert each.shape == (5,) and each[-1] == 0
    expected = {
        "mean_batch": each.sum() / 4,
        "mean": (each[:4] / [4, 2, 3, 1]).mean(),
        "sum": each.sum(),
        "mean_volume": each.sum() / (4 + 2 + 3 + 0),
        "none": each,
    }
    assert tuple(expected) == REDUCTIONS
    for reduction, value in expected.items():
        np.testing.assert_allclose(reduce_losses(jnp.asarray(each), *labels[1:], reduction), value, rtol=1e-6)
    np.testing.assert_allclose(compiled(fused)(joint, *labels)[0], expected["mean_batch"], rtol=1e-6)
    value, _ = compiled(whole, reduction="mean_volume")(joint, *labels)
    np.testing.assert_allclose(value, expected["mean_volume"], rtol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_batch_of_nothing_is_zero(reduction):
    filler = reduce_losses(jnp.zeros(2), int32([0, 0]), int32([0, 3]), reduction)
    assert np.isfinite(filler).all() and not np.asarray(filler).any()


def test_clamp_is_applied_to_the_reduced_loss():
    logits, labels, clamp = joint_logits(**random_joint()), arguments(random_labels(0, len(LENGTHS))), 0.02
    loss = lambda x, clamp: 3 * rnnt_loss_logits(x, *labels, blank=BLANK, clamp=clamp)
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    free = np.asarray(gradient(logits, -1.0))
    assert (np.abs(free) > clamp).any()
    np.testing.assert_allclose(gradient(logits, clamp), np.clip(free, -clamp, clamp), atol=1e-7)


def poisoned(joint, labels):
    """NaN, and labels that do not exist, past every row's lengths; all of a filler row."""
    encoded, predicted, labels = np.array(joint["encoded"]), np.array(joint["predicted"]), labels.copy()
    for row, (frames, count) in enumerate(LENGTHS):
        encoded[row, frames:] = np.nan
        predicted[row, count + 1 if frames else 0 :] = np.nan
        labels[row, count if frames else 0 :] = 9999
    return joint | {"encoded": jnp.asarray(encoded), "predicted": jnp.asarray(predicted)}, labels


def test_what_is_past_the_lengths_is_never_read():
    joint, labels = random_joint(), random_labels(0, len(LENGTHS))
    loss = compiled(fused)
    bad_joint, bad_labels = poisoned(joint, labels)
    value, gradients = loss(bad_joint, *arguments(bad_labels))
    assert_same((value, gradients), loss(joint, *arguments(labels)), atol=0)
    for row, (frames, count) in enumerate(LENGTHS):
        assert not np.asarray(gradients["encoded"][row, frames:]).any()
        assert not np.asarray(gradients["predicted"][row, count + 1 if frames else 0 :]).any()


def test_rows_are_independent():
    joint, labels, losses = random_joint(), random_labels(0, len(LENGTHS)), compiled_rows(fused)
    each = losses(joint, *arguments(labels))
    order = np.array([3, 0, 4, 2, 1])
    shuffled = joint | {name: joint[name][order] for name in ("encoded", "predicted")}
    got = losses(shuffled, *arguments(labels[order], [LENGTHS[i] for i in order]))
    np.testing.assert_allclose(got, each[order], rtol=1e-6)
    garbage = joint | {"encoded": joint["encoded"].at[0].set(jnp.nan)}
    got = losses(garbage, *arguments(labels))
    assert np.isnan(got[0])  # within the lengths NaN is not hidden
    np.testing.assert_allclose(got[1:], each[1:], rtol=1e-6)


@pytest.mark.parametrize("loss", [fused, whole])
@pytest.mark.parametrize("label", [-1, VOCABULARY, 9999])
def test_a_label_that_does_not_exist_is_nan(loss, label):
    labels = random_labels(0, len(LENGTHS))
    labels[1, 1] = label
    got = np.asarray(compiled_rows(loss)(random_joint(), *arguments(labels)))
    assert np.isnan(got[1]) and np.isfinite(np.delete(got, 1)).all()


def subexpressions(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from subexpressions(inner)


def equations(loss, joint, labels):
    """All operations of a loss and its gradient."""
    return list(subexpressions(jax.make_jaxpr(jax.value_and_grad(partial(loss, blank=BLANK)))(joint, *labels).jaxpr))


@pytest.mark.parametrize("narrowed", [("encoded", "predicted"), ("encoded", "predicted", "kernel", "bias")])
def test_bfloat16(narrowed):
    joint, labels = random_joint(), arguments(random_labels(0, len(LENGTHS)))
    narrow = joint | {name: joint[name].astype(jnp.bfloat16) for name in narrowed}
    value, gradients = compiled(fused)(narrow, *labels)
    assert value.dtype == jnp.float32
    exact, expected = compiled(fused)(jax.tree.map(lambda x: x.astype(jnp.float32), narrow), *labels)
    np.testing.assert_allclose(value, exact, rtol=5e-3)
    for name in joint:
        assert gradients[name].dtype == narrow[name].dtype
        error = np.linalg.norm(np.asarray(gradients[name], np.float32) - expected[name])
        assert error < 0.02 * np.linalg.norm(expected[name]), name
    products = [e for e in equations(fused, narrow, labels) if e.primitive.name == "dot_general"]
    assert len(products) == 4  # logits twice, and both their gradients
    assert all(operand.aval.dtype == jnp.bfloat16 for product in products for operand in product.invars)


def test_gradient_with_dropout_is_the_slope():
    joint, direction = random_joint(), random_joint(seed=9)
    labels = arguments(random_labels(0, len(LENGTHS)))
    dropped = partial(fused, blank=BLANK, dropout=0.5, key=jax.random.key(3), frames_per_block=2)
    loss = jax.jit(jax.value_and_grad(dropped))
    value, gradients = loss(joint, *labels)
    assert abs(value - compiled(fused)(joint, *labels)[0]) > 0.1
    along = lambda d: loss(jax.tree.map(lambda x, y: x + d * y, joint, direction), *labels)[0]
    slope = (along(2e-3) - along(-2e-3)) / 4e-3
    expected = sum(jax.tree.leaves(jax.tree.map(lambda g, y: (g * y).sum(), gradients, direction)))
    np.testing.assert_allclose(slope, expected, rtol=2e-3)


def test_dropout_zeroes_its_share_of_hidden_units_and_scales_the_rest():
    """One hidden unit of value 2 and two logits, so that the logits show which nodes dropped it."""
    rows, frames, positions, dropout = 4, 30, 31, 0.2
    encoded, predicted = jnp.ones((rows, frames, 1)), jnp.ones((rows, positions, 1))
    settings = losses.JointSettings(blank=0, clamp=-1.0, dropout=dropout, frames_per_block=10)
    kernel, next_label = jnp.array([[0.0, 1.0]]), jnp.ones((rows, positions), jnp.int32)

    @jax.jit
    def hidden(key):
        log_blank, log_label = losses.joint_log_probs(
            settings, encoded, predicted, kernel, jnp.zeros(2), next_label, key
        )
        return log_label - log_blank

    first, again, other = (np.asarray(hidden(jax.random.key(seed))) for seed in (0, 0, 1))
    kept = np.isclose(first, 2 / (1 - dropout), atol=1e-5)
    assert np.isclose(first[~kept], 0.0, atol=1e-5).all()
    assert abs(kept.mean() - (1 - dropout)) < 0.03
    assert (kept[:, :10] != kept[:, 10:20]).any()  # each block draws anew
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_no_array_over_all_nodes_and_labels():
    """Nor a scatter over the vocabulary; the unfused form shows that this test would see such an array."""
    joint, labels = random_joint(), arguments(random_labels(0, len(LENGTHS)))
    nodes = len(LENGTHS) * FRAMES * (LABELS + 1)

    def largest(loss) -> int:
        operations = equations(loss, joint, labels)
        scatters = [e for e in operations if "scatter" in e.primitive.name]
        assert all(e.invars[0].aval.size <= len(LENGTHS) * (LABELS + 1) for e in scatters)
        return max(out.aval.size for e in operations for out in e.outvars)

    assert largest(partial(fused, frames_per_block=1)) < nodes * min(VOCABULARY, WIDTH) <= largest(whole)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"blank": VOCABULARY}, "blank must be a label below 6, not 6"),
        ({"blank": -1}, "blank must be a label below 6, not -1"),
        ({"reduction": "average"}, "reduction must be one of mean_batch, mean, sum, mean_volume, none, not 'average'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
        ({"dropout": 0.1}, "dropout needs a key"),
        ({"labels": jnp.ones((5, 3), jnp.int32)}, "3 labels need 4 predictions, not 5"),
        ({"encoded": jnp.ones((5, 0, WIDTH))}, "at least one frame"),
    ],
)
def test_mistakes_are_named(change, message):
    frame_lengths, label_lengths = lengths_of()
    correct = {
        **random_joint(),
        "labels": jnp.asarray(random_labels(0, len(LENGTHS))),
        "frame_lengths": frame_lengths,
        "label_lengths": label_lengths,
        "blank": BLANK,
    }
    with pytest.raises(ValueError, match=message):
        rnnt_loss(**(correct | change))


def test_a_block_has_at_least_one_frame(monkeypatch):
    """Also where the logits of one frame are more than a block should have."""
    joint, labels = random_joint(), arguments(random_labels(0, len(LENGTHS)))
    monkeypatch.setattr(losses, "BLOCK_LOGITS", 1)
    assert jax.eval_shape(partial(fused, blank=BLANK), joint, *labels).dtype == jnp.float32
