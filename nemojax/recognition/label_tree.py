"""The hypotheses of one stream's beam on the host: a tree of labels, whose leaves are the ends of the hypotheses."""

from collections.abc import Sequence
from typing import NamedTuple

from nemojax.decoding.state import BeamEmission


class Node:
    """A label of one or several hypotheses, after those of its parents."""

    __slots__ = ("depth", "frame", "label", "log_prob", "parent")

    def __init__(self, parent: "Node | None", label: int, frame: int, log_prob: float):
        self.parent, self.label, self.frame, self.log_prob = parent, label, frame, log_prob
        self.depth: int = 0 if parent is None else parent.depth + 1  # labels up to and with this one


class Labels(NamedTuple):
    """Labels with their encoder frames and log-probabilities."""

    tokens: list[int]
    frames: list[int]
    log_probs: list[float]


class Ranked(NamedTuple):
    """A hypothesis: the labels that are not settled yet, and the log-probability of all its labels."""

    rest: Labels
    score: float


class LabelTree:
    """The live hypotheses of a stream.

    The labels that all of them share are settled: no later label can change them. They leave the tree, so that its size
    does not grow with the stream, unless two hypotheses that differ at an early label both live on.
    """

    def __init__(self, score_norm: bool = True) -> None:
        self._settled = Node(None, -1, -1, 0.0)  # the last label that is settled
        self._leaves: list[Node | None] = [self._settled]  # by place in the beam
        self._scores = [0.0]
        self._score_norm = score_norm

    def extend(self, emission: BeamEmission, row: int) -> Labels:
        """Takes what a segment adds to the hypotheses, of numpy arrays; returns the labels that are settled now."""
        roots, lengths, scores = (x[row].tolist() for x in (emission.root, emission.length, emission.score))
        longest = max(lengths)
        columns = (x[row, :, :longest].tolist() for x in (emission.labels, emission.frames, emission.log_probs))
        total = float(emission.total[row])
        self._scores = [total + score for score in scores]
        nodes: dict[tuple[Node | None, int, int], Node] = {}  # hypotheses share what they have gained together
        leaves: list[Node | None] = []
        for root, length, score, *gained in zip(roots, lengths, scores, *columns, strict=True):
            node = self._leaves[root] if score > -float("inf") else None
            for label, frame, log_prob in zip(*(values[:length] for values in gained), strict=True) if node else ():
                key = node, label, frame
                if key not in nodes:
                    nodes[key] = Node(node, label, frame, log_prob)
                node = nodes[key]
            leaves.append(node)
        self._leaves = leaves
        return self._settle([node for node in leaves if node is not None])

    def ranked(self, count: int) -> list[Ranked]:
        """Returns the best hypotheses in their final order, at most `count`."""
        return [Ranked(self._labels(node), score) for node, score in self._in_order()[:count]]

    def collapse(self) -> Labels:
        """Drops all hypotheses but the best one; returns its labels, which are settled now."""
        best, score = self._in_order()[0]
        self._leaves, self._scores = [best], [score]
        return self._settle([best])

    def _in_order(self) -> list[tuple[Node, float]]:
        """Returns the ends of the live hypotheses with their scores, the best one first."""
        live = [(node, score) for node, score in zip(self._leaves, self._scores, strict=True) if node is not None]
        value = lambda end: end[1] / (end[0].depth + 1) if self._score_norm else end[1]
        return sorted(live, key=value, reverse=True)

    def _settle(self, live: Sequence[Node]) -> Labels:
        shared = live[0]
        for other in live[1:]:
            while other is not shared:
                if other.depth >= shared.depth:
                    other = _parent(other)
                else:
                    shared = _parent(shared)
        labels = self._labels(shared)
        self._settled, shared.parent = shared, None
        return labels

    def _labels(self, node: Node) -> Labels:
        """Returns the labels after the settled ones up to a node."""
        labels = Labels([], [], [])
        while node is not self._settled:
            labels.tokens.append(node.label)
            labels.frames.append(node.frame)
            labels.log_probs.append(node.log_prob)
            node = _parent(node)
        for values in labels:
            values.reverse()
        return labels


def _parent(node: Node) -> Node:
    assert node.parent is not None  # all live hypotheses have the settled labels
    return node.parent
