"""The loss and its gradient against the two that NeMo has on a CPU: `warprnnt_numba`, its default, and `pytorch`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.training.rnnt_loss import rnnt_loss, rnnt_loss_logits
from tests.parity.conftest import SEED

pytestmark = pytest.mark.parity

REDUCTIONS = ["mean_batch", "mean", "sum", "mean_volume", "none"]
WEIGHTS = [{}, {"fastemit": 5e-3}, {"fastemit": 0.5}, {"clamp": 0.03}, {"fastemit": 0.2, "clamp": 0.01}]


def random_batch(seed: int, least_labels: int = 0):
    """Ragged rows of random shapes: logits, labels, and lengths of which the largest fill the arrays."""
    rng = np.random.default_rng((SEED, seed))
    rows, frames, labels, vocabulary = rng.integers([2, 2, 2, 3], [5, 12, 8, 20])
    frame_lengths = rng.integers(1, frames + 1, rows, np.int32)
    label_lengths = rng.integers(least_labels, labels + 1, rows, np.int32)
    frame_lengths[rng.integers(rows)], label_lengths[rng.integers(rows)] = frames, labels
    if not least_labels:
        label_lengths[rng.permutation(np.flatnonzero(label_lengths < labels))[:1]] = 0
    logits = 2 * rng.standard_normal((rows, frames, labels + 1, vocabulary), np.float32)
    return logits, rng.integers(0, vocabulary - 1, (rows, labels), np.int32), frame_lengths, label_lengths


def nemo_loss(name: str, blank: int, reduction: str, fastemit: float = 0.0, clamp: float = -1.0):
    import torch
    from nemo.collections.asr.losses.rnnt import RNNTLoss

    settings = {"fastemit_lambda": fastemit, "clamp": clamp} if name == "warprnnt_numba" else {}
    reduced = None if reduction == "none" else reduction
    loss = RNNTLoss(num_classes=blank, reduction=reduced, loss_name=name, loss_kwargs=settings)

    def call(logits, *rest):
        targets, input_lengths, target_lengths = (torch.tensor(x, dtype=torch.int64) for x in rest)
        return loss(log_probs=logits, targets=targets, input_lengths=input_lengths, target_lengths=target_lengths)

    return call


def compare(name: str, seed: int, reduction: str, **weights):
    """Loss and gradient of the logits, in a loss that is multiplied by a factor of its own."""
    import torch

    logits, *rest = random_batch(seed, least_labels=int(reduction == "mean"))
    blank = logits.shape[-1] - 1
    theirs = torch.tensor(logits, requires_grad=True)
    expected = nemo_loss(name, blank, reduction, **weights)(theirs, *rest)
    (0.7 * expected).sum().backward()

    def loss(logits):
        value = rnnt_loss_logits(logits, *(jnp.asarray(x) for x in rest), blank=blank, reduction=reduction, **weights)
        return (0.7 * value).sum(), value

    (_, value), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(logits))
    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-5)
    # NeMo's gradient is the exponential of a difference of log-likelihoods of 10 to 100, in float32
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=2e-5)
    if "clamp" in weights and reduction in ("sum", "none"):
        assert np.abs(gradient).max() == np.float32(weights["clamp"])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_numba_loss(reduction, weights):
    compare("warprnnt_numba", REDUCTIONS.index(reduction) + 10 * WEIGHTS.index(weights), reduction, **weights)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pytorch_loss(reduction):
    compare("pytorch", 100 + REDUCTIONS.index(reduction), reduction)


@pytest.mark.parametrize("frames_per_block", [1, 3, None])
def test_fused_joint(frames_per_block):
    """NeMo's joint network and loss, one after the other: the gradients of both projections and of both weights."""
    import torch
    from nemo.collections.asr.modules.rnnt import RNNTJoint

    logits, *rest = random_batch(200 + (frames_per_block or 0))
    rows, frames, positions, vocabulary = logits.shape
    width, blank = 24, vocabulary - 1
    sizes = {"encoder_hidden": width, "pred_hidden": width, "joint_hidden": width, "activation": "relu"}
    joint = RNNTJoint(jointnet=sizes, num_classes=blank, log_softmax=False)
    rng = np.random.default_rng((SEED, 201))
    encoded, predicted = (
        torch.tensor(rng.standard_normal((rows, n, width), np.float32), requires_grad=True) for n in (frames, positions)
    )
    output = joint.joint_net[-1]
    with torch.no_grad():
        output.weight.normal_(generator=torch.Generator().manual_seed(SEED))
    criterion = nemo_loss("warprnnt_numba", blank, "mean_volume", fastemit=5e-3)
    expected = criterion(joint.joint_after_projection(encoded, predicted), *rest)
    expected.backward()

    arrays = [jnp.asarray(x.detach().numpy()) for x in (encoded, predicted, output.weight.T, output.bias)]
    settings = {"fastemit": 5e-3, "reduction": "mean_volume", "frames_per_block": frames_per_block}
    labels, frame_lengths, label_lengths = (jnp.asarray(x) for x in rest)
    lengths = {"labels": labels, "frame_lengths": frame_lengths, "label_lengths": label_lengths}
    loss = jax.jit(jax.value_and_grad(partial(rnnt_loss, blank=blank, **lengths, **settings), (0, 1, 2, 3)))
    value, gradients = loss(*arrays)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    theirs = (encoded.grad, predicted.grad, output.weight.grad.T, output.bias.grad)
    for ours, gradient in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(ours, gradient.numpy(), atol=2e-5 * float(gradient.abs().max()))
