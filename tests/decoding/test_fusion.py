import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nemojax.decoding.fusion
from nemojax.decoding.fusion import CANDIDATES, RECENT, FusionState, best_label, enter, initial_fusion
from nemojax.decoding.graph_pool import GraphPool
from nemojax.decoding.graphs import COLUMNS, LANGUAGE_MODEL, PHRASES, Graph, Graphs, Rows, advance
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.phrases import Form, phrase_graph
from nemojax.decoding.state import initial_prediction
from tests.conftest import random_model
from tests.decoding.test_graphs import looked_up
from tests.decoding.test_greedy import label_scores, predict, rows
from tests.helpers.definitions import normal

LENGTHS = np.array([20, 13, 1, 20], np.int32)
WEIGHTS = (0.6, 1.0)


def language_model(labels: int, seed: int = 5) -> Graph:
    """A random graph in which every label has a score in every state, by a backoff at most."""
    rng, states = np.random.default_rng(seed), 6
    rows = [np.arange(labels)] + [np.sort(rng.choice(labels, 3, replace=False)) for _ in range(states - 1)]
    ends = np.cumsum([len(row) for row in rows])
    weights = -rng.uniform(0, 1, states) * (np.arange(states) > 0)
    scores = -rng.uniform(0, 6, ends[-1])
    return Graph(
        1,
        ends - [len(row) for row in rows],
        ends,
        np.zeros(states, np.int64),
        weights,
        np.zeros(states),
        np.zeros(states),
        np.concatenate(rows),
        scores,
        rng.integers(0, states, ends[-1]),
    )


def graphs_of(pool: GraphPool, streams) -> Graphs:
    """The graphs of streams, each a placed graph or None for each column."""
    starts = [[0 if graph is None else graph.start for graph in stream] for stream in streams]
    numbers = [[0 if graph is None else graph.number for graph in stream] for stream in streams]
    weights = np.tile(np.float32(WEIGHTS), (len(streams), 1))
    return Graphs(pool.arrays, Rows(np.int32(starts), weights, np.int32(numbers)))


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_the_best_label_is_that_of_scoring_all(scale):
    rng, labels = np.random.default_rng(1), 5 * CANDIDATES
    model = language_model(labels)
    phrases = phrase_graph([Form((int(a), int(b)), 4.0) for a, b in rng.integers(0, labels, (20, 2))])
    pool = GraphPool(labels)
    placed = [pool.add(model), pool.add(phrases)]
    states = np.stack([rng.integers(0, 6, 30), rng.integers(0, len(phrases.begin), 30)], axis=1)
    logits = np.float32(scale * rng.normal(size=(30, labels)))
    logits[0, :] = 1.0  # equal ones: the lower label
    logits[1, :] = np.nan
    graphs = graphs_of(pool, [placed] * 30)
    first = np.array([placed[0].start - model.start, placed[1].start])
    fusion = initial_fusion(30)._replace(states=jnp.int32(states + first), numbers=graphs.rows.numbers)
    best = np.argmax(logits, axis=1).astype(np.int32)
    found = jax.jit(best_label)(graphs, fusion, best, logits, np.arange(30) != 1)
    for row in [0, *range(2, 30)]:
        scored = [
            [looked_up(graph, states[row, g], y) for y in range(labels)] for g, graph in enumerate((model, phrases))
        ]
        fused = [logits[row, y] + sum(w * s[y][0] for w, s in zip(WEIGHTS, scored, strict=True)) for y in range(labels)]
        best = int(np.argmax(fused))
        assert found.label[row] == best
        assert (found.states[row] - first).tolist() == [s[best][1] for s in scored]


def test_of_labels_with_equal_scores_the_lower_is_taken():
    """Label 20 is more probable, and label 3 begins a phrase."""
    pool = GraphPool(5 * CANDIDATES)
    graphs = graphs_of(pool, [(None, pool.add(phrase_graph([Form((3, 4), 1.0)])))])
    logits = np.zeros((1, 5 * CANDIDATES), np.float32)
    logits[0, 20] = 1.0
    fusion = initial_fusion(1)._replace(states=graphs.rows.starts, numbers=graphs.rows.numbers)
    found = jax.jit(best_label)(graphs, fusion, np.array([20], np.int32), logits, np.array([True]))
    assert found.label.tolist() == [3]


