import numpy as np
import pytest

from nemojax.decoding.state import BeamEmission
from nemojax.recognition.label_tree import LabelTree

EMPTY = -np.inf


def emission(*places, total=0.0):
    """A row of a beam: of each place, the place before, the labels as (label, frame, log-probability), the score."""
    longest = max([1, *(len(labels) for _, labels, _ in places)])
    padded = [[*labels, *[(99, 99, 9.0)] * (longest - len(labels))] for _, labels, _ in places]
    field = lambda index, kind: np.array([[[one[index] for one in labels] for labels in padded]], kind)
    of_places = lambda values, kind: np.array([values], kind)
    return BeamEmission(
        field(0, np.int32),
        field(1, np.int32),
        field(2, np.float32),
        of_places([len(labels) for _, labels, _ in places], np.int32),
        of_places([root for root, _, _ in places], np.int32),
        of_places([score for _, _, score in places], np.float32),
        np.array([total], np.float32),
    )


def test_what_all_hypotheses_share_is_settled():
    tree = LabelTree()
    first = emission((0, [(5, 0, -0.5), (6, 1, -0.25)], -1.0), (0, [(5, 0, -0.5), (7, 1, -2.0)], -1.5))
    assert tree.extend(first, 0) == ([5], [0], [-0.5], [])
    assert [one.rest.tokens for one in tree.ranked(2)] == [[6], [7]]
    # the second hypothesis moves to the first place, and has a child; the first one is gone
    second = emission((1, [(8, 4, -0.125)], -1.0), (1, [], -1.25), (0, [], EMPTY))
    assert tree.extend(second, 0) == ([7], [1], [-2.0], [])
    assert [(one.rest.tokens, one.score) for one in tree.ranked(5)] == [([8], -1.0), ([], -1.25)]
    assert tree.collapse() == ([8], [4], [-0.125], [])
    assert tree.ranked(5) == [(([], [], [], []), -1.0)]


def test_a_label_of_two_frames_is_not_shared():
    """The hypotheses have the same label, but not its frame: it may still change."""
    tree = LabelTree()
    assert tree.extend(emission((0, [(5, 0, -0.5)], -1.0), (0, [(5, 1, -0.5), (6, 1, -1.0)], -1.5)), 0).tokens == []


def test_the_final_order_divides_scores_by_labels_and_one():
    places = (0, [(5, 0, -0.5)], -2.0), (0, [(5, 0, -0.5), (6, 1, -0.25), (7, 2, -0.125)], -3.0)
    for score_norm, best in ((True, [6, 7]), (False, [])):
        tree = LabelTree(score_norm)
        assert tree.extend(emission(*places, total=-10.0), 0).tokens == [5]
        # -12 / 2 and -13 / 4
        assert tree.ranked(1)[0].rest.tokens == best
        assert [one.score for one in tree.ranked(2)] == pytest.approx([-13.0, -12.0] if score_norm else [-12.0, -13.0])
        assert tree.collapse().tokens == best
    tree = LabelTree()
    tree.extend(emission((0, [(5, 0, -0.5), (6, 1, -0.25), (7, 2, -0.125)], -2.2), (0, [(5, 0, -0.5)], -1.0)), 0)
    assert [one.rest.tokens for one in tree.ranked(2)] == [[], [6, 7]]  # -1 / 2 and -2.2 / 4


def test_frames_are_settled_up_to_the_first_label_that_is_not():
    tree = LabelTree()
    assert tree.settled_frames(9) == 9
    tree.extend(
        emission((0, [(5, 0, -0.5), (6, 4, -0.5), (7, 8, -0.5)], -1.0), (0, [(5, 0, -0.5), (8, 6, -2.0)], -1.5)), 0
    )
    assert (tree.settled_frames(9), tree.settled_frames(3)) == (4, 3)
    tree.collapse()
    assert tree.settled_frames(9) == 9


def test_its_size_does_not_grow_with_the_stream():
    tree = LabelTree()
    for frame in range(50):
        tree.extend(emission((0, [(frame, frame, 0.0)], -1.0), (0, [(frame, frame, 0.0), (1, frame, 0.0)], -2.0)), 0)
    node, nodes = next(leaf for leaf in tree._leaves if leaf is not None and leaf.parent), 0
    while node is not None:
        node, nodes = node.parent, nodes + 1
    assert nodes == 2
