"""What a search keeps between steps, and what it emits."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.model.prediction import LSTMState
from nemojax.model.transducer import Transducer


class PredictionState(NamedTuple):
    """Where the prediction network stands after a stream's last label."""

    output: Float[Array, "B J"]  # projected by the joint
    lstm: LSTMState


class Emission(NamedTuple):
    """Labels of one segment; only the first `length` of each row mean anything, the rest is blank."""

    labels: Int[Array, "B U"]
    frames: Int[Array, "B U"]  # encoder frame of each label, counted from the start of the segment
    log_probs: Float[Array, "B U"]  # of each label, given the frame and the labels before it
    length: Int[Array, " B"]


def predict_next(model: Transducer, label: Int[Array, " B"], lstm: LSTMState) -> PredictionState:
    with jax.named_scope("prediction"):
        output, lstm = model.prediction.step(label, lstm)
        return PredictionState(model.joint.prediction(output), lstm)


def initial_prediction(model: Transducer) -> PredictionState:
    """The state before any label, for one stream: the prediction network has seen blank from zeros."""
    return predict_next(model, jnp.full(1, model.config.blank), LSTMState.zeros(model.config, 1))


def where_rows(rows: Array, new, old):
    """`new` in the rows where `rows` is true, `old` elsewhere, for every array of two like pytrees."""
    return jax.tree.map(lambda n, o: jnp.where(rows.reshape(rows.shape + (1,) * (n.ndim - 1)), n, o), new, old)
