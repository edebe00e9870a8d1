"""Audio in, labels out: one step function for a live chunk, a segment of a recording, and training.

Every stream is preceded by `config.history_samples` zeros of virtual history. With them, chunk k of C
frames ends at sample 1280 C (k + 1) and is complete with the very sample that its last frame needs: all
chunks are alike, the first and the last included. What is before the recording or past its end is masked
at every stage, so neither the history nor the padding of the last chunk reaches the result.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import ModelConfig
from nemojax.decoding import greedy
from nemojax.decoding.state import Emission, PredictionState, initial_prediction, where_rows
from nemojax.model import features
from nemojax.model.encoder import EncoderCache
from nemojax.model.features import FeatureCache
from nemojax.model.parameters import FrozenModel, thaw
from nemojax.model.transducer import Transducer

WINDOW_FRAMES = 14  # that greedy decoding looks at in one iteration; more is wasted on speech


class Constants(NamedTuple):
    """What follows from the weights alone, computed once by `prepare` rather than at each step."""

    positions: tuple[Float[Array, "R H K"], ...]
    start: PredictionState  # of one stream


class StreamState(NamedTuple):
    """All that B streams remember between steps."""

    position: Int[Array, " B"]  # encoder frames so far
    features: FeatureCache
    encoder: EncoderCache
    prediction: PredictionState


class Segment(NamedTuple):
    """One step's input for B streams: a whole number of chunks of samples each.

    A stream's first segment begins with `config.history_samples` samples of any value. `length` counts the
    valid samples, those of the history included; less than N ends the recording. A stream that is not
    `active` keeps its state and emits nothing; one with `reset` forgets all before this segment.
    """

    samples: Float[Array, "B N"]
    length: Int[Array, " B"]
    active: Bool[Array, " B"]
    reset: Bool[Array, " B"]


@jax.jit
def prepare(model: Transducer | FrozenModel) -> Constants:
    model = thaw(model)
    return Constants(model.encoder.project_positions(), initial_prediction(model))


@functools.partial(jax.jit, static_argnames="batch")  # so that it lies where the weights do, as states after it
def init_state(model: Transducer | FrozenModel, constants: Constants, batch: int) -> StreamState:
    """The state of streams that have heard nothing; keys and values are kept in the weights' type."""
    model = thaw(model)
    config, dtype = model.config, model.joint.output.kernel.dtype
    return StreamState(
        jnp.zeros(batch, jnp.int32),
        FeatureCache.zeros(config.features, batch),
        EncoderCache.zeros(config, batch, dtype),
        jax.tree.map(lambda x: jnp.repeat(x, batch, axis=0), constants.start),
    )


def log_mel_mask(length: Int[Array, " B"], first: Bool[Array, " B"], frames: int, config: ModelConfig) -> Array:
    """Which log-mel frames of a segment are valid, [B, F].

    Frame j of a segment is valid when the recording holds its whole hop, 160 (m + 1) samples; counted from
    the segment's start, with the history, that is 160 j + 120. In a recording's first segment the frames
    before index 0 are not.
    """
    hop, factor = config.features.hop_samples, config.subsampling_factor
    index = jnp.arange(frames)[None]
    needed = hop * index + config.history_samples - hop * (factor - 2)
    return (needed <= length[:, None]) & ~(first[:, None] & (index < factor - 1))


def log_mel_segment(
    config: ModelConfig, state: StreamState, segment: Segment
) -> tuple[Float[Array, "B F M"], Bool[Array, "B F"], FeatureCache]:
    """Log-mel frames of a segment of whole encoder frames, which of them are valid, and the cache after them."""
    index, first = jnp.arange(segment.samples.shape[1])[None], state.position == 0
    heard = (index < segment.length[:, None]) & ~(first[:, None] & (index < config.history_samples))
    with jax.named_scope("features"):
        log_mel, cache = features.step(segment.samples, heard, state.features, config.features)
    return log_mel, log_mel_mask(segment.length, first, log_mel.shape[1], config), cache


def encode(
    model: Transducer, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], StreamState]:
    """Encoder frames of a segment, which of them are valid, and the state after them (decoding apart)."""
    config, samples = model.config, segment.samples.shape[1]
    if samples == 0 or samples % config.chunk_samples(lookahead):
        raise ValueError(
            f"a segment at lookahead {lookahead} must hold whole chunks of {config.chunk_samples(lookahead)} samples, "
            f"not {samples} samples"
        )
    log_mel, mask, feature_cache = log_mel_segment(config, state, segment)
    chunk = config.chunk_frames(lookahead)
    with jax.named_scope("encoder"):
        encoded, mask, encoder = model.encoder.step(log_mel, mask, state.encoder, constants.positions, chunk)
    position = state.position + encoded.shape[1]
    return encoded, mask, StreamState(position, feature_cache, encoder, state.prediction)


def step(
    model: Transducer | FrozenModel, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[StreamState, Emission]:
    """Hears one segment in every stream and emits its labels; frames count from the recording's start.

    `lookahead` (static) is any for which lookahead + 1 divides the left context. It may change between
    steps of one stream. The result does not depend on how a recording is cut into segments.
    """
    model = thaw(model)
    fresh = init_state(model, constants, segment.active.shape[0])
    before = where_rows(segment.reset, fresh, state)
    encoded, mask, after = encode(model, constants, before, segment, lookahead)
    length = jnp.where(segment.active, mask.sum(1), 0)
    with jax.named_scope("decoder"):
        window = min(WINDOW_FRAMES, encoded.shape[1])
        emission, prediction = greedy.decode(model, encoded, length, before.prediction, window)
    after = where_rows(segment.active, after._replace(prediction=prediction), before)
    return after, emission._replace(frames=emission.frames + before.position[:, None])


def segments_of(
    samples: Float[Array, "B N"], length: Int[Array, " B"], lookahead: int, chunks: int, config: ModelConfig
) -> Segment:
    """Recordings as segments of `chunks` chunks each, stacked on a leading axis for `transcribe_scan`.

    Row b holds `length[b]` samples at its start; what follows them is never heard.
    """
    batch, segment_samples = samples.shape[0], chunks * config.chunk_samples(lookahead)
    total = samples.shape[1] + config.history_samples
    count = max(1, -(-total // segment_samples))
    padding = (config.history_samples, count * segment_samples - total)
    split = jnp.pad(samples, ((0, 0), padding)).reshape(batch, count, segment_samples)
    heard = length[None] + config.history_samples - jnp.arange(count, dtype=jnp.int32)[:, None] * segment_samples
    return Segment(
        jnp.swapaxes(split, 0, 1),
        jnp.clip(heard, 0, segment_samples),
        jnp.ones((count, batch), bool),
        jnp.zeros((count, batch), bool),
    )


@functools.partial(jax.jit, static_argnames="lookahead", donate_argnames="state")
def transcribe_scan(
    model: Transducer | FrozenModel, constants: Constants, state: StreamState, segments: Segment, lookahead: int
) -> tuple[StreamState, Emission]:
    """`step` over stacked segments; each array of the emission gains their leading axis."""
    return jax.lax.scan(lambda s, segment: step(model, constants, s, segment, lookahead), state, segments)
