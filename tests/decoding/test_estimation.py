import math

import numpy as np
import pytest

from nemojax.decoding.arpa import write_arpa
from nemojax.decoding.estimation import estimate
from tests.decoding.test_graphs import looked_up
from tests.decoding.test_language_model import graph_of, score_of

LABELS = 7


def sentences(seed=0, count=300):
    """Labels of which each mostly is the one before it plus one; label 6 is in none."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        labels = [int(rng.integers(6))]
        while rng.random() > 0.15:
            labels.append(int((labels[-1] + 1) % 6 if rng.random() < 0.8 else rng.integers(6)))
        found.append(labels)
    return found


def by_labels(orders):
    """Entries as `score_of` takes them."""
    label = lambda word: word if word.startswith("<") else ord(word) - 100
    return [{tuple(map(label, words)): (score, backoff) for words, score, backoff in entries} for entries in orders]


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("count", [1, 4, 300])
def test_probabilities_of_all_labels_and_the_end_sum_to_one(count, joined):
    orders = by_labels(estimate(sentences(0, count), LABELS, 3, joined))
    for history in ([], ["<s>"], ["<s>", 0], [0, 1], [3, 2], [6, 6]):
        total = sum(math.exp(score_of(orders, history, label, -99)) for label in [*range(LABELS), "</s>"])
        assert total == pytest.approx(1)


def test_a_model_expects_what_its_text_has():
    orders = by_labels(estimate(sentences(), LABELS, 3))
    held_out = sentences(1)

    def perplexity(order):
        scores = [
            score_of(orders[:order], ["<s>", *labels[:index]], label, -99)
            for labels in held_out
            for index, label in enumerate(labels)
        ]
        return math.exp(-float(np.mean(scores)))

    assert perplexity(3) < 3
    assert perplexity(1) == pytest.approx(6 / 0.85, rel=0.02)  # 0.15 of all are ends
    scores = [score_of(orders, [0, 1], label, -99) for label in range(LABELS)]
    assert int(np.argmax(scores)) == 2 and int(np.argmin(scores)) == 6


def test_a_sentence_may_follow_another():
    text = [[0, 1, 2], [3, 4], [5], [0, 1, 2], [3, 4]] * 20
    apart, joined = (by_labels(estimate(text, LABELS, 3, joined)) for joined in (False, True))
    assert (2, 3) not in apart[1] and {(1, 2, 3), (2, 3, 4), (3, 4, 5), ("<s>", 5, 0)} <= joined[2].keys()
    assert score_of(joined, [1, 2], 3, -99) > math.log(0.3) > score_of(apart, [1, 2], 3, -99)
    assert apart[2].keys() <= joined[2].keys()
    across, without = (by_labels(estimate(lines, LABELS, 3, True)) for lines in ([[0], [], [1]], [[0], [1]]))
    assert (0, 1) in across[1] and across[2].keys() == without[2].keys()


def test_counts_below_the_highest_order_are_of_contexts():
    """Label 1 follows label 0 alone, however often; label 2 follows three others, so it is likelier after a new one."""
    text = [[0, 1]] * 30 + [[0, 2], [3, 2], [4, 2]] * 3
    orders = by_labels(estimate(text, LABELS, 2))
    assert orders[0][2,][0] > orders[0][1,][0]


def test_a_label_that_comes_more_often_is_more_probable():
    """Also where the discounts that follow from the text would be of no use: many labels come three times."""
    (unigrams,) = by_labels(estimate([[0, 0, *range(1, 11), *range(1, 11), *range(1, 11), 11, 11, 11, 11]], 12, 1))
    scores = [unigrams[label,][0] for label in ("</s>", 0, 1, 11)]
    assert scores == sorted(scores) and len(set(scores)) == 4


def test_a_written_model_is_read_as_it_is(tmp_path):
    orders = estimate(sentences(), LABELS, 4)
    write_arpa(tmp_path / "out.arpa", orders)
    graph = graph_of(tmp_path, (tmp_path / "out.arpa").read_bytes(), tuple(f"p{i}" for i in range(LABELS)))
    state, history = graph.start, ["<s>"]
    for label in [0, 1, 2, 6, 5, 5, 0, 1]:
        score, state = looked_up(graph, state, label)
        assert score == pytest.approx(score_of(by_labels(orders), history, label, -99), abs=1e-5)  # of 7 digits
        history.append(label)
