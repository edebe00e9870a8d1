import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.decoding.graph_pool import PAGE, GraphPool
from nemojax.decoding.graphs import Graph, advance, scores
from nemojax.decoding.phrases import Form, phrase_graph

LABELS = 9


def random_graph(seed: int, states: int = 7) -> Graph:
    """A graph like a language model's: each state backs off to a lower one, and the lowest has every label."""
    rng = np.random.default_rng(seed)
    rows = [np.sort(rng.choice(LABELS, LABELS if s == 0 else rng.integers(0, 4), replace=False)) for s in range(states)]
    ends = np.cumsum([len(row) for row in rows])
    labels = np.concatenate(rows)
    backoff = np.array([0] + [rng.integers(0, s) for s in range(1, states)])
    weights = rng.normal(size=states) * (backoff != np.arange(states))
    return Graph(
        int(rng.integers(states)),
        ends - [len(row) for row in rows],
        ends,
        backoff,
        weights,
        np.full(states, 50.0),
        np.zeros(states),
        labels,
        rng.normal(size=len(labels)),
        rng.integers(0, states, len(labels)),
    )


def looked_up(graph: Graph, state: int, label: int) -> tuple[float, int]:
    """The definition: the arc of the state, or of the state that it backs off to, and so on."""
    total = 0.0
    while True:
        for arc in range(graph.begin[state], graph.end[state]):
            if graph.labels[arc] == label:
                return total + graph.scores[arc], graph.targets[arc]
        if graph.backoff[state] == state:
            return total, state
        total += graph.backoff_scores[state]
        state = graph.backoff[state]


def test_a_label_is_looked_up_as_the_definition_says_wherever_the_graph_is():
    pool = GraphPool(LABELS, 4 * PAGE, 4 * PAGE)
    graphs = [random_graph(seed) for seed in range(3)]
    placed = [pool.add(graph) for graph in graphs]
    for graph, place in zip(graphs, placed, strict=True):
        first = place.start - graph.start
        states = np.arange(len(graph.begin))[:, None]
        found, after = jax.jit(advance)(pool.arrays, jnp.asarray(first + states), jnp.arange(LABELS)[None])
        expected = [[looked_up(graph, int(s), y) for y in range(LABELS)] for s in states[:, 0]]
        np.testing.assert_allclose(found, [[score for score, _ in row] for row in expected], atol=1e-6)
        np.testing.assert_array_equal(after, [[first + state for _, state in row] for row in expected])
        np.testing.assert_array_equal(
            found, scores(pool.arrays, jnp.asarray(first + states[:, 0]), jnp.arange(LABELS)[None])
        )


def test_the_empty_graph_has_no_cost_and_is_never_left():
    pool = GraphPool(LABELS, 2 * PAGE, 2 * PAGE)
    placed = pool.add(random_graph(0))
    score, after = advance(pool.arrays, jnp.zeros(LABELS, jnp.int32), jnp.arange(LABELS))
    assert placed.start >= PAGE and not score.any() and not after.any()


def test_a_place_is_used_again_once_nobody_refers_to_its_graph():
    pool = GraphPool(LABELS, 3 * PAGE, 2 * PAGE)
    kept, dropped = pool.add(random_graph(0)), pool.add(random_graph(1))
    start = dropped.start - random_graph(1).start
    del dropped
    graph = random_graph(2)
    again = pool.add(graph)
    assert again.start - graph.start == start and again.number == 3 and kept.number == 1
    assert pool.arrays.begin.size == 3 * PAGE


def test_graphs_that_come_and_go_never_fill_a_pool():
    """Here of two pages of arcs and one of states."""
    labels, zeros = np.arange(PAGE + 1), np.zeros(1)
    graph = Graph(
        0, np.array([0]), np.array([PAGE + 1]), np.array([0]), zeros, zeros, zeros, labels, labels, 0 * labels
    )
    pool = GraphPool(PAGE + 1, 2 * PAGE, 4 * PAGE)
    assert len({pool.add(graph).start for _ in range(4)}) == 1 and pool.sizes == (2 * PAGE, 4 * PAGE)


def test_a_pool_that_is_full_is_doubled_and_keeps_its_graphs():
    pool = GraphPool(LABELS, 2 * PAGE, 2 * PAGE)
    graphs = [random_graph(seed) for seed in range(5)]
    placed = [pool.add(graph) for graph in graphs]
    assert pool.arrays.begin.size == 8 * PAGE and pool.arrays.labels.size == 8 * PAGE
    for graph, place in zip(graphs, placed, strict=True):
        score, after = advance(pool.arrays, jnp.int32(place.start), jnp.int32(4))
        expected, state = looked_up(graph, graph.start, 4)
        assert float(score) == pytest.approx(expected, abs=1e-6) and int(after) - place.start == state - graph.start


def test_a_graph_larger_than_what_is_written_at_once_is_whole():
    forms = [Form((a, b), 1.0) for a in range(70) for b in range(70)]
    graph, pool = phrase_graph(forms), GraphPool(70, PAGE, PAGE)
    first = pool.add(graph).start
    np.testing.assert_array_equal(pool.arrays.labels[PAGE * 0 : graph.labels.size], graph.labels)
    np.testing.assert_array_equal(pool.arrays.targets[: graph.labels.size], graph.targets + first)
    np.testing.assert_array_equal(pool.arrays.most[first : first + graph.most.size], graph.most.astype(np.float32))


def test_a_copy_of_a_pool_has_its_graphs_and_their_places():
    pool, graph = GraphPool(LABELS, 3 * PAGE, 2 * PAGE), random_graph(0)
    kept = pool.add(graph)
    copied, of_copy = pickle.loads(pickle.dumps((pool, kept)))
    assert of_copy.pool is copied and kept.pool is pool and of_copy.start == kept.start
    np.testing.assert_array_equal(copied.arrays.targets, pool.arrays.targets)
    del of_copy
    assert copied.add(graph).start == kept.start and copied.sizes == pool.sizes
    assert pool.add(graph).start != kept.start
