"""What a search keeps between steps, what it emits, and what a search is."""

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.decoding.graphs import Graphs
from nemojax.model.prediction import LSTMState
from nemojax.model.transducer import Transducer

Tree = TypeVar("Tree")


class PredictionState(NamedTuple):
    """The prediction network after a stream's last label."""

    output: Float[Array, "B J"]  # projected by the joint
    lstm: LSTMState


class Emission(NamedTuple):
    """Labels of one segment. Only the first `length` of each row are meaningful; the rest is blank."""

    labels: Int[Array, "B U"]
    frames: Int[Array, "B U"]  # encoder frame of each label, counted from the start of the segment
    log_probs: Float[Array, "B U"]  # of each label, given the frame and the labels before it
    length: Int[Array, " B"]
    confidences: Float[Array, "B U"] | None = None  # of each label, where the search has a `Confidence`


class BeamEmission(NamedTuple):
    """What the hypotheses of a beam have gained in one segment; the first `length` of each row are meaningful.

    The hypothesis in place W has the labels of the one in place `root` of the beam before the segment, then `labels`.
    """

    labels: Int[Array, "B W U"]
    frames: Int[Array, "B W U"]  # encoder frame of each label, counted from the start of the segment
    log_probs: Float[Array, "B W U"]  # of each label, given the frame and the labels before it
    length: Int[Array, "B W"]
    root: Int[Array, "B W"]
    score: Float[Array, "B W"]  # log-probability of the whole hypothesis, less `total`; -inf in an empty place
    total: Float[Array, " B"]
    confidences: Float[Array, "B W U"] | None = None  # of each label, where the search has a `Confidence`


AnyEmission = Emission | BeamEmission  # of greedy search, of a beam


@runtime_checkable
class FusingSearch(Protocol):
    """A search that can add the scores of graphs: a field `fusion` says whether it does."""

    fusion: bool

    def with_fusion(self) -> "Search":
        """Returns the same search with `fusion`."""
        ...

    def add_fusion(self, state: Any, batch: int) -> Any:
        """Returns the state of `with_fusion` from that of the search without."""
        ...


@runtime_checkable
class Search(Protocol):
    """A search over labels: a hashable value, static under `jax.jit`, whose state is part of the stream's state.

    To add a search, write a frozen dataclass with these two methods and give it to `step` or `StreamBatch`.
    """

    def initial_state(self, prediction: PredictionState, batch: int) -> Any:
        """Returns the state of streams without labels, a pytree with a leading axis B.

        `prediction` is the prediction network before any label, for one stream.
        """
        ...

    def decode(
        self,
        model: Transducer,
        encoded: Float[Array, "B T D"],
        length: Int[Array, " B"],
        state: Any,
        graphs: Graphs | None = None,
    ) -> tuple[AnyEmission, Any]:
        """Continues every stream over the first `length` of its encoded frames.

        `graphs` score labels too; they are given to a search that has a field `fusion`, where that is true.
        """
        ...


def predict_next(model: Transducer, label: Int[Array, " B"], lstm: LSTMState) -> PredictionState:
    """Advances the prediction network by one label."""
    with jax.named_scope("prediction"):
        output, lstm = model.prediction.step(label, lstm)
        return PredictionState(model.joint.prediction(output), lstm)


def predict_extended(
    model: Transducer, extended: Bool[Array, "B W"], label: Int[Array, "B W"], prediction: PredictionState
) -> PredictionState:
    """Advances the prediction network of the hypotheses that have gained a label, if there are any; all are [B, W]."""

    def predict(prediction: PredictionState) -> PredictionState:
        flat: PredictionState = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), prediction)
        new = predict_next(model, jnp.maximum(label, 0).reshape(-1), flat.lstm)
        flat = where_rows(extended.reshape(-1), new, flat)
        after: PredictionState = jax.tree.map(lambda x: x.reshape(*label.shape, -1), flat)
        return after

    if not model.prediction.only_after_labels:
        return predict(prediction)
    advanced: PredictionState = jax.lax.cond(extended.any(), predict, lambda unchanged: unchanged, prediction)
    return advanced


def initial_prediction(model: Transducer) -> PredictionState:
    """Returns the state before any label, for one stream: the prediction network has seen blank from zeros."""
    return predict_next(model, jnp.full(1, model.config.blank, jnp.int32), model.prediction.initial_cache(1))


def where_rows(mask: Bool[Array, " B"], new: Tree, old: Tree) -> Tree:
    """Takes the rows of `new` where `mask` is true and those of `old` elsewhere, in every array of two like pytrees.

    An array that both share stays as it is.
    """

    def choose(n: Array, o: Array) -> Array:
        return n if n is o else jnp.where(mask.reshape(mask.shape + (1,) * (n.ndim - 1)), n, o)

    rows: Tree = jax.tree.map(choose, new, old)
    return rows
