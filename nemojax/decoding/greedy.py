"""Greedy RNN-T search as one bounded while-loop that runs once per label, not once per frame.

Each stream scores a window of frames with its present prediction and takes the first label that is not blank, or moves
past the window (label-looping: Bataev et al. 2024, arXiv 2406.06220). The result is that of the two nested loops over
frames and labels, whatever the window.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nemojax.checks import check_count, check_seconds
from nemojax.config import ModelConfig
from nemojax.decoding.confidence import Confidence
from nemojax.decoding.fusion import Fused, FusionState, best_label, enter, follow, initial_fusion
from nemojax.decoding.graphs import Graphs
from nemojax.decoding.state import Emission, PredictionState, predict_next, where_rows
from nemojax.model.transducer import Transducer


class ResetState(NamedTuple):
    """The state of a greedy search that resets the prediction network after a pause."""

    prediction: PredictionState
    initial: PredictionState  # before any label
    blanks: Int[Array, " B"]  # frames since the last label, counted until the network is reset


class _Cursor(NamedTuple):
    frame: Int[Array, " B"]
    emitted: Int[Array, " B"]  # labels emitted at `frame`
    last: Int[Array, " B"]  # frame of the last label; negative if it is in an earlier segment
    prediction: PredictionState
    emission: Emission
    fusion: FusionState | None


@dataclass(frozen=True)
class Greedy:
    """Greedy search: the most probable label at each frame.

    Its state is the prediction network's. `window_frames` are scored at once: it changes the speed, not the result;
    windows of more frames than 14 are mostly wasted on speech.

    With `reset_prediction_after_s` the prediction network begins anew after that many seconds without a label, as at
    the start of a stream; the encoder keeps its context. It is for models that lose words after a pause. The seconds
    are counted in encoder frames, so the result does not depend on how a recording is cut into segments.

    With `fusion` the scores of each stream's graphs, a language model and phrases, are added to those of labels
    (shallow fusion; Andrusenko et al. 2025, arXiv 2505.22857). Whether a label is emitted is decided before, without
    them: they replace labels, and neither add nor remove one.

    With a `confidence`, the emission has the confidences of its labels.

    Raises:
      ConfigError: `window_frames` is not at least 1, or `reset_prediction_after_s` is not a positive number.
    """

    window_frames: int = 14
    reset_prediction_after_s: float | None = None
    fusion: bool = False
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        check_count("window_frames", self.window_frames)
        if self.reset_prediction_after_s is not None:
            check_seconds("reset_prediction_after_s", self.reset_prediction_after_s, positive=True)

    def pause_frames(self, config: ModelConfig) -> int:
        """Returns the frames without a label after which the prediction network begins anew; 0 for never."""
        seconds = self.reset_prediction_after_s
        return 0 if seconds is None else math.ceil(round(1000 * seconds / config.frame_ms, 6))

    def initial_state(self, prediction: PredictionState, batch: int) -> PredictionState | ResetState | Fused:
        """Returns the state of streams without labels."""
        state: PredictionState = jax.tree.map(lambda x: jnp.repeat(x, batch, axis=0), prediction)
        resetting = self.reset_prediction_after_s is not None
        search = ResetState(state, state, jnp.zeros(batch, jnp.int32)) if resetting else state
        return Fused(search, initial_fusion(batch)) if self.fusion else search

    def with_fusion(self) -> "Greedy":
        """Returns the same search with `fusion`."""
        return dataclasses.replace(self, fusion=True)

    def add_fusion(self, state: Any, batch: int) -> Fused:
        """Returns the state of `with_fusion` from that without."""
        return Fused(state, initial_fusion(batch))

    def decode(
        self,
        model: Transducer,
        encoded: Float[Array, "B T D"],
        length: Int[Array, " B"],
        state: Any,
        graphs: Graphs | None = None,
    ) -> tuple[Emission, Any]:
        """Continues every stream over the first `length` of its encoded frames; `graphs` are for `fusion`."""
        window = min(self.window_frames, encoded.shape[1])
        graphs, pause_frames = graphs if self.fusion else None, self.pause_frames(model.config)
        return decode(model, encoded, length, state, window, pause_frames, graphs, self.confidence)


def decode(
    model: Transducer,
    encoded: Float[Array, "B T D"],
    length: Int[Array, " B"],
    state: Any,
    window: int,
    pause_frames: int = 0,
    graphs: Graphs | None = None,
    confidence: Confidence | None = None,
) -> tuple[Emission, Any]:
    """Continues every stream over the first `length` of its encoded frames.

    `window` is the number of frames that one iteration scores: it changes the speed, not the result. At most
    `config.max_symbols_per_frame` labels are emitted at a frame. The state is a `PredictionState`, or with
    `pause_frames` a `ResetState`: then a frame after that many frames without a label is scored with the initial
    prediction. Where a search has fusion, its state is `Fused`; without `graphs` it keeps its place in them.
    A `confidence` is computed from the logits that chose the label.
    """
    config, (batch, frames, _) = model.config, encoded.shape
    capacity = frames * config.max_symbols_per_frame  # labels
    streams, ahead = jnp.arange(batch, dtype=jnp.int32), jnp.arange(window, dtype=jnp.int32)[None]
    search, fusion = state if isinstance(state, Fused) else (state, None)
    if graphs is not None and fusion is not None:
        fusion = enter(graphs, fusion, length > 0)
    reset: ResetState | None = search if pause_frames else None
    prediction: PredictionState = search if reset is None else reset.prediction
    with jax.named_scope("joint"):
        projected_BTJ = model.joint.encoder(encoded)

    def advance(c: _Cursor) -> _Cursor:
        index = c.frame[:, None] + ahead
        frames_BWJ = jnp.take_along_axis(projected_BTJ, jnp.minimum(index, frames - 1)[..., None], axis=1)
        prediction_BWJ = c.prediction.output[:, None]
        if reset is not None:
            paused = index > c.last[:, None] + pause_frames
            prediction_BWJ = jnp.where(paused[..., None], reset.initial.output[:, None], prediction_BWJ)
        with jax.named_scope("joint"):
            logits_BWV = model.joint.logits(frames_BWJ, prediction_BWJ)
        best_BW = jax.lax.argmax(logits_BWV, 2, jnp.int32)
        spoken = (best_BW != config.blank) & (index < length[:, None])
        offset, found = jax.lax.argmax(spoken, 1, jnp.int32), spoken.any(axis=1)
        label, logits_BV = best_BW[streams, offset], logits_BWV[streams, offset]
        fusion = c.fusion
        if graphs is not None and fusion is not None:
            with jax.named_scope("fusion"):
                choice = best_label(graphs, fusion, label, logits_BV[:, : config.blank], found)
                label, fusion = choice.label, follow(fusion, choice, found)
        log_prob = model.joint.log_probs(logits_BV, label)

        frame = c.frame + jnp.where(found, offset, window)
        emitted = jnp.where(found, jnp.where(offset > 0, 0, c.emitted) + 1, 0)
        full = emitted == config.max_symbols_per_frame  # then the stream moves on, as after a blank
        slot = jnp.where(found, c.emission.length, capacity)  # out of range drops the write
        write = lambda row, value: row.at[streams, slot].set(value, mode="drop")
        emission = Emission(
            write(c.emission.labels, label),
            write(c.emission.frames, frame),
            write(c.emission.log_probs, log_prob),
            c.emission.length + found.astype(jnp.int32),
        )
        if confidence is not None:
            confidences = write(c.emission.confidences, confidence.of_labels(model.joint, logits_BV, label))
            emission = emission._replace(confidences=confidences)
        lstm = c.prediction.lstm
        if reset is not None:
            lstm = where_rows(paused[streams, offset], reset.initial.lstm, lstm)
        following = lambda: where_rows(found, predict_next(model, label, lstm), c.prediction)
        if model.prediction.only_after_labels:
            prediction = jax.lax.cond(found.any(), following, lambda: c.prediction)
        else:
            prediction = following()
        last = jnp.where(found, frame, c.last)
        return _Cursor(frame + full.astype(jnp.int32), jnp.where(full, 0, emitted), last, prediction, emission, fusion)

    zero = jnp.zeros(batch, jnp.int32)
    blank = Emission(
        jnp.full((batch, capacity), config.blank, jnp.int32),
        jnp.zeros((batch, capacity), jnp.int32),
        jnp.zeros((batch, capacity), jnp.float32),
        zero,
        None if confidence is None else jnp.zeros((batch, capacity), jnp.float32),
    )
    last = zero if reset is None else -1 - reset.blanks
    cursor = _Cursor(zero, zero, last, prediction, blank, fusion)
    cursor = jax.lax.while_loop(lambda c: jnp.any(c.frame < length), advance, cursor)
    after: Any = cursor.prediction
    if reset is not None:
        blanks = jnp.minimum(length - 1 - cursor.last, pause_frames)
        after = ResetState(cursor.prediction, reset.initial, blanks)
    return cursor.emission, after if cursor.fusion is None else Fused(after, cursor.fusion)
