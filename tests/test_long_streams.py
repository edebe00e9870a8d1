"""Streams so long that their rings have wrapped many times: nothing depends on how long a stream has lasted."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import streaming
from nemojax.kernels.selection import for_backend
from nemojax.model.attention import AttentionCache
from nemojax.model.convolution import ConvolutionCache
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment, transcribe_scan
from tests.conftest import random_model

LOOKAHEAD, LEFT, ROWS = 1, 14, 3


@pytest.fixture(scope="module")
def model(tiny_config):
    """Labels are frequent, and rings wrap every 16 frames, those of the convolution every 10."""
    encoder = dataclasses.replace(tiny_config.encoder, left_context_frames=LEFT, lookaheads=(LOOKAHEAD, 0))
    return random_model(dataclasses.replace(tiny_config, encoder=encoder), seed=2, blank_bias=3.0)


def lasting(state, frames: int):
    """Returns the state as if every stream had lasted `frames` frames more, a multiple of the slots of every ring."""
    is_cache = lambda node: isinstance(node, AttentionCache | ConvolutionCache)
    longer = lambda node: node._replace(length=node.length + frames) if is_cache(node) else node
    state = jax.tree.map(longer, state, is_leaf=is_cache)
    return state._replace(position=state.position + frames)


@pytest.mark.parametrize("cache", ["auto", "int8"])
def test_a_stream_of_any_length(model, speech, cache):
    """After a thousand wraps, 2^31 samples, a month or five years: the same labels, at later frames."""
    model = for_backend(model, cache=cache)
    constants = streaming.prepare(model)
    chunk, on = model.config.chunk_samples(LOOKAHEAD), jnp.ones(1, bool)
    pieces = jnp.asarray(speech[: len(speech) // chunk * chunk]).reshape(-1, 1, chunk)
    middle = 10  # 20 frames: all rings have wrapped

    def advance(state, pieces, first: bool):
        found = []
        for i, piece in enumerate(pieces):
            segment = Segment(piece, jnp.full(1, chunk, jnp.int32), on, on if first and i == 0 else ~on)
            state, emission = step_jit(model, constants, state, segment, lookahead=LOOKAHEAD)
            count = int(emission.length[0])
            found += zip(emission.labels[0, :count].tolist(), emission.frames[0, :count].tolist(), strict=True)
        return state, found

    state, _ = advance(streaming.init_state(model, constants, 1), pieces[:middle], True)
    copied = lambda: jax.tree.map(jnp.copy, state)  # a step uses its state up
    _, expected = advance(copied(), pieces[middle:], False)
    assert len(expected) > 5
    slots = math.lcm(state.encoder.blocks[0].attention.keys.slots, state.encoder.blocks[0].convolution.frames.slots)
    for frames in (1000 * slots, 2**31 // 1280, 30 * 86_400 * 16_000 // 1280, 2**31 - 1000):
        frames = frames // slots * slots
        _, found = advance(lasting(copied(), frames), pieces[middle:], False)
        assert found == [(label, frame + frames) for label, frame in expected]


def schedule(rng, config, recordings):
    """Streams that join, pause and leave in `ROWS` rows: stacked segments, and the recording in each row at each step.

    A new stream finds the frames of the one before it in its row, which has ended at any phase of the ring.
    """
    chunk, waiting = config.chunk_samples(LOOKAHEAD), list(range(len(recordings)))[::-1]
    rows, begin, segments, owners = [None] * ROWS, {}, [], []
    while waiting or any(row is not None for row in rows):
        samples = rng.standard_normal((ROWS, chunk)).astype(np.float32)  # garbage unless replaced
        length, active, reset = np.zeros(ROWS, np.int32), np.zeros(ROWS, bool), np.zeros(ROWS, bool)
        for b in range(ROWS):
            if rows[b] is None and waiting and rng.random() < 0.7:
                rows[b], reset[b] = waiting.pop(), True
                begin[rows[b]] = -config.history_samples
            if rows[b] is None or (not reset[b] and rng.random() < 0.2):
                continue
            start, active[b] = begin[rows[b]], True
            piece = recordings[rows[b]][max(start, 0) : start + chunk]
            skipped = max(0, -start)
            samples[b, skipped : skipped + len(piece)] = piece
            length[b] = skipped + len(piece)
            begin[rows[b]] = start + chunk
        owners.append([row if on else None for row, on in zip(rows, active, strict=True)])
        segments.append(Segment(samples, length, active, reset))
        rows = [None if on and n < chunk else row for row, on, n in zip(rows, active, length, strict=True)]
    return Segment(*map(np.stack, zip(*segments, strict=True))), owners


def test_joins_pauses_and_resets_at_every_phase(model, speech):
    rng = np.random.default_rng(0)
    frames = range(2, 36)  # every phase at which a stream can end, twice
    recordings = [np.roll(speech, -4000 * n)[: 1280 * n] for n in rng.permutation(frames)]
    constants = streaming.prepare(model)
    segments, owners = schedule(rng, model.config, recordings)

    def transcribed(segments, owners, rows):
        state = streaming.init_state(model, constants, rows)
        _, emission = transcribe_scan(model, constants, state, segments, lookahead=LOOKAHEAD)
        emission, found = jax.device_get(emission), {}
        for i, step_owners in enumerate(owners):
            for b, owner in enumerate(step_owners):
                count = emission.length[i, b]
                assert owner is not None or count == 0
                labels = zip(
                    emission.labels[i, b, :count].tolist(), emission.frames[i, b, :count].tolist(), strict=True
                )
                found.setdefault(owner, []).extend(labels)
        return found

    found = transcribed(segments, owners, ROWS)
    padded = np.zeros((len(recordings), max(map(len, recordings))), np.float32)
    for row, samples in enumerate(recordings):
        padded[row, : len(samples)] = samples
    lengths = jnp.asarray([len(samples) for samples in recordings], jnp.int32)
    # no ring has room for all of these chunks
    alone = streaming.segments_of(jnp.asarray(padded), lengths, LOOKAHEAD, 7, model.config)
    expected = transcribed(alone, [list(range(len(recordings)))] * len(alone.length), len(recordings))
    for number in range(len(recordings)):
        assert found[number] == expected[number]
    assert sum(map(len, expected.values())) > 50
