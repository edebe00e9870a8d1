import numpy as np

from nemojax.config import PRESETS
from nemojax.serving.pending_steps import PendingSteps

CHUNK = [np.ones(10, np.float32)]


def test_memory_is_used_again_once_it_is_given_back():
    pending = PendingSteps(PRESETS["tiny"], 3, 2560)
    pending.prepare(1)
    pending.append(1, 0, CHUNK, first=True)
    first = pending.take()
    pending.append(2, 0, CHUNK, first=False)
    second = pending.take()
    assert second.samples is not first.samples
    pending.give_back(first)
    pending.append(0, 0, CHUNK, first=False)
    pending.append(0, 1, CHUNK, first=False)
    again, after = pending.take(), pending.take()
    assert again.samples is first.samples and after.samples is not first.samples and after.samples is not second.samples
    assert (
        again.active.tolist() == [True, False, False] and not again.reset.any() and again.length.tolist() == [10, 0, 0]
    )


def test_the_first_step_counts_its_streams():
    pending, counts = PendingSteps(PRESETS["tiny"], 3, 2560), []
    for slot, before in ((0, 0), (1, 0), (1, 1), (2, 0), (0, 1)):
        pending.append(slot, before, CHUNK, first=False)
        counts.append(pending.ready)
    assert counts == [1, 2, 2, 3, 3]
    pending.drop(1)
    assert pending.ready == 2
    taken = pending.take()
    assert taken.active.tolist() == [True, False, True] and pending.ready == 1
    assert pending.take().active.tolist() == [True, False, False] and pending.ready == 0
