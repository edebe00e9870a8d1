"""Language models and phrases of streams, as users ask for them."""

import dataclasses
import itertools
import pickle
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import compilation
from nemojax.decoding.arpa import write_arpa
from nemojax.decoding.beam import Beam
from nemojax.decoding.estimation import estimate
from nemojax.decoding.graphs import Graphs
from nemojax.errors import ConfigError, LanguageModelError
from nemojax.recognition import offline, stream_batch
from nemojax.recognition.recognizer import load
from nemojax.recognition.stream_batch import StepInput, StreamBatch, jit_step
from nemojax.recognition.stream_graphs import NO_GRAPHS, GraphLibrary, GraphRows, StreamGraphs
from nemojax.streaming import init_state, segments_of, transcribe_scan
from tests.helpers.messages import ending, whole

LOOKAHEAD = 1
PHRASES = [("quick fox", 5.0), ("lazy", 3.0), ("a fine day", 5.0), ("two dogs", 4.0), "she said"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory, recognizer):
    """A language model that expects a few labels."""
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    rng = np.random.default_rng(0)
    sentences = [rng.choice([5, 9, 20, 33], 12).tolist() for _ in range(20)]
    write_arpa(path, estimate(sentences, recognizer.tokenizer.size, 3))
    return path


def pushed(stream, samples, size=4000, changes=None):
    """The labels and frames of a stream; `changes` has other phrases by the index of a push."""
    for index, first in enumerate(range(0, len(samples), size)):
        if changes and index in changes:
            stream.set_phrases(changes[index])
        stream.push(samples[first : first + size])
    transcript = stream.finish()
    return transcript.tokens, transcript.frames


def transcribed(recognizer, samples, **options):
    transcript = recognizer.transcribe(samples, LOOKAHEAD, **options)
    return transcript.tokens, transcript.frames


def test_phrases_replace_labels_and_are_the_same_in_a_stream_and_a_recording(recognizer, speech):
    plain = transcribed(recognizer, speech)
    tokens, frames = transcribed(recognizer, speech, phrases=PHRASES)
    assert tokens != plain[0] and frames[0] == plain[1][0]
    assert pushed(recognizer.stream(LOOKAHEAD, phrases=PHRASES), speech) == (tokens, frames)
    expecting = recognizer.with_phrases(PHRASES)
    assert transcribed(expecting, speech) == (tokens, frames)
    assert transcribed(expecting, speech, phrases=[]) == transcribed(expecting.with_phrases(None), speech) == plain
    assert transcribed(recognizer, speech, phrases=recognizer.phrases(PHRASES)) == (tokens, frames)


def test_every_segment_of_a_recording_has_its_graphs(recognizer, speech, monkeypatch):
    monkeypatch.setattr(offline, "SEGMENT_LEFT_CONTEXTS", (1,))  # of 5.6 s
    monkeypatch.setattr(offline, "COST_PER_SECOND", (1.0,))
    samples = np.tile(speech, 2)
    found = transcribed(recognizer, samples, phrases=PHRASES)
    assert found == pushed(recognizer.stream(LOOKAHEAD, phrases=PHRASES), samples)


def test_a_language_model_has_a_weight_for_each_request(recognizer, lm, speech):
    plain, with_lm = transcribed(recognizer, speech), recognizer.with_language_model(lm, 4.0)
    tokens, frames = transcribed(with_lm, speech)
    assert tokens != plain[0] and sum(label in (5, 9, 20, 33) for label in tokens) > len(tokens) / 2
    assert transcribed(with_lm, speech, lm_weight=0.0) == plain
    assert pushed(with_lm.stream(LOOKAHEAD, lm_weight=0), speech) == plain
    assert transcribed(recognizer.with_language_model(lm), speech, lm_weight=4.0) == (tokens, frames)
    both = transcribed(with_lm, speech, phrases=PHRASES)
    assert both not in (plain, (tokens, frames), transcribed(recognizer, speech, phrases=PHRASES))


def test_a_model_is_loaded_with_a_language_model_and_its_weight(checkpoint_directory, recognizer, lm):
    for given, weight in (({}, 0.3), ({"lm_weight": 0.7}, 0.7)):
        loaded = load(checkpoint_directory, lm=lm, **given)
        assert loaded.graphs.settings == recognizer.with_language_model(lm, weight).graphs.settings
    with_lm = recognizer.with_language_model(lm, 0.5)
    assert with_lm.stream(LOOKAHEAD, lm_weight=2, reset_prediction_after_s=1.0)._graphs.lm_weight == 2.0


