"""N-gram language models over the labels of a tokenizer, as graphs.

The state of a stream is the longest suffix of its labels that can begin an n-gram. `</s>` is never scored.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nemojax.decoding.arpa import NGramModel
from nemojax.decoding.graphs import Graph

SLACK = 1e-4  # more than the rounding of a sum of scores


class _Level(NamedTuple):
    """The n-grams of one order, and the beginnings of longer ones, in the order of their labels.

    Nodes of all levels are numbered together; the root, of no labels, is node 0.
    """

    first: int  # the number of the first node
    parents: np.ndarray  # the node of all labels but the last
    labels: np.ndarray  # the last
    scores: np.ndarray  # NaN for what begins longer ones alone
    backoffs: np.ndarray

    @property
    def nodes(self) -> np.ndarray:
        return self.first + np.arange(len(self.labels))


class _Tree:
    """All n-grams by their beginnings, with the longest suffix of each that is there too."""

    def __init__(self, model: NGramModel, labels: int):
        self._base = labels + 1  # `<s>` has a label of its own
        self.levels = list(self._levels(model))
        parts = lambda name: np.concatenate([getattr(level, name) for level in self.levels])
        self.parents, self.labels = (np.concatenate([[-1], parts(name)]) for name in ("parents", "labels"))
        self.scores, self.backoffs = (np.concatenate([[0.0], parts(name)]) for name in ("scores", "backoffs"))
        self._keys = self.parents[1:] * self._base + self.labels[1:]  # in ascending order
        self.suffixes = np.zeros(len(self.parents), np.int64)
        for level in self.levels[1:]:
            _, self.suffixes[level.nodes] = self.look_up(self.suffixes[level.parents], level.labels)
            missing = level.nodes[np.isnan(level.scores)]
            parents = self.parents[missing]
            backed_off, _ = self.look_up(self.suffixes[parents], self.labels[missing])
            self.scores[missing] = self.backoffs[parents] + backed_off

    def _levels(self, model: NGramModel) -> Iterator[_Level]:
        rows = [ngrams.labels for ngrams in model.orders]
        for order in range(len(rows) - 1, 0, -1):
            rows[order - 1] = np.unique(np.concatenate([rows[order - 1], rows[order][:, :-1]]), axis=0)
        first = 1
        keys: list[tuple[int, np.ndarray]] = []
        for order, (row, ngrams) in enumerate(zip(rows, model.orders, strict=True)):
            row = np.unique(row, axis=0)
            parents = self._node(row[:, :order], keys)
            keys.append((first, parents * self._base + row[:, order]))
            scores, backoffs = np.full(len(row), np.nan), np.zeros(len(row))
            places = self._node(ngrams.labels, keys) - first
            scores[places], backoffs[places] = ngrams.scores, ngrams.backoffs
            yield _Level(first, parents, row[:, order], scores, backoffs)
            first += len(row)

    def _node(self, rows: np.ndarray, keys: list[tuple[int, np.ndarray]]) -> np.ndarray:
        """Returns the nodes of rows of labels, which are there."""
        nodes = np.zeros(len(rows), np.int64)
        for column, (first, level) in zip(rows.T, keys, strict=False):
            nodes = first + np.searchsorted(level, nodes * self._base + column)
        return nodes

    def look_up(self, nodes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the score of each label after a node, and the node that it leads to; the root for a label without."""
        scores, found = np.zeros(len(nodes)), np.zeros(len(nodes), np.int64)
        left = np.arange(len(nodes))
        while left.size:
            keys = nodes[left] * self._base + labels[left]
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            here = self._keys[places] == keys
            scores[left[here]] += self.scores[places[here] + 1]
            found[left[here]] = places[here] + 1
            left = left[~here & (nodes[left] != 0)]
            scores[left] += self.backoffs[nodes[left]]
            nodes = nodes.copy()
            nodes[left] = self.suffixes[nodes[left]]
        return scores, found


def language_model_graph(model: NGramModel, labels: int) -> Graph:
    """Returns the graph of a language model over this number of labels.

    A beginning of an n-gram that is no n-gram itself has the probability that backing off gives. Labels that have no
    probability share that of `<unk>`.
    """
    tree, begin = _Tree(_with_all_labels(model, labels), labels), labels
    states = np.zeros(len(tree.parents), bool)
    states[tree.parents[1:]] = True  # the root too: every label has a probability
    states |= tree.backoffs != 0
    targets, number = np.arange(len(states)), np.cumsum(states) - 1
    for level in tree.levels:  # what is no state leads to its longest suffix that is one
        nodes = level.nodes[~states[level.nodes]]
        targets[nodes] = targets[tree.suffixes[nodes]]
    spoken = np.flatnonzero(tree.labels != begin)[1:]
    order = np.lexsort((tree.labels[spoken], number[tree.parents[spoken]]))
    arcs = spoken[order]
    counts = np.bincount(number[tree.parents[arcs]], minlength=int(states.sum()))
    ends, kept = np.cumsum(counts), np.flatnonzero(states)
    backoff = number[targets[tree.suffixes[kept]]]
    starts = tree.levels[0].nodes[tree.levels[0].labels == begin]
    graph = Graph(
        int(number[targets[starts[0]]]) if starts.size else 0,
        ends - counts,
        ends,
        backoff,
        tree.backoffs[kept],
        np.zeros(len(kept)),
        np.zeros(len(kept)),
        tree.labels[arcs],
        tree.scores[arcs],
        number[targets[arcs]],
    )
    return with_most(graph)


def with_most(graph: Graph) -> Graph:
    """Fills in the highest score of each state of a language model."""
    own = np.full(len(graph.begin), -np.inf)
    np.maximum.at(own, np.repeat(np.arange(len(own)), graph.end - graph.begin), graph.scores)
    most = own
    while True:  # once for each backoff
        higher = np.maximum(
            own, np.where(graph.backoff == np.arange(len(own)), own, graph.backoff_scores + most[graph.backoff])
        )
        if (higher == most).all():
            return graph._replace(most=most + SLACK)
        most = higher


def _with_all_labels(model: NGramModel, labels: int) -> NGramModel:
    """Adds the labels that have no probability, and `<s>` if it begins n-grams alone."""
    first = model.orders[0]
    missing = np.setdiff1d(np.arange(labels), first.labels[:, 0])
    score = model.unknown - np.log(max(1, len(missing)))
    filled = first._replace(
        labels=np.concatenate([first.labels, missing[:, None]]),
        scores=np.concatenate([first.scores, np.full(len(missing), score)]),
        backoffs=np.concatenate([first.backoffs, np.zeros(len(missing))]),
    )
    return model._replace(orders=[filled, *model.orders[1:]])
