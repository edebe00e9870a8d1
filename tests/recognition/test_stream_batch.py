"""The one owner of a stream's device state: rows are independent, whatever happens to the batch around them."""

import jax
import numpy as np
import pytest

from nemojax.decoding.greedy import Greedy
from nemojax.errors import ConfigError
from nemojax.recognition import stream_batch
from nemojax.recognition.stream_batch import StepInput
from nemojax.recognition.stream_graphs import GraphRows, StreamGraphs
from nemojax.streaming import init_state

LOOKAHEAD = 1


def advance(batch, rows):
    """One step: {row: (samples, first)}; labels and frames of every row."""
    given = StepInput.empty(batch.config, batch.size, batch.chunk_samples)
    for row, (samples, first) in rows.items():
        given.fill(row, samples, first)
    emission = jax.device_get(batch.step(given))
    return [
        list(zip(emission.labels[row, :n].tolist(), emission.frames[row, :n].tolist(), strict=True))
        for row, n in enumerate(emission.length)
    ]


def chunks(recognizer, samples):
    size, history = recognizer.config.chunk_samples(LOOKAHEAD), recognizer.config.history_samples
    ends = range(size - history, len(samples), size)
    return [(piece, index == 0) for index, piece in enumerate(np.split(np.asarray(samples), list(ends)))]


@pytest.fixture
def sounds(recognizer, speech):
    return [chunks(recognizer, np.roll(np.asarray(speech), 7_000 * i)[:60_000]) for i in range(3)]


@pytest.fixture
def alone(recognizer, sounds):
    """Every sound's labels, step by step, in a batch of one."""
    found = []
    for sound in sounds:
        batch = recognizer.batch(1, LOOKAHEAD)
        found.append([advance(batch, {0: chunk})[0] for chunk in sound])
    assert all(sum(map(len, labels)) > 10 for labels in found)
    return found


@pytest.fixture(params=["as many rows as streams", "more rows"])
def rows_of_the_state(request, monkeypatch):
    """A GPU has more rows than streams, where these are few; nobody can tell."""
    if request.param == "more rows":
        monkeypatch.setattr(stream_batch, "step_rows", lambda streams, frames: max(streams, 5))


def test_rows_join_pause_and_begin_anew(recognizer, sounds, alone):
    batch = recognizer.batch(2, LOOKAHEAD)
    first = [advance(batch, {0: sounds[0][i]}) for i in range(3)]
    assert [rows[0] for rows in first] == alone[0][:3] and not any(rows[1] for rows in first)
    both = [advance(batch, {0: sounds[0][3 + i], 1: sounds[1][i]}) for i in range(4)]
    assert [rows[0] for rows in both] == alone[0][3:7] and [rows[1] for rows in both] == alone[1][:4]
    paused = [advance(batch, {1: sounds[1][4 + i]}) for i in range(3)]
    assert [rows[1] for rows in paused] == alone[1][4:7]
    anew = [advance(batch, {0: sounds[0][7 + i], 1: sounds[2][i]}) for i in range(5)]
    assert [rows[0] for rows in anew] == alone[0][7:12] and [rows[1] for rows in anew] == alone[2][:5]


def test_rows_that_are_kept_have_their_own_state(recognizer, sounds, alone, rows_of_the_state):
    batch = recognizer.batch(3, LOOKAHEAD)
    for i in range(4):
        advance(batch, {row: sounds[row][i] for row in range(3)})
    batch.keep(np.array([2, 0]))
    assert batch.size == 2
    later = [advance(batch, {0: sounds[2][i], 1: sounds[0][i]}) for i in range(4, 9)]
    assert [rows[0] for rows in later] == alone[2][4:9] and [rows[1] for rows in later] == alone[0][4:9]


def test_a_batch_grows_and_shrinks_around_its_rows(recognizer, sounds, alone, rows_of_the_state):
    batch = recognizer.batch(1, LOOKAHEAD)
    found = [[], []]
    for i, size in enumerate([1, 1, 3, 3, 2, 2, 4, 1]):
        batch.resize(size)
        assert batch.size == size
        rows = {0: sounds[0][i]} | ({1: sounds[1][i - 2]} if 2 <= i < 7 else {})
        labels = advance(batch, rows)
        found[0].append(labels[0])
        found[1] += [labels[1]] if 1 in rows else []
    assert found == [alone[0][:8], alone[1][:5]]


