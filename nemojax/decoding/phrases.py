"""Phrases that are expected: labels that continue one score higher.

The graph is the automaton of Aho and Corasick (1975): its state is the longest suffix of the labels that begins a
phrase. The first label of a phrase scores 1, the i-th 2 + ln i (GPU-PB: Andrusenko et al. 2025, arXiv 2508.07014), at
most 2 + ln 4, and a whole phrase at most `MAX_BONUS`; all times the phrase's boost. Longer phrases would be hard to
leave else, for the scores of a phrase that is left unfinished are taken back.

The sum of the scores of any labels is that of the phrases that are complete in them, and of what is pending: the labels
of the longest phrase begun. A phrase that continues another, such as "New York" after "New", earns the difference. So
neither the order of phrases nor those that share labels change what a complete phrase earns.
"""

import math
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

import numpy as np

from nemojax.decoding.graphs import Graph

FIRST, LATER = 1.0, 2.0  # scores of a phrase's first label, and of a later one apart from its depth
DEEPEST = 4  # labels after which the score of a label grows no more
MAX_BONUS = 10.0  # of a whole phrase at a boost of 1; that of four labels is 10.18
SLACK = 1e-4  # more than the rounding of a sum of scores


class Form(NamedTuple):
    """One spelling of a phrase, as labels."""

    labels: tuple[int, ...]
    boost: float
    after_mark: bool = False  # it counts only right after a mark of punctuation
    scored: int | None = None  # it scores no more than a phrase of as many labels; None: than one of its own length

    def sums(self) -> list[float]:
        """Returns the scores of its first 1, 2, ... labels."""
        return [self.boost * total for total in sums(len(self.labels), self.scored)]


class _Node:
    """The first labels of some phrase."""

    def __init__(self, parent: "_Node | None"):
        self.children: dict[int, _Node] = {}
        self.parent, self.fail = parent, self
        self.sum = self.own = 0.0  # the largest score of these labels, and of a phrase that ends with them
        self.complete = 0.0  # what phrases that are complete keep, on the way here
        self.banked = 0.0  # what the labels' last one has completed, all suffixes counted
        self.arcs: dict[int, _Node] = {}
        self.index = 0

    @property
    def pending(self) -> float:
        return max(0.0, self.sum - self.complete)


def sums(length: int, scored: int | None = None) -> list[float]:
    """Returns the scores of the first 1, 2, ... labels of a phrase, at a boost of 1; see `Form.scored`."""
    each = [FIRST] + [LATER + math.log(min(index, DEEPEST)) for index in range(2, length + 1)]
    totals = [min(float(total), MAX_BONUS) for total in np.cumsum(each)]
    return totals if scored is None or scored >= length else [min(total, totals[scored - 1]) for total in totals]


def phrase_graph(forms: Iterable[Form], marks: Collection[int] = ()) -> Graph:
    """Returns the graph of phrases; `marks` are the labels of punctuation that a form `after_mark` may follow."""
    root, marked = _Node(None), _Node(None)
    marked.parent = root
    for form in forms:
        node = marked if form.after_mark else root
        for label, total in zip(form.labels, form.sums(), strict=True):
            node = node.children.setdefault(label, _Node(node))
            node.sum = max(node.sum, total)
        node.own = max(node.own, total)
    entered = dict.fromkeys(marks, marked) if marked.children else {}
    nodes = _in_order(root, marked, entered)
    for index, node in enumerate(nodes):
        node.index = index
    root.arcs = entered | root.children
    for node in nodes[1:]:
        if node.parent is not None:
            node.complete = max(node.parent.complete, node.own)
            node.banked = node.complete - node.parent.complete + node.fail.banked
        inherited = {} if node.fail is root else node.fail.arcs
        node.arcs = inherited | node.children
    return _arrays(nodes)


def _in_order(root: _Node, marked: _Node, entered: dict[int, _Node]) -> list[_Node]:
    """Returns the nodes, shorter ones first, with their longest suffixes in `fail`."""
    nodes, waiting = [root], deque([marked] if entered else [])
    for node in [root, marked]:
        node.fail = root
    for label, node in root.children.items():
        node.fail = entered.get(label, root)
        waiting.append(node)
    while waiting:
        node = waiting.popleft()
        nodes.append(node)
        for label, child in node.children.items():
            suffix = node.fail
            while label not in suffix.children and suffix is not root:
                suffix = suffix.fail
            child.fail = suffix.children.get(label, entered.get(label, root))
            waiting.append(child)
    return nodes


def _arrays(nodes: list[_Node]) -> Graph:
    counts = [len(node.arcs) for node in nodes]
    ends = np.cumsum(counts)
    pending = np.array([node.pending for node in nodes])
    arrived = pending + np.array([node.banked for node in nodes])
    arcs = [(label, target.index) for node in nodes for label, target in sorted(node.arcs.items())]
    labels, targets = np.array(arcs, np.int32).reshape(-1, 2).T
    scores = arrived[targets] - np.repeat(pending, counts)
    most = np.full(len(nodes), -np.inf)
    np.maximum.at(most, np.repeat(np.arange(len(nodes)), counts), scores)
    most = np.maximum(most, max(0.0, most[0]) - pending)
    zeros = np.zeros(len(nodes), np.int32)
    return Graph(0, ends - counts, ends, zeros, -pending, most + SLACK, pending, labels, scores, targets)
