import itertools
import math

import numpy as np
import pytest

from nemojax.decoding.phrases import MAX_BONUS, Form, phrase_graph, sums
from tests.decoding.test_graphs import looked_up

A, B, C, D, X, MARK = range(6)
TWO, THREE = 1 + 2 + math.log(2), 1 + 2 + math.log(2) + 2 + math.log(3)


def walk(graph, labels, state=0):
    """The scores of labels, and the state after them."""
    found = []
    for label in labels:
        score, state = looked_up(graph, state, label)
        found.append(score)
    return found, state


def total(graph, labels):
    return sum(walk(graph, labels)[0])


def test_scores_of_a_phrase_and_of_one_that_is_left_unfinished():
    graph = phrase_graph([Form((A, B, C), 1.0)])
    assert walk(graph, (A, B, C))[0] == pytest.approx([1.0, 2.693, 3.099], abs=1e-3)
    assert walk(graph, (A, B, X))[0] == pytest.approx([1.0, 2.693, -3.693], abs=1e-3)
    assert walk(graph, (X, C, B))[0] == [0, 0, 0]


def test_a_phrase_keeps_its_bonus_where_its_end_begins_another():
    graph = phrase_graph([Form((A, B), 1.0), Form((B, C), 1.0)])
    assert total(graph, (A, B, X)) == pytest.approx(TWO)
    assert total(graph, (A, B, C)) == pytest.approx(2 * TWO)
    assert total(graph, (B, C, B, X)) == pytest.approx(TWO)


@pytest.mark.parametrize("turned", [False, True])
def test_phrases_of_different_boosts_that_begin_alike_in_any_order(turned):
    forms = [Form((A, B, C), 1.0), Form((A, D), 5.0)]
    graph = phrase_graph(forms[::-1] if turned else forms)
    assert total(graph, (A, B, X)) == pytest.approx(0)
    assert total(graph, (A, B, C)) == pytest.approx(THREE)
    assert total(graph, (A, D)) == pytest.approx(5 * TWO)


def test_what_is_pending_at_the_end_of_a_stream_is_known():
    graph = phrase_graph([Form((A, B, C), 2.0), Form((A,), 1.0)])
    for labels, expected in (((A,), 1.0), ((A, B), 2 * TWO - 1), ((A, B, C), 0.0), ((A, B, X), 0.0)):
        _, state = walk(graph, labels)
        assert graph.pending[state] == pytest.approx(expected), labels
    assert total(graph, (A, B)) - graph.pending[walk(graph, (A, B))[1]] == pytest.approx(1.0)


def test_a_phrase_inside_another_keeps_its_bonus():
    graph = phrase_graph([Form((A, B, C, D), 1.0), Form((B, C), 1.0)])
    assert total(graph, (A, B, C, X)) == pytest.approx(TWO)
    assert total(graph, (A, B, C, B, C)) == pytest.approx(2 * TWO)


def test_a_long_phrase_earns_no_more_than_the_most():
    assert sums(3) == pytest.approx([1.0, TWO, THREE])
    assert sums(3, 2) == pytest.approx([1.0, TWO, TWO]) and sums(2, 3) == sums(2, 2) == sums(2)
    assert sums(40)[-1] == MAX_BONUS and total(phrase_graph([Form(tuple(range(40)), 3.0)]), range(40)) == 3 * MAX_BONUS


def occurrences(forms, marks, labels):
    """The definition: what the phrases that are complete earn, and what the longest phrase begun has earned."""
    paths: dict[tuple[int, ...], list[Form]] = {}
    for form in forms:
        for count in range(1, len(form.labels) + 1):
            paths.setdefault((form.after_mark, form.labels[:count]), []).append(form)
    ends = lambda path: max(
        (f.boost * sums(len(f.labels))[-1] for f in paths[path] if f.labels == path[1]), default=0.0
    )
    kept = lambda path: max((ends((path[0], path[1][:n])) for n in range(1, len(path[1]) + 1)), default=0.0)
    kept_before = lambda path: kept((path[0], path[1][:-1])) if len(path[1]) > 1 else 0.0

    def begun(count):
        """Paths that the first `count` labels end with, the longest first."""
        for first in range(count):
            here = tuple(labels[first:count])
            if (False, here) in paths:
                yield False, here
            if labels[first] in marks and (True, here[1:]) in paths:
                yield True, here[1:]

    complete = sum(kept(path) - kept_before(path) for count in range(len(labels) + 1) for path in begun(count))
    longest = next(begun(len(labels)), None)
    if longest is None:
        return complete
    most = max(form.boost * sums(len(form.labels))[len(longest[1]) - 1] for form in paths[longest])
    return complete + max(0.0, most - kept(longest))


@pytest.mark.parametrize("seed", range(12))
def test_any_labels_score_what_the_definition_says(seed):
    rng = np.random.default_rng(seed)
    marks = {MARK} if seed % 2 else set()
    forms = [
        Form(
            tuple(rng.integers(0, 6, rng.integers(1, 5)).tolist()),
            float(rng.uniform(0.1, 5)),
            bool(marks and k % 3 == 0),
        )
        for k in range(8)
    ]
    graph, again = phrase_graph(forms, marks), phrase_graph(forms[::-1], marks)
    for labels in itertools.chain(itertools.product(range(6), repeat=3), rng.integers(0, 6, (100, 12)).tolist()):
        assert total(graph, labels) == pytest.approx(occurrences(forms, marks, labels), abs=1e-9)
        assert total(again, labels) == pytest.approx(total(graph, labels), abs=1e-9)


def test_no_label_scores_more_than_the_state_says():
    rng = np.random.default_rng(3)
    forms = [Form(tuple(rng.integers(0, 5, 3).tolist()), float(rng.uniform(0.1, 5))) for _ in range(8)]
    graph = phrase_graph(forms)
    for state in range(len(graph.begin)):
        highest = max(looked_up(graph, state, label)[0] for label in range(6))
        assert highest < graph.most[state] < highest + 2 * 5 * MAX_BONUS


def test_no_phrases_are_a_graph_without_scores():
    graph = phrase_graph([])
    assert walk(graph, (A, B))[0] == [0, 0]


def test_forms_after_a_mark_count_only_there():
    graph = phrase_graph([Form((A, B), 1.0, after_mark=True)], {MARK})
    assert total(graph, (MARK, A, B)) == pytest.approx(TWO) and total(graph, (A, B)) == 0
    assert total(graph, (MARK, MARK, A)) == pytest.approx(1.0) and total(graph, (MARK, A, X)) == pytest.approx(0)
