"""The step: a segment of samples in, labels out, for a live chunk, a segment of a recording, and training.

Every stream is preceded by `config.history_samples` zeros of virtual history. With them, chunk k of C frames ends at
sample 1280 C (k + 1) and is complete with the very sample that its last frame needs: all chunks are alike, the first
and the last included. Samples before the recording or past its end are masked at every stage, so neither the history
nor the padding of the last chunk reaches the result.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from nemojax.config import ModelConfig
from nemojax.decoding.graphs import Graphs
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.state import AnyEmission, PredictionState, Search, initial_prediction, where_rows
from nemojax.errors import AudioError
from nemojax.model import features, ring
from nemojax.model.encoder import EncoderCache
from nemojax.model.features import FeatureCache, MelEnergies
from nemojax.model.layers import by_rows
from nemojax.model.parameters import FrozenModel, thaw
from nemojax.model.transducer import Transducer

GREEDY = Greedy()
MAX_SAMPLES = 2**31 - 1  # the largest int32: lengths and positions are of this type


class Constants(NamedTuple):
    """Values that follow from the weights alone, computed once by `prepare` rather than at each step."""

    positions: tuple[Float[Array, "R H K"], ...]
    prediction: PredictionState  # before any label, of one stream


class StreamState(NamedTuple):
    """Everything that B streams keep between steps."""

    position: Int[Array, " B"]  # encoder frames so far
    features: FeatureCache
    encoder: EncoderCache
    decoder: Any  # the search's own state


class Segment(NamedTuple):
    """One step's input for B streams: a whole number of chunks of samples each.

    A stream's first segment begins with `config.history_samples` samples of any value. `length` counts the valid
    samples, those of the history included; less than N ends the recording. A stream that is not `active` keeps its
    state and emits nothing. `reset` comes first: such a stream begins anew, with this segment or, if it is not active,
    with its next one.
    """

    samples: Float[Array, "B N"]
    length: Int[Array, " B"]
    active: Bool[Array, " B"]
    reset: Bool[Array, " B"]


@jax.jit
def prepare(model: Transducer | FrozenModel) -> Constants:
    """Computes the constants of a model's weights."""
    model = thaw(model)
    return Constants(model.encoder.project_positions(), initial_prediction(model))


# jitted, so that the state is placed on the weights' device like every later state; else the step compiles twice
@functools.partial(jax.jit, static_argnames=("batch", "search", "lookahead"))
def init_state(
    model: Transducer | FrozenModel,
    constants: Constants,
    batch: int,
    search: Search = GREEDY,
    lookahead: int | None = None,
) -> StreamState:
    """Returns the state of `batch` new streams; keys and values have the weights' type, or the cache's own.

    Its rings have room for the largest chunk of the settings; with `lookahead`, for a chunk at that one, which takes
    less memory. Steps at a longer look-ahead give the same result then, but copy the rings.
    """
    return _new_state(thaw(model), constants, batch, search, lookahead)


def _new_state(
    model: Transducer, constants: Constants, batch: int, search: Search, lookahead: int | None = None
) -> StreamState:
    encoder = model.encoder.initial_cache(batch, model.joint.output.kernel.dtype)
    largest = model.config.encoder.largest_chunk_frames
    chunk = largest if lookahead is None else min(largest, model.config.chunk_frames(lookahead))
    return StreamState(
        jnp.zeros(batch, jnp.int32),
        features.initial_cache(model.config.features, batch),
        ring.without_slots(encoder, largest - chunk),
        search.initial_state(constants.prediction, batch),
    )


def log_mel_mask(length: Int[Array, " B"], first: Bool[Array, " B"], frames: int, config: ModelConfig) -> Array:
    """Returns which log-mel frames of a segment are valid, [B, F].

    Frame j of a segment is valid when the recording holds its whole hop, 160 (m + 1) samples; counted from
    the segment's start, with the history, that is 160 j + 120. In a recording's first segment the frames
    before index 0 are not.
    """
    hop, factor = config.features.hop_samples, config.subsampling_factor
    index = jnp.arange(frames, dtype=jnp.int32)[None]
    needed = hop * index + config.history_samples - hop * (factor - 2)
    return (needed <= length[:, None]) & ~(first[:, None] & (index < factor - 1))


def log_mel_segment(
    config: ModelConfig,
    state: StreamState,
    segment: Segment,
    energies: MelEnergies = features.mel_energies,
    rows: int | None = None,
) -> tuple[Float[Array, "B F M"], Bool[Array, "B F"], FeatureCache]:
    """Computes the log-mel frames of a segment of whole encoder frames, which of them are valid, and the next cache.

    With `rows`, that many streams are computed at a time.
    """
    index, first = jnp.arange(segment.samples.shape[1], dtype=jnp.int32)[None], state.position == 0
    valid = (index < segment.length[:, None]) & ~(first[:, None] & (index < config.history_samples))
    batch, samples = segment.samples.shape
    shape = batch, samples // config.features.hop_samples, config.features.mel_bins
    step = lambda replaced, samples, valid: features.step(samples, valid, replaced[1], config.features, energies)
    with jax.named_scope("features"):
        replaced = jnp.zeros(shape, jnp.float32), state.features
        log_mel, cache = by_rows(step, rows or batch, replaced, segment.samples, valid)
    return log_mel, log_mel_mask(segment.length, first, log_mel.shape[1], config), cache