def double_loop(model, encoded, length, graphs, starts, weights=WEIGHTS):
    """The definition: whether a label comes is decided without graphs, and which with them."""
    config, states, found = model.config, list(starts), []
    output, lstm = predict(model, np.array([config.blank]), model.prediction.initial_cache(1))
    for t in range(length):
        for _ in range(config.max_symbols_per_frame):
            scores = np.asarray(label_scores(model, np.asarray(encoded)[t][None], output))
            if int(scores.argmax()) == config.blank:
                break
            fused = scores[: config.blank].astype(np.float64)
            for weight, graph, state in zip(weights, graphs, states, strict=True):
                if graph is not None:
                    fused += weight * np.array([looked_up(graph, state, y)[0] for y in range(config.blank)])
            label = int(fused.argmax())
            states = [
                state if graph is None else looked_up(graph, state, label)[1]
                for graph, state in zip(graphs, states, strict=True)
            ]
            found.append((label, t, float(scores[label])))
            output, lstm = predict(model, np.array([label]), lstm)
    return found


class Case:
    """A model, frames, and four streams with graphs of all kinds."""

    def __init__(self, tiny_config):
        config = dataclasses.replace(tiny_config, max_symbols_per_frame=3)
        self.model = random_model(config, seed=1, blank_bias=4.0)
        self.encoded = 2.0 * normal(0, 4, 20, config.encoder.width)
        rng = np.random.default_rng(2)
        phrases = lambda: phrase_graph([Form(tuple(p), 2.0) for p in rng.integers(0, config.blank, (40, 3)).tolist()])
        lm, first, second = language_model(config.blank), phrases(), phrases()
        self.graphs = [(lm, first), (None, second), (lm, None), (None, None)]
        self.pool = GraphPool(config.blank)
        placed = {id(graph): self.pool.add(graph) for graph in (lm, first, second)}
        self.streams = [tuple(placed.get(id(graph)) for graph in stream) for stream in self.graphs]
        self.search = Greedy(5, fusion=True)
        self.decode = jax.jit(self.search.decode)
        starts = [[0 if graph is None else graph.start for graph in stream] for stream in self.graphs]
        self.expected = [
            double_loop(self.model, self.encoded[b], LENGTHS[b], self.graphs[b], starts[b]) for b in range(4)
        ]

    def initial(self, batch=4):
        return self.search.initial_state(initial_prediction(self.model), batch)

    def run(self, streams, size=20, order=slice(None), encoded=None):
        """(label, frame) of each row, where frames come in pieces of this size; `streams` are those of each piece."""
        encoded = self.encoded if encoded is None else encoded
        state, found = self.initial(), [[] for _ in range(4)]
        for index, first in enumerate(range(0, 20, size)):
            piece = np.pad(encoded[order, first : first + size], ((0, 0), (0, max(0, first + size - 20)), (0, 0)))
            length = np.clip(LENGTHS[order] - first, 0, size).astype(np.int32)
            graphs = graphs_of(self.pool, streams[index] if isinstance(streams[0], list) else streams)
            emission, state = self.decode(self.model, piece, length, state, graphs)
            for row, (labels, frames, _) in zip(found, rows(emission, first), strict=True):
                row += zip(labels, frames, strict=True)
        return found


@pytest.fixture(scope="module")
def case(tiny_config):
    return Case(tiny_config)


def places(found):
    return [[(label, frame) for label, frame, _ in row] for row in found]


def test_greedy_with_graphs_is_the_definition(case):
    plain = Greedy(5)
    emission, _ = jax.jit(plain.decode)(
        case.model, case.encoded, LENGTHS, plain.initial_state(initial_prediction(case.model), 4)
    )
    without = [list(zip(*row[:2], strict=True)) for row in rows(emission)]
    assert [a == b for a, b in zip(without, places(case.expected), strict=True)] == [False, False, False, True]
    emission, _ = case.decode(case.model, case.encoded, LENGTHS, case.initial(), graphs_of(case.pool, case.streams))
    for row, want in zip(rows(emission), case.expected, strict=True):
        assert list(zip(*row[:2], strict=True)) == [each[:2] for each in want]
        np.testing.assert_allclose(row[2], [each[2] for each in want], atol=3e-5)  # of the label without graphs


def test_a_stream_remembers_the_labels_that_it_found(case):
    graphs = graphs_of(case.pool, case.streams)
    emission, state = case.decode(case.model, case.encoded, LENGTHS, case.initial(), graphs)
    for (labels, *_), recent in zip(rows(emission), np.asarray(state.fusion.recent), strict=True):
        assert recent[recent >= 0].tolist() == list(labels)[-RECENT:] != []


