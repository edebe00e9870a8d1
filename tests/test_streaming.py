"""The contract, from samples to labels: however a recording is cut, batched or delayed, the result is one."""

from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import streaming
from nemojax.errors import AudioError
from nemojax.kernels.selection import for_backend
from nemojax.model.ring import BITS, Ring
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment
from tests.decoding.test_greedy import double_loop

LOOKAHEADS = [0, 1, 6, 13]
ATOL = 2e-5  # float32: the order of sums differs between a chunk and a segment of chunks


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model


@pytest.fixture(scope="module")
def constants(model):
    return streaming.prepare(model)


FAST_COMPILATION = {"xla_backend_optimization_level": 0}


@partial(jax.jit, static_argnames="lookahead", compiler_options=FAST_COMPILATION)
def encode_and_step(model, constants, state, segment, lookahead):
    """Encoder frames and labels of one step."""
    encode, frames = streaming.encode, []
    recorded = lambda *given: frames.append(encode(*given)) or frames[0]
    with mock.patch.object(streaming, "encode", recorded):
        state, emission = streaming.step(model, constants, state, segment, lookahead)
    encoded, mask, _ = frames[0]
    return encoded, mask, emission, state


ROWS = 5  # recordings side by side: few shapes are few compilations
segments_of = jax.jit(streaming.segments_of, static_argnums=(2, 3, 4))


