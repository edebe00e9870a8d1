"""The RNN-T loss in several forms: nemojax's, the same with all logits in memory, and three that run on torch.

A form takes a size, the inputs of `inputs`, whether to compute gradients, and the frames per block of the fused form.
It returns a call without arguments that returns the loss, and facts about its compiled memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LossSize:
    rows: int
    frames: int
    labels: int
    vocabulary: int
    joint_width: int


SIZES = {
    "small": LossSize(2, 50, 20, 129, 256),
    "medium": LossSize(4, 250, 80, 1025, 640),  # four utterances of 20 s, the released models' joint network
    "large": LossSize(32, 250, 80, 1025, 640),  # a batch of a large accelerator
}
Form = Callable[[LossSize, dict[str, np.ndarray], bool, int | None], tuple[Callable[[], float], dict[str, int]]]


def inputs(size: LossSize, seed: int) -> dict[str, np.ndarray]:
    """Makes random projections, output weights and labels."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    return {
        "encoded": normal(size.rows, size.frames, size.joint_width),
        "predicted": normal(size.rows, size.labels + 1, size.joint_width),
        "kernel": normal(size.joint_width, size.vocabulary, scale=size.joint_width**-0.5),
        "bias": normal(size.vocabulary, scale=0.1),
        "labels": rng.integers(0, size.vocabulary - 1, (size.rows, size.labels), np.int32),
        "frame_lengths": np.full(size.rows, size.frames, np.int32),
        "label_lengths": np.full(size.rows, size.labels, np.int32),
    }


def jax_form(
    form: str, size: LossSize, arrays: dict[str, np.ndarray], gradient: bool, frames_per_block: int | None
) -> tuple[Callable[[], float], dict[str, int]]:
    """`fused` is nemojax's loss. The others hold all logits: `logits` with a gradient by hand, `autodiff` without."""
    import jax
    import jax.numpy as jnp

    from nemojax.model.layers import broadcast_vector, einsum
    from nemojax.training.lattice import lattice_loss
    from nemojax.training.rnnt_loss import rnnt_loss, rnnt_loss_logits

    given: dict[str, Any] = {name: jnp.asarray(array) for name, array in arrays.items()}
    weights = {name: given.pop(name) for name in ("encoded", "predicted", "kernel", "bias")}
    blank = size.vocabulary - 1

    def joint_logits(encoded: Any, predicted: Any, kernel: Any, bias: Any) -> Any:
        hidden = jax.nn.relu(encoded[:, :, None] + predicted[:, None])
        return einsum("btsj,jv->btsv", hidden, kernel) + broadcast_vector(bias, 4)

    def fused(weights: dict[str, Any]) -> Any:
        return rnnt_loss(**weights, **given, blank=blank, frames_per_block=frames_per_block)

    def logits(weights: dict[str, Any]) -> Any:
        return rnnt_loss_logits(joint_logits(**weights), **given, blank=blank)

    def autodiff(weights: dict[str, Any]) -> Any:
        log_probs = jax.nn.log_softmax(joint_logits(**weights))
        labels = jnp.pad(given["labels"], ((0, 0), (0, 1)))[:, None, :, None]
        labels = jnp.broadcast_to(labels, (*log_probs.shape[:3], 1))
        log_label = jnp.take_along_axis(log_probs, labels, axis=-1)[..., 0]
        return lattice_loss(log_probs[..., blank], log_label, given["frame_lengths"], given["label_lengths"]).mean()

    loss = {"fused": fused, "logits": logits, "autodiff": autodiff}[form]
    compiled = jax.jit(jax.value_and_grad(loss) if gradient else loss).lower(weights).compile()
    analysis = compiled.memory_analysis()

    def call() -> float:
        return float(jax.tree.leaves(jax.block_until_ready(compiled(weights)))[0])

    return call, {"compiled_bytes": analysis.temp_size_in_bytes} if analysis else {}


def torch_form(
    form: str, size: LossSize, arrays: dict[str, np.ndarray], gradient: bool, frames_per_block: int | None
) -> tuple[Callable[[], float], dict[str, int]]:
    """The joint network and one of three losses, on the GPU where torch has one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    given = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    weights = [given.pop(name).requires_grad_(gradient) for name in ("encoded", "predicted", "kernel", "bias")]
    blank = size.vocabulary - 1
    if form == "torchaudio":
        from torchaudio.functional import rnnt_loss

        loss = partial(rnnt_loss, blank=blank, reduction="none")
        lengths = [given[name] for name in ("labels", "frame_lengths", "label_lengths")]
    else:
        from nemo.collections.asr.losses.rnnt import resolve_rnnt_loss

        loss = resolve_rnnt_loss({"nemo_numba": "warprnnt_numba", "nemo_pytorch": "pytorch"}[form], blank)
        loss.reduction = None
        lengths = [given[name].long() for name in ("labels", "frame_lengths", "label_lengths")]

    def call() -> float:
        encoded, predicted, kernel, bias = weights
        logits = torch.relu(encoded[:, :, None] + predicted[:, None]) @ kernel + bias
        value = loss(logits, *lengths).mean()
        if gradient:
            torch.autograd.grad(value, weights)
        return float(value)

    return call, {}


JAX_FORMS = ("fused", "logits", "autodiff")
TORCH_FORMS = ("torchaudio", "nemo_numba", "nemo_pytorch")
FORMS: dict[str, Form] = {name: partial(jax_form, name) for name in JAX_FORMS}
FORMS |= {name: partial(torch_form, name) for name in TORCH_FORMS}