def encode(
    model: Transducer, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"], StreamState]:
    """Computes the encoder frames of a segment, which of them are valid, and the state after them, decoder apart."""
    config, samples = model.config, segment.samples.shape[1]
    if samples == 0 or samples % config.chunk_samples(lookahead):
        raise ValueError(
            f"a segment at lookahead {lookahead} must hold whole chunks of {config.chunk_samples(lookahead)} samples, "
            f"not {samples} samples"
        )
    rows = max(1, model.encoder.parts.log_mel * config.features.hop_samples // samples)
    log_mel, mask, feature_cache = log_mel_segment(config, state, segment, model.mel_energies, rows)
    chunk = config.chunk_frames(lookahead)
    with jax.named_scope("encoder"):
        encoded, mask, encoder = model.encoder.step(log_mel, mask, state.encoder, constants.positions, chunk)
    position = state.position + encoded.shape[1]
    return encoded, mask, StreamState(position, feature_cache, encoder, state.decoder)


def step(
    model: Transducer | FrozenModel,
    constants: Constants,
    state: StreamState,
    segment: Segment,
    lookahead: int,
    search: Search = GREEDY,
    graphs: Graphs | None = None,
) -> tuple[StreamState, AnyEmission]:
    """Advances every active stream by one segment and emits its labels; frames count from the recording's start.

    `lookahead` (static) is any for which lookahead + 1 divides the left context. It may change between steps of one
    stream. The result does not depend on how a recording is cut into segments, up to rounding; in the form of
    `kernels.fixed_order`, not at all. `search` (static) is the search whose state `state.decoder` is. `graphs` score
    labels too, where the search has `fusion`; a stream's may change between steps.
    """
    model = thaw(model)
    fresh = _new_state(model, constants, segment.active.shape[0], search)
    # a ring is never chosen row by row: that would copy it. A new stream ignores the frames that it finds in its row.
    before = where_rows(segment.reset, ring.share(fresh, state), state)
    # an inactive row has no valid samples, so no layer writes a frame of it
    segment = segment._replace(length=jnp.where(segment.active, segment.length, 0))
    encoded, mask, after = encode(model, constants, before, segment, lookahead)
    with jax.named_scope("decoder"):
        given = () if graphs is None else (graphs,)
        emission, decoder = search.decode(model, encoded, mask.sum(1, dtype=jnp.int32), before.decoder, *given)
    after = after._replace(decoder=decoder)
    after = where_rows(segment.active, after, ring.share(before, after))
    begin = before.position.reshape(-1, *[1] * (emission.frames.ndim - 1))
    return after, emission._replace(frames=emission.frames + begin)


def segments_of(
    samples: Float[Array, "B N"], length: Int[Array, " B"], lookahead: int, chunks: int, config: ModelConfig
) -> Segment:
    """Cuts recordings into segments of `chunks` chunks each, stacked on a leading axis for `transcribe_scan`.

    Row b holds `length[b]` samples at its start; the samples after them are never used.

    Raises:
      AudioError: the rows have more samples than an int32 counts, 37 hours at 16 kHz.
    """
    batch, segment_samples = samples.shape[0], chunks * config.chunk_samples(lookahead)
    total = samples.shape[1] + config.history_samples
    if total > MAX_SAMPLES:
        raise AudioError(
            f"array: it has {samples.shape[1]} samples, more than {MAX_SAMPLES - config.history_samples}; cut it into "
            "shorter arrays, or use Recognizer.transcribe, which takes any length"
        )
    count = max(1, -(-total // segment_samples))
    padding = (config.history_samples, count * segment_samples - total)
    split = jnp.pad(samples, ((0, 0), padding)).reshape(batch, count, segment_samples)
    valid = length[None] + config.history_samples - jnp.arange(count, dtype=jnp.int32)[:, None] * segment_samples
    return Segment(
        jnp.swapaxes(split, 0, 1),
        jnp.clip(valid, 0, segment_samples),
        jnp.ones((count, batch), bool),
        jnp.zeros((count, batch), bool),
    )


@functools.partial(jax.jit, static_argnames=("lookahead", "search"), donate_argnames="state")
def transcribe_scan(
    model: Transducer | FrozenModel,
    constants: Constants,
    state: StreamState,
    segments: Segment,
    lookahead: int,
    search: Search = GREEDY,
    graphs: Graphs | None = None,
) -> tuple[StreamState, AnyEmission]:
    """Scans `step` over stacked segments; each array of the emission gains their leading axis."""
    advance = lambda state, segment: step(model, constants, state, segment, lookahead, search, graphs)
    return jax.lax.scan(advance, state, segments)