def test_a_scan_takes_graphs_too(recognizer, speech):
    samples, rows = np.asarray(speech)[:40_000], GraphRows(1)
    rows.put(0, recognizer.requested_graphs(PHRASES, None))
    graphs = Graphs(recognizer.library.pool.arrays, rows.on_device(1))
    model, constants, search = recognizer.model, recognizer.constants, recognizer.search.with_fusion()
    length = jnp.array([len(samples)])
    segments = segments_of(jnp.asarray(samples[None]), length, LOOKAHEAD, 20, recognizer.config)
    state = init_state(model, constants, 1, search)
    emission = jax.device_get(transcribe_scan(model, constants, state, segments, LOOKAHEAD, search, graphs)[1])
    found = [labels[0, : length[0]].tolist() for labels, length in zip(emission.labels, emission.length, strict=True)]
    expected, _ = transcribed(recognizer, samples, phrases=PHRASES)
    assert tuple(itertools.chain(*found)) == expected != transcribed(recognizer, samples)[0]


def test_phrases_change_while_a_stream_runs(recognizer, speech):
    plain, always = transcribed(recognizer, speech), transcribed(recognizer, speech, phrases=PHRASES)
    assert pushed(recognizer.stream(LOOKAHEAD), speech, changes={0: PHRASES}) == always
    found = pushed(recognizer.stream(LOOKAHEAD), speech, changes={6: PHRASES})
    before = [label for label, frame in zip(*found, strict=True) if frame < 18]
    assert before == [label for label, frame in zip(*plain, strict=True) if frame < 18]
    assert found[0] not in (plain[0], always[0])
    unlike = [("lazy", 0.1)]  # changes no label here
    assert transcribed(recognizer, speech, phrases=unlike) == plain
    assert pushed(recognizer.stream(LOOKAHEAD, phrases=unlike), speech, changes={6: PHRASES}) == found
    assert pushed(recognizer.stream(LOOKAHEAD, phrases=PHRASES), speech, changes={0: None}) == plain


def test_other_phrases_compile_nothing(recognizer, speech):
    stream = recognizer.stream(LOOKAHEAD, phrases=["one"])
    stream.push(speech[:8000])
    compiled = jit_step()._cache_size()
    kept = [recognizer.phrases([f"{word} day" for word in words]) for words in (["fox"], ["two", "one"] * 3)]
    for phrases in (["two", "fine day"], None, [("dog", 3)] * 5, *kept):
        stream.set_phrases(phrases)
        stream.push(speech[:8000])
    recognizer.stream(LOOKAHEAD, phrases=["lazy dog"]).push(speech[:8000])
    recognizer.stream(LOOKAHEAD, phrases=["fox"]).push(speech[:8000])
    assert jit_step()._cache_size() == compiled


def test_a_new_stream_with_phrases_compiles_nothing(recognizer, speech):
    recognizer.stream(LOOKAHEAD, phrases=["one"]).push(speech[:8000])
    with compilation.Watch() as watch:
        for word in ("two", "fox"):
            recognizer.stream(LOOKAHEAD, phrases=[word]).push(speech[:8000])
    assert not [*watch.compiled, *watch.read]


def test_long_lists_of_phrases_leave_the_pool_as_large_as_it_is(recognizer):
    rng = np.random.default_rng(0)
    phrases = ["".join(rng.choice(["the", "she", "ing", "and", "do", "go", "fi"], 16)) for _ in range(400)]
    library = GraphLibrary(recognizer.tokenizer)
    sizes, kept = library.pool.sizes, library.phrases(phrases)
    assert library.pool.sizes == sizes and kept is not None


def test_phrases_of_another_recognizer_are_refused(recognizer):
    prepared = GraphLibrary(recognizer.tokenizer).phrases(["fox"])
    message = "these phrases were prepared by another recognizer; prepare them with this one's phrases()"
    with pytest.raises(ConfigError, match=whole(message)):
        recognizer.stream(phrases=prepared)
    changed = recognizer.with_config(recognizer.config)
    assert changed.stream(phrases=recognizer.phrases(["fox"])) is not None


def test_a_copy_of_a_recognizer_has_its_graphs(recognizer, lm, speech):
    expecting = recognizer.with_language_model(lm, 4.0).with_phrases(PHRASES)
    copied = pickle.loads(pickle.dumps(expecting))
    assert copied.library.pool is not expecting.library.pool
    assert transcribed(copied, speech) == transcribed(expecting, speech) != transcribed(recognizer, speech)
    assert transcribed(copied, speech, phrases=["fox"]) == transcribed(expecting, speech, phrases=["fox"])


