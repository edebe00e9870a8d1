"""Other segmentations of a text: all of them by brute force, in their order."""

import itertools

import pytest

from nemojax.text.segmentations import MORE_PIECES, MOST, Segmentations


class Pieces:
    """A tokenizer of given pieces; the first is unknown."""

    def __init__(self, *pieces):
        self._pieces = ["<unk>", *pieces]
        self.size = len(self._pieces)

    def piece(self, label):
        return self._pieces[label]

    def has_text(self, label):
        return label > 0


def brute_force(tokenizer, own):
    text = "".join(map(tokenizer.piece, own))
    labels = range(1, tokenizer.size)
    counts = range(1, len(own) + MORE_PIECES + 1)
    every = [cut for count in counts for cut in itertools.product(labels, repeat=count)]
    spelled = [cut for cut in every if "".join(map(tokenizer.piece, cut)) == text and cut != own]
    order = lambda cut: (len(cut), [-len(tokenizer.piece(label)) for label in cut])
    return [own, *sorted(spelled, key=order)][:MOST]


@pytest.mark.parametrize("own", [(1, 3), (2, 4, 3), (5,), (4, 4, 4), (1, 2, 4), (7, 6)])
def test_they_are_those_of_the_fewest_pieces(own):
    tokenizer = Pieces("ab", "a", "c", "b", "abc", "bab", "aba")
    assert Segmentations(tokenizer).of(own) == brute_force(tokenizer, own)


def test_the_own_one_stays_where_there_is_no_other():
    assert Segmentations(Pieces("ab", "c")).of((1, 2, 1)) == [(1, 2, 1)]


def test_a_long_text_of_many_segmentations_takes_no_time():
    tokenizer = Pieces("a", "aa", "aaa", "b")
    found = Segmentations(tokenizer).of((1,) * 60 + (4,))
    assert len(found) == MOST and [len(cut) for cut in found] == [61, 21, 22, 22]


def test_pieces_without_text_of_their_own_are_left_out(recognizer):
    tokenizer = recognizer.tokenizer
    without = {tokenizer.piece(label) for label in range(tokenizer.size) if not tokenizer.has_text(label)}
    assert "<unk>" in without and all(piece.startswith("<") for piece in without)