@pytest.mark.parametrize("size", [1, 7])
def test_pieces_give_the_whole(case, size):
    assert case.run(case.streams, size) == places(case.expected)


def test_other_rows_and_their_order_change_nothing(case):
    order = np.array([2, 0, 3, 1])
    found = case.run([case.streams[b] for b in order], 20, order)
    assert [found[list(order).index(b)] for b in range(4)] == places(case.expected)
    poisoned = case.encoded.copy()
    poisoned[0] = np.nan
    assert case.run(case.streams, 20, encoded=poisoned)[1:] == places(case.expected)[1:]


def test_graphs_that_come_later_are_as_if_they_had_been_there(case):
    """Of the labels after the swap, those are the same whose beginnings were: here a graph that changes no label."""
    inert = case.pool.add(phrase_graph([Form((1, 2), 0.0)]))
    begun = [(lm, None if phrases is None else inert) for lm, phrases in case.streams]
    first = case.run(begun)
    late = [begun, case.streams, case.streams, case.streams, case.streams]
    for row, (found, want) in enumerate(zip(case.run(late, 4), first, strict=True)):
        assert [each for each in found if each[1] < 4] == [each for each in want if each[1] < 4]
        state = follow_from(case, row, [label for label, frame in found if frame < 4])
        assert state == entered(case, row, [label for label, frame in found if frame < 4])


def follow_from(case, row, labels):
    """The states of a row's graphs after labels, by the definition."""
    states = [0 if graph is None else graph.start for graph in case.graphs[row]]
    for label in labels:
        states = [
            0 if graph is None else looked_up(graph, state, label)[1]
            for graph, state in zip(case.graphs[row], states, strict=True)
        ]
    placed = zip(states, case.graphs[row], case.streams[row], strict=True)
    return [0 if graph is None else state + place.start - graph.start for state, graph, place in placed]


def entered(case, row, labels):
    """The states into which `enter` brings a stream of these labels."""
    recent = np.full((1, RECENT), -1, np.int32)
    recent[0, RECENT - len(labels) :] = labels
    fusion = initial_fusion(1)._replace(recent=jnp.asarray(recent))
    return enter(graphs_of(case.pool, [case.streams[row]]), fusion, jnp.array([True])).states[0].tolist()


@pytest.mark.parametrize("labels, expected", [([], 0), ([3], 1), ([3, 1, 2], 3), ([1] * RECENT, RECENT)])
def test_entering_a_graph_looks_up_the_labels_of_the_stream_alone(case, labels, expected, monkeypatch):
    looked_up = []

    def counted(*arguments):
        jax.debug.callback(lambda: looked_up.append(1))
        return advance(*arguments)

    monkeypatch.setattr(nemojax.decoding.fusion, "advance", counted)
    entered(case, 0, labels)
    jax.effects_barrier()
    assert len(looked_up) == expected


def test_a_stream_that_takes_no_frames_enters_no_graph(case):
    graphs = graphs_of(case.pool, case.streams[:2])
    after = enter(graphs, initial_fusion(2), jnp.array([True, False]))
    assert isinstance(after, FusionState) and after.numbers[0].any() and not after.numbers[1].any()
    assert not after.states[1].any()
    left = enter(graphs_of(case.pool, case.streams[2:]), after, jnp.array([True, True]))
    assert left.states[0, PHRASES] == 0 and left.states[0, LANGUAGE_MODEL] == case.streams[2][0].start
    assert left.states.shape == (2, COLUMNS)


def test_a_weight_of_zero_and_no_graph_give_the_bits_of_greedy(case):
    plain = Greedy(5)
    before = plain.initial_state(initial_prediction(case.model), 4)
    expected = jax.jit(plain.decode)(case.model, case.encoded, LENGTHS, before)[0]
    graphs = graphs_of(case.pool, case.streams)
    weightless = graphs._replace(rows=graphs.rows._replace(weights=np.zeros((4, COLUMNS), np.float32)))
    for given in (weightless, graphs_of(case.pool, [(None, None)] * 4)):
        emission = case.decode(case.model, case.encoded, LENGTHS, case.initial(), given)[0]
        jax.tree.map(np.testing.assert_array_equal, emission, expected)