def test_only_steps_with_graphs_wait_for_the_pool_and_not_while_they_are_compiled(recognizer, speech):
    plain, batch = recognizer.stream(LOOKAHEAD), recognizer.with_phrases(["fox"]).batch(1, LOOKAHEAD)
    lock, free = recognizer.library.pool.lock, []

    def try_lock():
        if lock.acquire(timeout=5):
            free.append(True)
            lock.release()

    def elsewhere(work):
        """Runs it in another thread; returns whether it ended."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(10)
        return not thread.is_alive()

    with lock:
        assert elsewhere(lambda: plain.push(speech[:8000]))

    class Step:
        def lower(self, *arguments, **settings):
            elsewhere(try_lock)
            raise StopIteration

    batch._step = Step()
    given = StepInput.empty(recognizer.config, 1, batch.chunk_samples)
    for work in (lambda: batch.step(given), lambda: batch.compile(batch.chunk_samples)):
        with pytest.raises(StopIteration):
            work()
    assert free == [True, True]


def test_a_step_with_graphs_is_lowered_once_in_a_process(recognizer, speech, monkeypatch):
    monkeypatch.setattr(stream_batch, "_compiled_steps", set())
    lowered, compile_step = [], StreamBatch._compile

    def counted(batch, segment, rows):
        lowered.append((batch.lookahead, batch.size))
        compile_step(batch, segment, rows)

    monkeypatch.setattr(StreamBatch, "_compile", counted)
    expecting = recognizer.with_phrases(["fox"])
    for phrases in (None, ["dog", "hen"], None):
        expecting.stream(LOOKAHEAD, phrases=phrases).push(speech[:8000])
    assert lowered == [(LOOKAHEAD, 1)]
    expecting.stream(0).push(speech[:8000])
    expecting.with_search(Beam(2)).stream(LOOKAHEAD).push(speech[:8000])
    assert lowered == [(LOOKAHEAD, 1), (0, 1), (LOOKAHEAD, 1)]
    warmed = expecting.batch(2, LOOKAHEAD)
    warmed.fuse()
    warmed.compile(warmed.chunk_samples)
    given = StepInput.empty(recognizer.config, 2, warmed.chunk_samples)
    given.fill(0, speech[:100], first=False)
    warmed.step(given)
    assert lowered[3:] == [(LOOKAHEAD, 2)]


def test_equal_lists_share_a_graph_and_a_dropped_one_gives_its_place_back(recognizer):
    first = recognizer.phrases(["brown", ("fox", 2)])
    assert recognizer.phrases([["brown", 1.0], ("fox", 2.0), ""]) is first
    start = first.start
    del first
    again = recognizer.phrases(["brown"])
    assert again.start == start


def test_wrong_requests(recognizer, lm, tmp_path):
    with pytest.raises(ConfigError, match=whole("phrases must be a list of phrases, not 'fox'")):
        recognizer.stream(phrases="fox")
    message = "lm_weight is the weight of a language model, and there is none; load one first"
    with pytest.raises(ConfigError, match=whole(message)):
        recognizer.stream(lm_weight=0.5)
    for weight in (-1, 101, float("nan"), "much", True):
        message = f"the weight of the language model must be a number from 0 to 100, not {weight!r}"
        with pytest.raises(ConfigError, match=whole(message)):
            recognizer.with_language_model(lm, weight)
    with pytest.raises(LanguageModelError, match=ending("none.arpa: it can't be read: No such file or directory")):
        recognizer.with_language_model(tmp_path / "none.arpa")
    other = dataclasses.replace(NO_GRAPHS)
    assert other.placed == [] and other.settings == {}


def test_settings_tell_language_models_and_phrases_apart(recognizer, lm):
    found = recognizer.with_language_model(lm, 0.5).with_phrases(["fox"]).graphs.settings
    again = recognizer.with_language_model(lm, 0.5).with_phrases(["fox"]).graphs.settings
    assert found == again and set(found) == {"lm", "lm_weight", "phrases"} and found["lm_weight"] == 0.5
    assert recognizer.with_phrases([("fox", 2)]).graphs.settings["phrases"] != found["phrases"]


def test_rows_are_alike_where_graphs_starts_and_weights_are(recognizer, lm):
    graphs = recognizer.with_language_model(lm, 0.5).with_phrases(["quick fox"]).graphs

    def key(graphs):
        rows = GraphRows(2)
        rows.put(1, graphs)
        return rows.key

    others = [{"lm_weight": 0.1}, {"phrases": None}, {"language_model": None}]
    keys = {key(graphs), *(key(dataclasses.replace(graphs, **other)) for other in others)}
    assert len(keys) == 4 and key(graphs) in keys


def test_the_rows_of_a_step_hold_their_graphs(recognizer):
    graphs = StreamGraphs(None, recognizer.phrases(["lazy"]), 0.5)
    rows = GraphRows(3)
    rows.put(2, graphs)
    device = rows.chosen(np.array([2, 0])).on_device(4)
    assert device.starts.tolist() == [[0, graphs.phrases.start], [0, 0], [0, 0], [0, 0]]
    assert device.weights.tolist() == [[0.5, 1.0], [0, 0], [0, 0], [0, 0]]
    assert device.numbers.tolist()[0] == [0, graphs.phrases.number]
    rows.clear(2)
    assert not rows.on_device(3).numbers.any() and rows.placed == {graphs.phrases}
    rows.clear()
    assert not rows.placed
