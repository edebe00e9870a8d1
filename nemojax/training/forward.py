"""The forward pass of training, with the intermediate outputs that losses start from.

It is the streaming forward pass: a whole utterance from an empty state, its samples preceded by the virtual history,
through `streaming.log_mel_segment` and the encoder's own step. The look-ahead is traced, so one compilation per shape
of batch serves every look-ahead.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax import streaming
from nemojax.model.layers import split_key
from nemojax.model.transducer import Transducer
from nemojax.streaming import Segment
from nemojax.training import augment
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import Parameters


class Batch(NamedTuple):
    """The rows of a step. A row without audio is filler: its sample length is 0, and no loss or count includes it.

    `samples` are laid out as a stream's first segment: `config.history_samples` of virtual history, then the
    utterance. N is a whole number of encoder frames; the data pipeline makes it whole chunks at every look-ahead.
    `sample_lengths` include the history. Values beyond the lengths never change a result.
    """

    samples: Float[Array, "B N"]
    sample_lengths: Int[Array, " B"]
    labels: Int[Array, "B U"]
    label_lengths: Int[Array, " B"]


class Placement(NamedTuple):
    """How a step is spread over devices; `sharding.placement` makes one. The default is a single device.

    Attributes:
      gather: makes every parameter whole on every device.
      by_rows: wraps function(rows, shared, key), where each array in `rows` has a leading axis B, so that each device
        computes its own rows.
    """

    gather: Callable[[Parameters], Parameters] = lambda parameters: parameters
    by_rows: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function


ONE_DEVICE = Placement()


class Keys(NamedTuple):
    """The random key of each part that draws; None where nothing is drawn."""

    dither: Array | None
    masks: Array | None
    encoder: Array | None
    prediction: Array | None
    losses: Array | None

    @classmethod
    def split(cls, key: Array | None) -> "Keys":
        return cls(*split_key(key, len(cls._fields)))


class JointInputs(NamedTuple):
    """The two projections that the joint network adds, S = U + 1."""

    encoded: Float[Array, "B T J"]
    predicted: Float[Array, "B S J"]


class Lattice(NamedTuple):
    """Labels and lengths, which span the lattice of alignments."""

    labels: Int[Array, "B U"]
    frame_lengths: Int[Array, " B"]
    label_lengths: Int[Array, " B"]


class Forward(NamedTuple):
    """The outputs of the forward pass. Under `jax.jit` an output that no loss reads is neither computed nor kept.

    Attributes:
      log_mel: after SpecAugment.
      blocks: outputs of the encoder blocks that were asked for, by index from 0; zero at invalid frames.
      encoded: the encoder's output; zero at invalid frames.
      predicted: the prediction network's outputs before the first label and after each label.
      joint: `encoded` and `predicted`, projected for the joint network.
      lattice: the batch's labels, with the number of encoder frames and labels in each row.
    """

    log_mel: Float[Array, "B F M"]
    blocks: dict[int, Float[Array, "B T D"]]
    encoded: Float[Array, "B T D"]
    predicted: Float[Array, "B S P"]
    joint: JointInputs
    lattice: Lattice


def forward(
    model: Transducer,
    batch: Batch,
    lookahead: int | Int[Array, ""],
    key: Array | None,
    recipe: TrainingConfig,
    placement: Placement = ONE_DEVICE,
    blocks: tuple[int, ...] = (),
) -> Forward:
    """Returns the outputs of the forward pass; without a key there is no dropout and no augmentation.

    Products are computed in the type of the model's kernels.

    Args:
      blocks: indices of the encoder blocks whose outputs are returned.

    Raises:
      ValueError: the samples are not whole encoder frames, or the encoder has no such block.
    """
    config, (rows, samples) = model.config, batch.samples.shape
    if samples == 0 or samples % config.frame_samples:
        raise ValueError(f"a batch must hold whole encoder frames of {config.frame_samples} samples, not {samples}")
    for index in blocks:
        if not 0 <= index < config.encoder.layers:
            raise ValueError(f"there is no encoder block {index}; they are 0 to {config.encoder.layers - 1}")
    keys = Keys.split(key)
    dithered = augment.dither(batch.samples, recipe.dither, keys.dither)
    segment = Segment(dithered, batch.sample_lengths, jnp.ones(rows, bool), jnp.zeros(rows, bool))
    constants = streaming.prepare(model)
    state = streaming.init_state(model, constants, rows)
    log_mel_segment = placement.by_rows(lambda rows, shared, key: streaming.log_mel_segment(config, *rows))
    log_mel, log_mel_mask, _ = log_mel_segment((state, segment), (), None)
    log_mel = augment.spec_augment(log_mel, log_mel_mask, recipe.spec_augment, keys.masks)
    with jax.named_scope("encoder"):
        encoded, mask, _, outputs = model.encoder.step_with_blocks(
            log_mel, log_mel_mask, state.encoder, constants.positions, lookahead + 1, keys.encoder, remat=recipe.remat
        )
    with jax.named_scope("prediction"):
        predicted = model.prediction.sequence(batch.labels, keys.prediction)
    with jax.named_scope("joint"):
        joint = JointInputs(model.joint.encoder(encoded), model.joint.prediction(predicted))
    return Forward(
        log_mel=log_mel,
        blocks={index: jnp.where(mask[..., None], outputs[index], 0.0) for index in blocks},
        encoded=encoded,
        predicted=predicted,
        joint=joint,
        lattice=Lattice(batch.labels, mask.sum(1, dtype=jnp.int32), batch.label_lengths),
    )
