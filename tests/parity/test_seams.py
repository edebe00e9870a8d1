"""The comparisons themselves: they need neither torch nor NeMo, and they must fail where something is wrong."""

import numpy as np
import pytest

from experiments.references.traces import Decoding
from tests.parity.seams import MAX_TIES, TIE_GAP, Seams, decisions, until

BLANK = 3


def decoding(gap: float = 1.0) -> Decoding:
    """Labels 0, 1 at frame 0, blank at frame 1, label 2 at frame 2; the first choice wins by `gap` over label 1."""
    labels = [0, 1, BLANK, BLANK, 2, BLANK]
    logits = np.eye(4, dtype=np.float32)[labels] * 9
    logits[0, 1] = 9 - gap
    looked = np.array([(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 3)])
    empty = np.zeros((3, 1))
    return Decoding(np.array([0, 1, 2]), np.array([0, 0, 2]), empty, empty, empty, empty, empty, looked, logits)


def test_decisions_are_those_of_the_double_loop():
    assert decisions([0, 1, 2], [0, 0, 2], 3, BLANK) == [0, 1, BLANK, BLANK, 2, BLANK]
    assert decisions([0] * 10 + [1], [0] * 11, 2, BLANK) != decisions([0] * 10 + [1], [0] * 10 + [1], 2, BLANK)
    assert decisions([0] * 10, [1] * 10, 2, BLANK) == [BLANK] + [0] * 10  # no blank after the last one allowed


def test_equal_tokens_are_counted():
    seams = Seams()
    seams.compare_tokens("ours", decoding(), BLANK, [0, 1, 2], [0, 0, 2], "here")
    assert seams.tokens == {"ours": 3} and not seams.ties


@pytest.mark.parametrize(
    "tokens,frames", [([1, 1, 2], [0, 0, 2]), ([0, 1, 2], [0, 0, 1]), ([0, 1], [0, 0]), ([0, 1, 2, 2], [0, 0, 2, 2])]
)
def test_other_tokens_and_frames_are_errors(tokens, frames):
    with pytest.raises(AssertionError, match="chose"):
        Seams().compare_tokens("ours", decoding(), BLANK, tokens, frames, "here")


def test_a_near_tie_is_noted_and_only_a_few_are_allowed():
    seams, close = Seams(), decoding(gap=TIE_GAP / 2)
    for _ in range(MAX_TIES):
        seams.compare_tokens("ours", close, BLANK, [1, 1, 2], [0, 0, 2], "here")
    assert len(seams.ties) == MAX_TIES and "5.0e-05 apart" in seams.ties[0]
    assert seams.tokens == {"ours": 0}  # nothing after a tie was compared
    with pytest.raises(AssertionError, match="ties in one run"):
        seams.compare_tokens("ours", close, BLANK, [1, 1, 2], [0, 0, 2], "here")


def test_until_cuts_at_a_frame():
    begun = until(decoding(), 2)
    assert begun.tokens.tolist() == [0, 1] and len(begun.logits) == 4 and len(begun.projected) == 2


def test_values_beyond_the_bar_and_other_shapes_are_errors():
    seams, values = Seams(), np.zeros((4, 8), np.float32)
    seams.compare("NeMo", "encoder", values + 0.9e-4, values, "here")
    with pytest.raises(AssertionError, match=r"here: encoder is 1\.10e-04 off NeMo's"):
        seams.compare("NeMo", "encoder", values + 1.1e-4, values, "here")
    with pytest.raises(AssertionError, match="shape"):
        seams.compare("NeMo", "encoder", values[:3], values, "here")
    with pytest.raises(AssertionError):
        seams.compare("NeMo", "encoder", values * np.nan, values, "here")
    assert seams.lines["encoder", "NeMo"].tensors == 3


def test_faint_bins_have_a_bar_of_their_own():
    theirs = np.array([[0.0, -1.0, -17.0]], np.float32)
    seams = Seams()
    seams.compare("NeMo", "log_mel", theirs + np.array([[0, 0, 3e-3]], np.float32), theirs, "here")
    assert seams.lines["log_mel 65 dB down", "NeMo"].values == 1 and seams.lines["log_mel", "NeMo"].values == 2
    with pytest.raises(AssertionError):
        seams.compare("NeMo", "log_mel", theirs + np.array([[0, 3e-3, 0]], np.float32), theirs, "here")