def test_more_samples_than_an_int32_counts_are_refused(model):
    most = streaming.MAX_SAMPLES - model.config.history_samples

    def cut(samples):
        shapes = jax.ShapeDtypeStruct((1, samples), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
        return jax.eval_shape(lambda x, length: streaming.segments_of(x, length, 1, 1, model.config), *shapes)

    segments, _, chunk_samples = cut(most).samples.shape
    assert segments == -(-streaming.MAX_SAMPLES // chunk_samples)
    with pytest.raises(AudioError, match=rf"it has {most + 1} samples, more than {most}; cut it into shorter arrays"):
        cut(most + 1)


def transcribe(model, constants, recordings, lookahead, chunks, poison=0.0):
    """(valid encoder frames, labels, frames) of each recording, `chunks` chunks at a step.

    Several recordings are a multiple of ROWS rows, and samples a multiple of 4000; rows and samples added are invalid.
    """
    rows = 1 if len(recordings) == 1 else -(-len(recordings) // ROWS) * ROWS
    width = -(-max([1, *map(len, recordings)]) // 4000) * 4000
    samples, length = np.full((rows, width), poison, np.float32), np.zeros(rows, np.int32)
    for row, x in enumerate(recordings):
        samples[row, : len(x)], length[row] = x, len(x)
    segments = jax.device_get(segments_of(samples, length, lookahead, chunks, model.config))
    state = streaming.init_state(model, constants, rows)
    found = [([np.zeros((0, model.config.encoder.width))], [], []) for _ in recordings]
    for segment in map(Segment, *segments):
        *out, state = encode_and_step(model, constants, state, segment, lookahead)
        encoded, mask, emission = jax.device_get(out)
        for row, (frames, labels, at) in enumerate(found):
            n = int(emission.length[row])
            frames.append(encoded[row][mask[row]])
            labels.extend(emission.labels[row, :n].tolist())
            at.extend(emission.frames[row, :n].tolist())
    return [(np.concatenate(frames), labels, at) for frames, labels, at in found]


def assert_same(found, expected):
    for (encoded, labels, frames), want in zip(found, expected, strict=True):
        np.testing.assert_allclose(encoded, want[0], atol=ATOL)
        assert labels == want[1] and frames == want[2]


def edge_lengths(config, lookahead, chunks=2):
    """0, 1, the first log-mel frame, and one sample around every end of a chunk and beginning of a frame."""
    chunk = config.chunk_samples(lookahead)
    ends = [k * chunk - config.history_samples for k in range(1, chunks + 1)]
    return sorted(
        {0, 1, 159, 160, 161, *(max(0, end + d) for end in ends for d in (-1280, -1, 0, 1, 119, 120, 121, 1280))}
    )


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_live_chunks_equal_the_whole(model, constants, speech, lookahead):
    """Ragged batch, chunk by chunk and all at once: encoder frames, labels and their frames."""
    recordings = [speech[:n] for n in (len(speech), 40_000, 17_001, 1, 0)]
    whole = transcribe(model, constants, recordings, lookahead, chunks=84 // (lookahead + 1))
    assert len(whole[0][1]) > 10 and [len(w[0]) for w in whole] == [
        model.config.encoder_frames(len(x)) for x in recordings
    ]
    assert_same(transcribe(model, constants, recordings, lookahead, chunks=1), whole)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_every_edge_alone_in_batches_and_with_garbage_beside_it(model, constants, speech, lookahead):
    lengths = edge_lengths(model.config, lookahead)
    recordings = [np.asarray(speech)[8000 : 8000 + n] for n in lengths]
    quiet, loud = np.zeros(30_000, np.float32), np.full(30_000, 1e4, np.float32)
    _, *together = transcribe(model, constants, [quiet, *recordings], lookahead, chunks=3)
    assert [len(t[0]) for t in together] == [model.config.encoder_frames(n) for n in lengths]
    order = np.random.default_rng(lookahead).permutation(len(recordings))
    _, *shuffled = transcribe(model, constants, [loud, *(recordings[i] for i in order)], lookahead, 3, poison=np.nan)
    assert_same(shuffled, [together[i] for i in order])
    for i in range(0, len(recordings), 3):
        assert_same(transcribe(model, constants, recordings[i : i + 1], lookahead, chunks=1), together[i : i + 1])


@pytest.mark.parametrize("lookahead", [4, pytest.param(34, marks=pytest.mark.slow), 69])
def test_any_lookahead_that_fits(model, constants, speech, lookahead):
    recordings = [speech, speech[:33_333]]
    whole = transcribe(model, constants, recordings, lookahead, chunks=140 // (lookahead + 1))
    assert_same(transcribe(model, constants, recordings, lookahead, chunks=1), whole)


def test_another_family(family_model, speech):
    constants = streaming.prepare(family_model)
    recordings = [speech, speech[:33_333]]
    for lookahead in (0, 6):
        whole = transcribe(family_model, constants, recordings, lookahead, chunks=84 // (lookahead + 1))
        assert_same(transcribe(family_model, constants, recordings, lookahead, chunks=1), whole)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_labels_are_the_double_loops_over_the_whole(model, constants, speech, lookahead):
    [(encoded, labels, frames)] = transcribe(model, constants, [speech[:30_000]], lookahead, chunks=1)
    assert (labels, frames) == double_loop(model, jnp.asarray(encoded), len(encoded))[:2] and labels


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_the_schedule_to_the_sample(model, constants, speech, lookahead):
    """A chunk depends on the last sample that it waits for, and on none after it.

    The last window's last sample, 160 m + 199, has weight 0 in a symmetric Hann window; the one before has not.
    """
    config = model.config
    frames, samples = 28, 28 * 1280
    state = streaming.init_state(model, constants, 1)

    def chunk_sum(x, k):
        segment = streaming.segments_of(x[None], jnp.array([len(x)]), lookahead, frames // (lookahead + 1), config)
        encoded, _, _ = streaming.encode(model, constants, state, jax.tree.map(lambda a: a[0], segment), lookahead)
        chunk = config.chunk_frames(lookahead)
        weights = jnp.cos(jnp.arange(config.encoder.width))[None]
        return (jax.lax.dynamic_slice_in_dim(encoded[0], k * chunk, chunk) * weights).sum()

    gradient = jax.jit(jax.grad(chunk_sum))
    x = speech[: samples - config.history_samples]
    for k in sorted({0, 1, frames // (lookahead + 1) - 1}):
        last = (k + 1) * config.chunk_samples(lookahead) - config.history_samples - 1
        slope = np.asarray(gradient(x, k))
        assert not slope[last:].any() and abs(slope[last - 1]) > 0
        assert np.isfinite(slope).all() and abs(slope[: last - 1280]).max() > 0


def random_segments(rng, config, recordings, lookahead, batch):
    """Streams that join, pause and leave: (segment, owner of each row) until all recordings are done."""
    chunk = config.chunk_samples(lookahead)
    waiting, rows = list(range(len(recordings))), [None] * batch
    position = {}
    while waiting or any(row is not None for row in rows):
        samples = rng.standard_normal((batch, chunk)).astype(np.float32) * 1e3  # garbage unless replaced
        length, active, reset = rng.integers(0, chunk, batch), np.zeros(batch, bool), np.zeros(batch, bool)
        owners = [None] * batch
        for b in range(batch):
            if rows[b] is None and waiting and rng.random() < 0.6:
                rows[b] = waiting.pop()
                position[rows[b]], reset[b] = -config.history_samples, True
            if rows[b] is None or (not reset[b] and rng.random() < 0.3):
                continue  # empty, or paused
            owner = owners[b] = rows[b]
            start, active[b] = position[owner], True
            piece = recordings[owner][max(start, 0) : start + chunk]
            skipped = max(0, -start)
            samples[b, skipped : skipped + len(piece)] = piece
            length[b] = skipped + len(piece)
            position[owner] = start + chunk
            if length[b] < chunk:
                rows[b] = None
        arrays = (samples, length.astype(np.int32), active, reset)
        yield Segment(*map(jnp.asarray, arrays)), owners


@pytest.mark.parametrize("lookahead", [1, 6])
def test_streams_join_pause_and_leave_independently(model, constants, speech, lookahead):
    rng = np.random.default_rng(lookahead)
    recordings = [
        np.asarray(speech)[s : s + n] for s, n in ((0, 30_000), (9000, 8001), (0, 0), (40_000, 20_000), (7, 1))
    ]
    recordings += [np.asarray(speech)[30_000:50_000], np.zeros(9000, np.float32)]
    parts = recordings[:ROWS], recordings[ROWS:]
    expected = [one for part in parts for one in transcribe(model, constants, part, lookahead, chunks=1)]
    state, found = streaming.init_state(model, constants, 3), [([], []) for _ in recordings]
    for segment, owners in random_segments(rng, model.config, recordings, lookahead, 3):
        state, emission = step_jit(model, constants, state, segment, lookahead=lookahead)
        for b, owner in enumerate(owners):
            n = int(emission.length[b])
            assert owner is not None or n == 0
            if owner is not None:
                found[owner][0].extend(emission.labels[b, :n].tolist())
                found[owner][1].extend(emission.frames[b, :n].tolist())
    assert found == [(want[1], want[2]) for want in expected]
    assert sum(len(f[0]) for f in found) > 10


def test_pausing_keeps_every_bit_of_state(model, constants, speech):
    step = jax.jit(streaming.step, static_argnames="lookahead")  # keeps the state it is given
    state = streaming.init_state(model, constants, 2)
    samples = np.stack([speech[:17_920]] * 2)
    segment = Segment(*map(jnp.asarray, (samples, np.full(2, 17_920, np.int32), np.ones(2, bool), np.zeros(2, bool))))
    state, _ = step(model, constants, state, segment, lookahead=13)
    samples[1] = np.nan
    paused = segment._replace(active=jnp.array([True, False]), samples=jnp.asarray(samples))
    after, emission = step(model, constants, state, paused, lookahead=13)
    before, after, length = jax.device_get((state, after, emission.length))
    assert length[1] == 0
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a[1] == b[1]).all()), before, after)))
    assert after.position.tolist() == [28, 14]


def test_the_scan_is_the_steps(model, constants, speech):
    samples, length = np.stack([speech, speech[::-1]]), np.array([len(speech), 50_000], np.int32)
    segments = segments_of(samples, length, 6, 2, model.config)
    after, emission = streaming.transcribe_scan(
        model, constants, streaming.init_state(model, constants, 2), segments, lookahead=6
    )
    state, pieces = streaming.init_state(model, constants, 2), jax.device_get(segments)
    emission = jax.device_get(emission)
    for i in range(segments.samples.shape[0]):
        segment = Segment(*(jnp.asarray(x[i]) for x in pieces))
        state, one = step_jit(model, constants, state, segment, lookahead=6)
        np.testing.assert_array_equal(one.labels, emission.labels[i])
        np.testing.assert_array_equal(one.frames, emission.frames[i])
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(a, b, atol=ATOL)


def test_the_state_keeps_its_shapes_and_types(model, constants):
    state = streaming.init_state(model, constants, 2)
    segment = Segment(jnp.zeros((2, 2560)), jnp.full(2, 2560), jnp.ones(2, bool), jnp.zeros(2, bool))
    after, _ = jax.eval_shape(lambda: streaming.step(model, constants, state, segment, 1))
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)
    assert describe(jax.eval_shape(lambda: state)) == describe(after)


def test_bfloat16_is_close_and_streams_equal_its_whole(model, speech):
    """Keys and values take half the bytes; the encoder stays within bfloat16's rounding of float32."""
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    constants = streaming.prepare(half)
    state = streaming.init_state(half, constants, 1)
    block = state.encoder.blocks[0]
    assert block.attention.keys.frames.dtype == block.convolution.frames.frames.dtype == jnp.bfloat16
    assert state.decoder.output.dtype == jnp.float32
    [(whole, _, _)] = transcribe(half, constants, [speech], 6, chunks=12)
    [(pieces, _, _)] = transcribe(half, constants, [speech], 6, chunks=1)
    (exact, _, _), _ = transcribe(model, streaming.prepare(model), [speech, speech[:0]], 6, chunks=12)
    assert np.abs(whole - pieces).max() < 0.02 * np.abs(exact).max()
    assert 0 < np.abs(whole - exact).mean() < 0.02 * np.abs(exact).max()


def test_bfloat16_caches_as_bits_give_the_same_bits(model, speech):
    """On a CPU, `for_backend` keeps caches of bfloat16 as their bits."""
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model)
    bits, constants = for_backend(half), streaming.prepare(half)
    block = streaming.init_state(bits, constants, 1).encoder.blocks[0]
    assert {block.attention.keys.frames.dtype, block.convolution.frames.frames.dtype} == {jnp.dtype(BITS)}
    for chunks in (1, 12):
        [found], [expected] = (transcribe(m, constants, [speech], 6, chunks) for m in (bits, half))
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1:] == expected[1:]


def test_caches_of_int8_are_close_and_streams_equal_their_whole(model, speech):
    """The effect of 8 bits is one on any cut, up to the place where their scale is multiplied."""
    small = for_backend(model, cache="int8")
    constants = streaming.prepare(small)
    [(whole, _, _)] = transcribe(small, constants, [speech], 6, chunks=12)
    [(pieces, _, _)] = transcribe(small, constants, [speech], 6, chunks=1)
    (exact, _, _), _ = transcribe(model, streaming.prepare(model), [speech, speech[:0]], 6, chunks=12)
    assert 0 < np.abs(whole - exact).max() < 0.02 * np.abs(exact).max()
    assert np.abs(whole - pieces).max() < 0.2 * np.abs(whole - exact).max()


def test_a_chunk_longer_than_the_rings_have_room_for(model, constants, speech):
    """It is right as well: what it sees is read before it is written."""
    segments = segments_of(speech[None, :60_000], jnp.array([60_000]), 6, 1, model.config)
    states = [streaming.init_state(model, constants, 1, lookahead=lookahead) for lookahead in (0, None)]
    for i in range(len(segments.length)):
        given = jax.tree.map(lambda x, i=i: x[i], segments)
        (encoded, mask, small, states[0]), (expected, _, emission, states[1]) = (
            encode_and_step(model, constants, state, given, 6) for state in states
        )
        np.testing.assert_allclose(encoded[mask], expected[mask], atol=ATOL)
        np.testing.assert_array_equal(small.labels, emission.labels)


def test_a_segment_of_part_of_a_chunk_is_refused(model, constants):
    segment = Segment(jnp.zeros((1, 1280)), jnp.full(1, 1280), jnp.ones(1, bool), jnp.zeros(1, bool))
    with pytest.raises(ValueError, match="whole chunks of 2560 samples, not 1280"):
        streaming.step(model, constants, streaming.init_state(model, constants, 1), segment, 1)


@jax.jit
def valid(state):
    """Returns the state with the frames before its position in the place of whole rings."""
    read = lambda node: node.read(state.position, 7) if isinstance(node, Ring) else node
    return jax.tree.map(read, state, is_leaf=lambda node: isinstance(node, Ring))


def test_a_reset_takes_effect_without_a_chunk(model, constants, speech):
    """A row that is reset while it pauses begins anew with its next chunk; its neighbor keeps its state."""
    chunk, on, off = model.config.chunk_samples(6), jnp.ones(2, bool), jnp.zeros(2, bool)
    full = jnp.full(2, chunk, jnp.int32)
    samples = np.asarray(speech[: 4 * chunk]).reshape(4, 1, chunk).repeat(2, axis=1)
    new, _ = step_jit(
        model,
        constants,
        streaming.init_state(model, constants, 2),
        Segment(jnp.asarray(samples[3]), full, on, off),
        lookahead=6,
    )
    state = streaming.init_state(model, constants, 2)
    for piece in samples[:3]:
        state, _ = step_jit(model, constants, state, Segment(jnp.asarray(piece), full, on, off), lookahead=6)
    kept = jax.tree.map(lambda x: x[1], jax.device_get(state))
    last, first = jnp.asarray(samples[3]), jnp.array([True, False])
    state, emission = step_jit(model, constants, state, Segment(last, full, off, first), lookahead=6)
    assert emission.length.tolist() == [0, 0] and state.position.tolist() == [0, 21]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[1], jax.device_get(state)), kept)
    state, _ = step_jit(model, constants, state, Segment(last, full, first, off), lookahead=6)
    for a, b in zip(jax.tree.leaves(valid(state)), jax.tree.leaves(valid(new)), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