def test_recordings_in_a_batch_of_more_rows(recognizer, speech, rows_of_the_state):
    """Segments of many chunks, and batches that lose rows."""
    recordings = [np.asarray(speech)[:n] for n in (60_000, 9_000, 30_000)]
    alone = [recognizer.transcribe(samples, LOOKAHEAD).tokens for samples in recordings]
    together = recognizer.transcribe(recordings, LOOKAHEAD, batch_size=2)
    assert [transcript.tokens for transcript in together] == alone and alone[0]


def test_an_input_says_what_the_step_needs(recognizer):
    config, size = recognizer.config, recognizer.config.chunk_samples(LOOKAHEAD)
    memory = np.full((3, size), np.nan, np.float32)
    given = StepInput(config, memory)
    assert given.room(True) == size - config.history_samples and given.room(False) == size
    given.fill(2, np.arange(10, dtype=np.float32), first=True)
    given.fill(0, np.ones(size, np.float32), first=False)
    assert given.length.tolist() == [size, 0, config.history_samples + 10]
    assert given.active.tolist() == [True, False, True] and given.reset.tolist() == [False, False, True]
    history = config.history_samples
    np.testing.assert_array_equal(memory[2, history : history + 10], np.arange(10))
    with pytest.raises(ValueError):
        given.fill(1, np.ones(size, np.float32), first=True)  # more than there is room for
    graphs, kept = StreamGraphs(phrases=recognizer.phrases(["fox"])), GraphRows(2)
    given.graphs.put(2, graphs)
    kept.put(0, graphs)
    given.shorten(1280)
    given.keep(np.array([2, 1]))
    assert given.samples.shape == (2, 1280) and given.length.tolist() == [history + 10, 0]
    assert given.active.tolist() == [True, False] and given.reset.tolist() == [True, False]
    assert given.graphs.key == kept.key
    given.clear(0)
    assert not (given.length.any() or given.active.any() or given.reset.any())
    assert given.graphs.key == GraphRows(2).key


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_rows(recognizer, size):
    with pytest.raises(ConfigError, match="size must be a whole number of at least 1"):
        recognizer.batch(size)


def test_compiler_options_and_the_search_reach_the_step(recognizer, monkeypatch):
    options = {"xla_cpu_enable_fast_math": False}
    seen = []
    monkeypatch.setattr(stream_batch, "jit_step", lambda given: lambda *args, **named: seen.append((given, named)))
    search = Greedy(window_frames=3)
    batch = stream_batch.StreamBatch(recognizer.model, recognizer.constants, 1, 2, search, options)
    with pytest.raises(TypeError):  # the step above returns nothing
        batch.step(StepInput.empty(batch.config, 2, batch.chunk_samples))
    assert seen == [(options, {"lookahead": 1, "search": search})]


def test_a_search_owns_its_state(recognizer, sounds, alone):
    """Another search is a value with a state of its own; the batch and the step know nothing of it."""

    class Counting(Greedy):
        """Greedy search that counts its frames."""

        def initial_state(self, prediction, batch):
            return super().initial_state(prediction, batch), jax.numpy.zeros(batch, jax.numpy.int32)

        def decode(self, model, encoded, length, state):
            emission, prediction = super().decode(model, encoded, length, state[0])
            return emission, (prediction, state[1] + length)

    batch = stream_batch.StreamBatch(recognizer.model, recognizer.constants, LOOKAHEAD, 2, Counting())
    found = [advance(batch, {1: sounds[0][i]})[1] for i in range(4)]
    assert found == alone[0][:4] and batch._state.decoder[1].tolist() == [0, 8]
    fresh = init_state(recognizer.model, recognizer.constants, 2, Counting())
    assert jax.tree.structure(fresh) == jax.tree.structure(batch._state)


def test_growing_writes_into_the_new_state(recognizer):
    """At no time are there two states of the larger size."""
    shapes = lambda size: jax.eval_shape(lambda: init_state(recognizer.model, recognizer.constants, size))
    memory = stream_batch._resized.lower(shapes(8), shapes(64), 8).compile().memory_analysis()
    assert memory.alias_size_in_bytes > 0.99 * memory.output_size_in_bytes
    assert memory.temp_size_in_bytes < 0.01 * memory.output_size_in_bytes


def test_rings_have_room_for_the_chunks_of_the_batch(recognizer):
    """A batch takes no memory for longer chunks than its own; of chunks that are longer than any ring, too."""
    encoder = recognizer.config.encoder
    for lookahead, room in ((0, 1), (6, 7), (13, 14), (34, encoder.largest_chunk_frames)):
        block = recognizer.batch(1, lookahead)._state.encoder.blocks[0]
        assert block.attention.keys.slots == encoder.left_context_frames + room
        assert block.convolution.frames.slots == encoder.convolution_kernel - 1 + room
