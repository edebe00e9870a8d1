"""The hypotheses of one stream's beam on the host: a tree of labels, whose leaves are the ends of the hypotheses."""

import math
from collections.abc import Sequence
from itertools import islice, zip_longest
from typing import NamedTuple

from nemojax.decoding.state import BeamEmission


class Node:
    """A label of one or several hypotheses, after those of its parents."""

    __slots__ = ("confidence", "depth", "frame", "label", "log_prob", "parent")

    def __init__(self, parent: "Node | None", label: int, frame: int, log_prob: float, confidence: float | None):
        self.parent, self.label, self.frame = parent, label, frame
        self.log_prob, self.confidence = log_prob, confidence
        self.depth: int = 0 if parent is None else parent.depth + 1  # labels up to and with this one


class Path(NamedTuple):
    """Consecutive labels of a hypothesis."""

    tokens: list[int]
    frames: list[int]  # encoder frame of each label
    log_probs: list[float]
    confidences: list[float]  # empty where the search has no `Confidence`


class Ranked(NamedTuple):
    """A hypothesis: the labels that are not settled yet, and the log-probability of all its labels."""

    rest: Path
    score: float


class LabelTree:
    """The live hypotheses of a stream.

    The labels that all of them share are settled: no later label can change them. They leave the tree, so that its size
    does not grow with the stream, unless two hypotheses that differ at an early label both live on.
    """

    def __init__(self, score_norm: bool = True) -> None:
        self._settled = Node(None, -1, -1, 0.0, None)  # the last label that is settled
        self._leaves: list[Node | None] = [self._settled]  # by place in the beam
        self._scores = [0.0]
        self._score_norm = score_norm

    def extend(self, emission: BeamEmission, row: int) -> Path:
        """Takes what a segment adds to the hypotheses, of numpy arrays; returns the labels that are settled now."""
        roots, lengths, scores = (x[row].tolist() for x in (emission.root, emission.length, emission.score))
        longest = max(lengths)
        arrays = emission.labels, emission.frames, emission.log_probs, emission.confidences
        columns = [[] if x is None else x[row, :, :longest].tolist() for x in arrays]
        total = float(emission.total[row])
        self._scores = [total + score for score in scores]
        nodes: dict[tuple[Node, int, int], Node] = {}  # hypotheses share what they have gained together
        leaves: list[Node | None] = []
        for place, (root, length, score) in enumerate(zip(roots, lengths, scores, strict=True)):
            node = self._leaves[root] if score > -math.inf else None
            if node is not None:
                for values in islice(zip_longest(*(column[place] if column else () for column in columns)), length):
                    label, frame, *_ = values
                    node = nodes.setdefault((node, label, frame), Node(node, *values))
            leaves.append(node)
        self._leaves = leaves
        return self._settle(self._live())

    def ranked(self, count: int) -> list[Ranked]:
        """Returns the best hypotheses in their final order, at most `count`."""
        return [Ranked(self._path(node), score) for node, score in self._in_order()[:count]]

    def settled_frames(self, frames: int) -> int:
        """Returns how many of the first `frames` encoder frames have no label that is not settled."""
        return min([frames, *(path.frames[0] for path in map(self._path, self._live()) if path.frames)])

    def collapse(self) -> Path:
        """Drops all hypotheses but the best one; returns its labels, which are settled now."""
        best, score = self._in_order()[0]
        self._leaves, self._scores = [best], [score]
        return self._settle([best])

    def _live(self) -> list[Node]:
        return [node for node in self._leaves if node is not None]

    def _in_order(self) -> list[tuple[Node, float]]:
        """Returns the ends of the live hypotheses with their scores, the best one first."""
        live = [(node, score) for node, score in zip(self._leaves, self._scores, strict=True) if node is not None]
        value = lambda end: end[1] / (end[0].depth + 1) if self._score_norm else end[1]
        return sorted(live, key=value, reverse=True)

    def _settle(self, live: Sequence[Node]) -> Path:
        shared = live[0]
        for other in live[1:]:
            while other is not shared:
                if other.depth >= shared.depth:
                    other = _parent(other)
                else:
                    shared = _parent(shared)
        path = self._path(shared)
        self._settled, shared.parent = shared, None
        return path

    def _path(self, node: Node) -> Path:
        """Returns the labels after the settled ones up to a node."""
        nodes = []
        while node is not self._settled:
            nodes.append(node)
            node = _parent(node)
        nodes.reverse()
        confidences = [node.confidence for node in nodes if node.confidence is not None]
        return Path(
            [node.label for node in nodes],
            [node.frame for node in nodes],
            [node.log_prob for node in nodes],
            confidences,
        )


def _parent(node: Node) -> Node:
    assert node.parent is not None  # all live hypotheses have the settled labels
    return node.parent
