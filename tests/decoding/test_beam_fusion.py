"""Graphs in a beam: the definition, any cut, and streams with and without graphs side by side."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.decoding.beam import Beam
from nemojax.decoding.beam_fusion import Fusing, initial_beam_fusion
from nemojax.decoding.beam_scores import Graphed, score_frames
from nemojax.decoding.fusion import CANDIDATES
from nemojax.decoding.graph_pool import GraphPool
from nemojax.decoding.graphs import COLUMNS, Graphs
from nemojax.decoding.phrases import Form, phrase_graph
from nemojax.decoding.state import initial_prediction
from nemojax.errors import ConfigError
from nemojax.kernels.fixed_order import fix_order
from tests.conftest import random_model
from tests.decoding.plain_beams import Network, maes
from tests.decoding.test_beam import ends, whole_of
from tests.decoding.test_fusion import WEIGHTS, graphs_of, language_model
from tests.decoding.test_graphs import looked_up
from tests.helpers.compiler import needs_compiler
from tests.helpers.definitions import normal
from tests.helpers.messages import whole

LENGTHS = np.array([12, 9, 12, 0], np.int32)


class Case:
    """A model, frames, and four streams with graphs of all kinds."""

    def __init__(self, tiny_config):
        self.model = random_model(tiny_config, seed=1, blank_bias=12.0)
        self.encoded = 2.0 * normal(0, 4, 12, tiny_config.encoder.width)
        rng = np.random.default_rng(2)
        self.blank = blank = tiny_config.blank
        forms = [Form(tuple(labels), 2.0) for labels in rng.integers(0, blank, (60, 3)).tolist()]
        lm, phrases = language_model(blank), phrase_graph(forms)
        self.graphs = [(lm, phrases), (None, phrases), (lm, None), (None, None)]
        self.pool = GraphPool(blank)
        placed = {id(graph): self.pool.add(graph) for graph in (lm, phrases)}
        self.streams = [tuple(placed.get(id(graph)) for graph in stream) for stream in self.graphs]
        self.decode = jax.jit(
            lambda model, encoded, length, state, graphs, search: search.decode(model, encoded, length, state, graphs),
            static_argnames="search",
        )

    def run(self, search, streams, model=None, encoded=None, length=LENGTHS, state=None):
        """The emission, and the state after it."""
        model, encoded = model or self.model, self.encoded if encoded is None else encoded
        if state is None:
            state = search.initial_state(initial_prediction(model), len(encoded))
        graphs = graphs_of(self.pool, streams) if search.fusion else None
        emission, state = self.decode(model, encoded, length, state, graphs, search=search)
        return jax.device_get(emission), state


@pytest.fixture(scope="module")
def case(tiny_config):
    return Case(tiny_config)


@pytest.mark.parametrize("blank_scoring", ["lm_weighted_full", "no_score"])
def test_it_is_the_definition(case, blank_scoring):
    search = Beam(4, fusion=True, blank_scoring=blank_scoring)
    emission, _ = case.run(search, case.streams)
    differs = 0
    for row, length in enumerate(LENGTHS.tolist()):
        weighted = blank_scoring == "lm_weighted_full" and case.graphs[row][0] is not None
        graphs = list(zip(case.graphs[row], WEIGHTS, strict=True))
        network = Network(case.model, case.encoded[row], graphs, WEIGHTS[0] if weighted else 0.0)
        expected, found = maes(network, length, 4), ends(emission, row)
        assert set(found) == {one.labels for one in expected}
        for one in expected:
            frames, log_probs, score = found[one.labels]
            assert frames == one.frames and score == pytest.approx(one.score - network.pending(one), abs=2e-3)
            np.testing.assert_allclose(log_probs, one.log_probs, atol=2e-4)  # without the graphs
        differs += set(found) != {one.labels for one in maes(Network(case.model, case.encoded[row]), length, 4)}
    assert differs == 3


def test_no_score_finds_labels_where_the_model_finds_none(case, tiny_config):
    """Where blank is that much more probable than all labels together, scores of any height choose among nothing."""
    search, weights = Beam(4, fusion=True, blank_scoring="no_score"), np.full((4, COLUMNS), 20.0, np.float32)
    labels = {}
    for bias in (12.0, 30.0):
        model = random_model(tiny_config, seed=1, blank_bias=bias)
        graphs = graphs_of(case.pool, case.streams)
        graphs = Graphs(graphs.pool, graphs.rows._replace(weights=weights))
        start = search.initial_state(initial_prediction(model), 4)
        emission = jax.device_get(case.decode(model, case.encoded, LENGTHS, start, graphs, search=search)[0])
        network = Network(model, case.encoded[1], [(case.graphs[1][1], 20.0)])
        found, expected = ends(emission, 1), maes(network, int(LENGTHS[1]), 4)
        assert set(found) == {one.labels for one in expected}
        labels[bias] = max(found, key=len)
    assert len(labels[12.0]) > 0 and labels[30.0] == ()


@pytest.mark.parametrize("blank_scoring", ["lm_weighted_full", "no_score"])
def test_no_label_scores_more_than_the_bound_of_its_frame(case, blank_scoring):
    fusing = Fusing(graphs_of(case.pool, case.streams), blank_scoring)
    fusion = fusing.enter(initial_beam_fusion(4, 1), jnp.ones(4, bool))
    output = normal(5, 4, 1, case.model.config.joint.width)
    given = case.model.joint.encoder(jnp.asarray(case.encoded)), jnp.asarray(output), jnp.zeros((4, 1), jnp.int32)
    scores = jax.device_get(score_frames(case.model, *given, Graphed(fusing, fusion), gamma=50.0))
    labels = jnp.broadcast_to(jnp.arange(case.blank, dtype=jnp.int32), (4, 1, case.blank))
    added = fusing.scores(fusion, labels)
    log_probs = scores.logits[..., : case.blank] - scores.normalizer[..., None]
    fused = (log_probs + scores.offset[..., None] + np.asarray(added)[:, :, None]).max(axis=-1)
    assert (fused <= scores.best_label + 1e-4).all() and (fused > log_probs.max(axis=-1) + scores.offset + 0.5).any()


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_best_labels_are_those_of_scoring_all(scale):
    rng, labels, width = np.random.default_rng(1), 5 * CANDIDATES, 3
    model = language_model(labels)
    phrases = phrase_graph([Form((int(a), int(b)), 4.0) for a, b in rng.integers(0, labels, (20, 2))])
    pool = GraphPool(labels)
    placed = [pool.add(model), pool.add(phrases)]
    states = np.stack([rng.integers(0, 6, (5, width)), rng.integers(0, len(phrases.begin), (5, width))], axis=-1)
    first = np.array([placed[0].start - model.start, placed[1].start])
    logits = np.float32(scale * rng.normal(size=(5, width, labels)))
    fusion = initial_beam_fusion(5, width)._replace(states=jnp.int32(states + first))
    best = lambda graphs, logits: Fusing(graphs, "no_score").best(fusion, logits, 6, jnp.ones((5, width), bool))
    found = jax.device_get(jax.jit(best)(graphs_of(pool, [placed] * 5), logits))
    for row, place in np.ndindex(5, width):
        scores = np.zeros(labels)
        for graph, weight, state in zip((model, phrases), WEIGHTS, states[row, place], strict=True):
            scores += weight * np.array([looked_up(graph, state, label)[0] for label in range(labels)])
        fused = logits[row, place] + scores
        assert found.label[row, place].tolist() == np.argsort(-fused, kind="stable")[:6].tolist()
        np.testing.assert_allclose(found.score[row, place], scores[found.label[row, place]], atol=1e-5)


def test_all_of_the_best_labels_are_sought_and_not_the_best_one_alone():
    """Four of the five labels with a boost are less probable than those that are scored at first."""
    boosted = [0, *range(CANDIDATES, CANDIDATES + 4)]
    pool = GraphPool(5 * CANDIDATES)
    phrases = pool.add(phrase_graph([Form((label,), 4.0) for label in boosted]))
    fusion = initial_beam_fusion(1, 1)._replace(states=jnp.array([[[0, phrases.start]]], jnp.int32))
    logits = -0.01 * jnp.arange(5 * CANDIDATES, dtype=jnp.float32)[None, None]
    best = Fusing(graphs_of(pool, [[None, phrases]]), "no_score").best(fusion, logits, 6, jnp.ones((1, 1), bool))
    assert best.label[0, 0].tolist() == [*boosted, 1]


@pytest.mark.slow  # five programs are compiled
@needs_compiler
def test_any_cut_gives_the_same_bits_and_so_does_a_stream_without_graphs(case):
    """Beside streams with graphs, one without them has the bits of a search that knows none; so has a weight of 0."""
    model, search = fix_order(case.model), Beam(4, fusion=True)
    emission, _ = case.run(search, case.streams, model)
    alone = [ends(emission, row) for row in range(4)]
    pieces, state = [], None
    for begin in range(0, 12, 5):
        length = np.clip(LENGTHS - begin, 0, 5).astype(np.int32)
        part = np.pad(case.encoded[:, begin : begin + 5], ((0, 0), (0, max(0, begin + 5 - 12)), (0, 0)))
        emission, state = case.run(search, case.streams, model, part, length, state)
        pieces.append((emission, begin))
    assert [whole_of([(one, row, begin) for one, begin in pieces]) for row in range(4)] == alone

    plain, _ = case.run(Beam(4), None, model)
    nothing, _ = case.run(search, [(None, None)] * 4, model)
    graphs = graphs_of(case.pool, case.streams)
    weightless = Graphs(graphs.pool, graphs.rows._replace(weights=np.zeros((4, COLUMNS), np.float32)))
    start = search.initial_state(initial_prediction(model), 4)
    zero = jax.device_get(case.decode(model, case.encoded, LENGTHS, start, weightless, search=search)[0])
    for row in range(4):
        assert ends(plain, row) == ends(nothing, row) == ends(zero, row)
    assert alone[3] == ends(plain, 3) and alone[0] != ends(plain, 0)


def test_graphs_that_come_later_are_entered_with_the_labels_so_far(case):
    """The states and what is pending are those of graphs that have been there from the start."""
    search = Beam(2, fusion=True)
    nothing = [(None, None)] * 4
    half = np.minimum(LENGTHS, 6)
    _, state = case.run(search, nothing, encoded=case.encoded[:, :6], length=half)
    emission, after = case.run(search, case.streams, encoded=case.encoded[:, 6:], length=LENGTHS - half, state=state)
    again, _ = case.run(search, nothing, encoded=case.encoded[:, 6:], length=LENGTHS - half, state=state)
    fusion = jax.device_get(after.fusion)
    for row, graphs in enumerate(case.graphs):
        for column, (graph, placed) in enumerate(zip(graphs, case.streams[row], strict=True)):
            for place in np.flatnonzero(emission.score[row] > -np.inf):
                labels = fusion.recent[row, place]
                state = 0 if graph is None else graph.start
                for label in labels[labels >= 0]:
                    state = state if graph is None else looked_up(graph, state, int(label))[1]
                first = 0 if placed is None else placed.start - graph.start
                assert fusion.states[row, place, column] == first + state or LENGTHS[row] == 0
    assert ends(emission, 0) != ends(again, 0) and ends(emission, 3) == ends(again, 3)


def test_a_phrase_that_is_left_unfinished_costs_nothing_though_it_came_after_its_first_label(case):
    search, nothing, half = Beam(2, fusion=True), [(None, None)] * 4, np.minimum(LENGTHS, 6)
    first, state = case.run(search, nothing, encoded=case.encoded[:, :6], length=half)
    rest = {"encoded": case.encoded[:, 6:], "length": LENGTHS - half, "state": state}
    expected, _ = case.run(search, nothing, **rest)
    last = int(first.labels[0, 0, first.length[0, 0] - 1])
    never = next(label for label in range(case.blank) if label not in expected.labels)
    phrase = case.pool.add(phrase_graph([Form((last, never), 0.1)]))
    found, _ = case.run(search, [(None, phrase)] * 4, **rest)
    np.testing.assert_array_equal(found.labels[0], expected.labels[0])
    np.testing.assert_allclose(found.score[0] + found.total[0], expected.score[0] + expected.total[0], atol=1e-3)


def test_a_beam_with_fusion_and_no_graphs_is_one_without(case):
    """As in `transcribe_scan` without graphs."""
    search = Beam(2, fusion=True)
    start = search.initial_state(initial_prediction(case.model), 4)
    found, _ = case.decode(case.model, case.encoded, LENGTHS, start, None, search=search)
    plain, _ = case.run(Beam(2), None)
    assert all(set(ends(jax.device_get(found), row)) == set(ends(plain, row)) for row in range(4))


def test_another_scoring_of_blank_is_refused():
    message = "blank_scoring of a beam must be lm_weighted_full or no_score, not 'full'"
    with pytest.raises(ConfigError, match=whole(message)):
        Beam(4, blank_scoring="full")
    assert dataclasses.replace(Beam(4), fusion=True) == Beam(4).with_fusion()
