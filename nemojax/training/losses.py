"""The losses that a step minimizes: named, weighted, each a function of the forward pass.

A loss of one's own needs no change here. An intermediate CTC loss on the output of encoder block 12:

    from nemojax.training.ctc import ctc_losses
    from nemojax.training.losses import Loss, output_layer, standard_losses

    def intermediate_ctc(model, forward, batch, key, placement):
        def rows(inputs, output, key):
            encoded, lattice = inputs
            return ctc_losses(encoded, *output, *lattice, model.config.blank)

        encoded = model.joint.encoder(forward.blocks[12])
        return placement.by_rows(rows)((encoded, forward.lattice), output_layer(model), key)

    losses = (*standard_losses(recipe), Loss("intermediate_ctc", 0.3, intermediate_ctc, blocks=(12,)))
    state, metrics = train_step(state, batch, config, recipe, losses=losses)  # or Run(experiment, losses=losses)
"""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.errors import ConfigError
from nemojax.model.transducer import Transducer
from nemojax.training.ctc import ctc_losses
from nemojax.training.forward import ONE_DEVICE, Batch, Forward, JointInputs, Keys, Lattice, Placement, forward
from nemojax.training.recipe import TrainingConfig
from nemojax.training.rnnt_loss import reduce_losses, rnnt_loss

# (model, forward, batch, key, placement) -> a loss for each row, [B], 0 for filler. All losses get the same key, or
# None where nothing is drawn; a loss that draws folds a number of its own into it.
LossFunction = Callable[[Transducer, Forward, Batch, Array | None, Placement], Float[Array, " B"]]


class Loss(NamedTuple):
    """A term of the loss: its name in the metrics, its weight in the sum, its function, and the blocks it reads."""

    name: str
    weight: float
    function: LossFunction
    blocks: tuple[int, ...] = ()  # indices of the encoder blocks whose outputs are in `Forward.blocks`


class Counts(NamedTuple):
    """What a batch holds: rows that are not filler, their encoder frames, their labels."""

    rows: Int[Array, ""]
    frames: Int[Array, ""]
    labels: Int[Array, ""]


class LossValues(NamedTuple):
    """The losses of a batch, as means over the rows that are not filler."""

    total: Float[Array, ""]  # the weighted sum, which is minimized
    by_name: dict[str, Float[Array, ""]]  # each loss without its weight
    counts: Counts


class OutputLayer(NamedTuple):
    """The joint network's output layer."""

    kernel: Float[Array, "J V"]
    bias: Float[Array, " V"]


def output_layer(model: Transducer) -> OutputLayer:
    output = model.joint.output
    assert output.bias is not None  # the joint network's output always has one
    return OutputLayer(output.kernel[...], output.bias[...])


@functools.cache  # the same recipe gives the same functions, so a step that was compiled for them is found again
def standard_losses(recipe: TrainingConfig) -> tuple[Loss, ...]:
    """Returns the recipe's losses: `rnnt`, and `ctc` where `ctc_weight` is not zero."""
    rnnt = Loss("rnnt", 1.0, functools.partial(rnnt_rows, fastemit=recipe.fastemit))
    return (rnnt, Loss("ctc", recipe.ctc_weight, ctc_rows)) if recipe.ctc_weight else (rnnt,)


def rnnt_rows(
    model: Transducer, forward: Forward, batch: Batch, key: Array | None, placement: Placement, *, fastemit: float
) -> Float[Array, " B"]:
    """Returns each row's RNN-T loss, with dropout in the joint network where there is a key."""
    config = model.config
    settings: dict[str, Any] = {"blank": config.blank, "fastemit": fastemit, "reduction": "none"}
    settings["dropout"] = config.joint.dropout if key is not None else 0.0

    def rows(inputs: tuple[JointInputs, Lattice], output: OutputLayer, key: Array | None) -> Array:
        (encoded, predicted), (kernel, bias), lattice = inputs[0], output, inputs[1]
        return rnnt_loss(encoded, predicted, kernel, bias, *lattice, **settings, key=key)

    losses: Array = placement.by_rows(rows)((forward.joint, forward.lattice), output_layer(model), key)
    return losses


def ctc_rows(
    model: Transducer, forward: Forward, batch: Batch, key: Array | None, placement: Placement
) -> Float[Array, " B"]:
    """Returns each row's CTC loss through the joint network; see `ctc`."""

    def rows(inputs: tuple[Array, Lattice], output: OutputLayer, key: Array | None) -> Array:
        encoded, lattice = inputs
        return ctc_losses(encoded, output.kernel, output.bias, *lattice, model.config.blank)

    losses: Array = placement.by_rows(rows)((forward.joint.encoded, forward.lattice), output_layer(model), key)
    return losses


def compute_losses(
    model: Transducer,
    batch: Batch,
    lookahead: int | Int[Array, ""],
    key: Array | None,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
    losses: tuple[Loss, ...] | None = None,
) -> LossValues:
    """Returns the mean of each loss and their weighted sum; without a key there is no dropout and no augmentation.

    Args:
      losses: None for `standard_losses(recipe)`.

    Raises:
      ConfigError: there is no loss, or two have the same name.
    """
    losses = standard_losses(recipe) if losses is None else losses
    names = Counter(loss.name for loss in losses)
    if not losses or names.total() > len(names):
        raise ConfigError(f"a step needs losses with different names, not {[loss.name for loss in losses]}")
    blocks = tuple(sorted({index for loss in losses for index in loss.blocks}))
    outputs = forward(model, batch, lookahead, key, recipe, placement, blocks)
    with jax.named_scope("losses"):
        loss_key = Keys.split(key).losses
        rows = {loss.name: loss.function(model, outputs, batch, loss_key, placement) for loss in losses}
        total = functools.reduce(jnp.add, [loss.weight * rows[loss.name] for loss in losses])
        _, frames, labels = outputs.lattice
        mean = functools.partial(reduce_losses, frame_lengths=frames, label_lengths=labels, reduction="mean_batch")
        filled = frames > 0
        count = functools.partial(jnp.sum, dtype=jnp.int32)
        counts = Counts(count(filled), count(frames), count(jnp.where(filled, labels, 0)))
        return LossValues(mean(total), {name: mean(values) for name, values in rows.items()}, counts)
