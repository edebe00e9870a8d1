import numpy as np
import pytest

from nemojax.config import PRESETS
from nemojax.serving.pending_steps import PendingSteps

CONFIG, SLOTS, CHUNK = PRESETS["tiny"], 3, 2560
HISTORY = CONFIG.history_samples
SAMPLES = np.ones(CHUNK, np.float32)


@pytest.fixture
def pending():
    pending = PendingSteps(CONFIG, SLOTS, CHUNK)
    for slot in range(SLOTS):
        pending.begin(slot)
        pending.push(slot, np.zeros(CHUNK - HISTORY, np.float32), 0)
    assert pending.take().reset.all()
    return pending


def test_memory_is_used_again_once_it_is_given_back():
    pending = PendingSteps(CONFIG, SLOTS, CHUNK)
    pending.prepare(1)
    pending.begin(1)
    pending.push(1, SAMPLES, 0)
    first = pending.take()
    assert first.reset.tolist() == [False, True, False]
    pending.push(2, SAMPLES, 0)
    second = pending.take()
    assert second.samples is not first.samples
    pending.give_back(first)
    pending.push(0, np.ones(10, np.float32), 0)
    assert pending.end(0, 0)
    pending.push(0, SAMPLES, 1)
    again, after = pending.take(), pending.take()
    assert again.samples is first.samples and after.samples is not first.samples and after.samples is not second.samples
    assert (
        again.active.tolist() == [True, False, False] and not again.reset.any() and again.length.tolist() == [10, 0, 0]
    )


def test_the_first_step_counts_its_streams(pending):
    counts = []
    for slot, before in ((0, 0), (1, 0), (1, 1), (2, 0), (0, 1)):
        assert pending.push(slot, SAMPLES, before) == 1
        counts.append(pending.ready)
    assert counts == [1, 2, 2, 3, 3]
    pending.drop(1)
    assert pending.ready == 2
    taken = pending.take()
    assert taken.active.tolist() == [True, False, True] and pending.ready == 1
    assert pending.take().active.tolist() == [True, False, False] and pending.ready == 0


@pytest.mark.parametrize("together", [False, True])
def test_samples_keep_their_order_wherever_they_are_cut(together):
    """One stream's pieces are of any size; packets of streams that are pushed together are of one size."""
    rng, pending = np.random.default_rng(0), PendingSteps(CONFIG, SLOTS, CHUNK)
    samples_of = rng.normal(size=(SLOTS, 30_000)).astype(np.float32)
    chunks, at, waiting = [[] for _ in range(SLOTS)], np.zeros(SLOTS, int), np.zeros(SLOTS, int)

    def take():
        step = pending.take()
        for row in np.flatnonzero(step.active):
            begin = HISTORY if step.reset[row] else 0
            assert step.reset[row] == (not chunks[row])
            chunks[row].append(step.samples[row, begin : step.length[row]].copy())
            waiting[row] -= 1
        pending.give_back(step)

    for slot in range(SLOTS):
        pending.begin(slot)
    while (at < samples_of.shape[1]).any():
        slots = np.flatnonzero((at < samples_of.shape[1]) & (rng.random(SLOTS) < 0.7))
        longest = CHUNK if together else 3 * CHUNK
        count = int(min([rng.choice([0, 1, 200, rng.integers(longest + 1)]), *(samples_of.shape[1] - at[slots])]))
        rows = (
            np.stack([samples_of[slot, at[slot] : at[slot] + count] for slot in slots])
            if len(slots)
            else samples_of[:0, :count]
        )
        if together:
            waiting[slots] += pending.push_rows(slots, rows, waiting[slots])
        else:
            for slot, row in zip(slots, rows, strict=True):
                waiting[slot] += pending.push(int(slot), row, int(waiting[slot]))
        at[slots] += count
        while pending.ready and rng.random() < 0.5:
            take()
    for slot in range(SLOTS):
        waiting[slot] += pending.end(slot, int(waiting[slot]))
    while waiting.any():
        take()
    for row in range(SLOTS):
        assert {len(chunk) for chunk in chunks[row][1:-1]} == {CHUNK} and len(chunks[row][0]) == CHUNK - HISTORY
        np.testing.assert_array_equal(np.concatenate(chunks[row]), samples_of[row])


def test_a_stream_has_a_last_chunk_if_it_has_samples_left_or_no_chunk_at_all(pending):
    assert not pending.end(0, 0) and pending.ready == 0
    pending.push(1, np.ones(1, np.float32), 0)
    assert pending.end(1, 0)
    pending.begin(2)
    assert pending.end(2, 0)
    step = pending.take()
    assert step.active.tolist() == [False, True, True] and step.length.tolist() == [0, 1, HISTORY]
    assert step.reset.tolist() == [False, False, True]


def test_a_stream_that_is_dropped_leaves_nothing_to_the_next_one(pending):
    pending.push(0, np.full(CHUNK + 7, 5.0, np.float32), 0)
    pending.drop(0)
    assert not pending.end(0, 0)
    pending.begin(0)
    pending.push(0, np.ones(3, np.float32), 0)
    assert pending.end(0, 0)
    step = pending.take()
    assert step.length[0] == HISTORY + 3 and step.reset[0] and (step.samples[0, HISTORY : HISTORY + 3] == 1).all()


def test_chunks_that_come_together_go_to_different_steps_where_others_wait(pending):
    pending.push(1, SAMPLES, 0)
    rows = np.stack([SAMPLES * (row + 5) for row in range(SLOTS)])
    assert pending.push_rows(np.arange(SLOTS), rows, np.array([0, 1, 0])).all() and pending.ready == 3
    first, second = pending.take(), pending.take()
    assert first.active.all() and first.samples[:, 0].tolist() == [5, 1, 7]
    assert second.active.tolist() == [False, True, False] and second.samples[1, -1] == 6
