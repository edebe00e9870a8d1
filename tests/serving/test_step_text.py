from types import SimpleNamespace

import numpy as np

from nemojax.decoding.state import Emission
from nemojax.recognition.hypothesis import NOTHING, Update
from nemojax.serving.live_stream import Seat
from nemojax.serving.schedule import Step
from nemojax.serving.step_text import updates_of

LABELS = np.arange(20).reshape(4, 5)
EMISSION = Emission(LABELS, LABELS + 100, LABELS / 8, np.array([3, 2, 0, 1]))


def seat(slot, rest=NOTHING):
    append = lambda *lists: Update("a", *map(tuple, lists[:2]), log_probs=tuple(lists[2]))
    return Seat(slot, SimpleNamespace(append=append, finish=lambda samples: rest, decides_ends=False))


def step(stepped, ended=()):
    rows = np.array([seat.slot for seat in stepped], int)
    return Step(object() if stepped else None, rows, stepped, list(ended), 4, 0, 0)


def test_each_stream_gets_the_labels_of_its_row():
    stepped = [seat(1), seat(2), seat(3)]
    updates = updates_of(step(stepped), EMISSION)
    assert updates == {
        stepped[0]: Update("a", (5, 6), (105, 106), log_probs=(0.625, 0.75)),
        stepped[2]: Update("a", (15,), (115,), log_probs=(1.875,)),
    }


def test_the_end_of_a_stream_shows_the_text_that_waited():
    """Such as a space that punctuation could have removed, or the bytes of an incomplete character."""
    spoke, silent, early, done = (seat(slot, Update("\ufffd")) for slot in (1, 2, 0, 3))
    nothing = seat(2)
    updates = updates_of(step([spoke, silent], [spoke, silent, early]), EMISSION)
    assert [updates[seat].text for seat in (spoke, silent, early)] == ["a\ufffd", "\ufffd", "\ufffd"]
    assert updates[spoke].tokens == (5, 6) and updates[silent].tokens == ()
    assert updates_of(step([], [done, nothing]), None) == {done: Update("\ufffd")}


def test_silence_is_decided_in_streams_that_ask_for_it_and_go_on():
    spoke, silent, ended, without = (seat(slot) for slot in (0, 2, 1, 3))
    for number, one in enumerate((spoke, silent, ended)):
        one.hypothesis.decides_ends = True
        one.hypothesis.decide = lambda frames, number=number: Update(final=((number, frames),)) if number < 2 else None
    updates = updates_of(step([spoke, ended, silent, without], [ended]), EMISSION, chunk_frames=7)
    assert updates[spoke].tokens == (0, 1, 2) and updates[spoke].final == ((0, 7),)
    assert updates[silent].final == ((1, 7),) and updates[ended].final == updates[without].final == ()
