"""When a step begins, and whose chunks it takes: on a clock that is set by hand."""

import time

import numpy as np
import pytest

from nemojax.config import PRESETS
from nemojax.serving.live_stream import Seat
from nemojax.serving.pending_steps import PendingSteps
from nemojax.serving.schedule import Schedule

SLOTS, PATIENCE_S, CHUNK_S, CHUNK = 5, 0.5, 1.0, np.ones(2560, np.float32)
HISTORY = PRESETS["tiny"].history_samples


class Clock:
    def __init__(self):
        self.now_s = 10.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def schedule(clock, monkeypatch):
    schedule = Schedule(PendingSteps(PRESETS["tiny"], SLOTS, 2560), SLOTS, PATIENCE_S, CHUNK_S)

    def waits(timeout=None):
        raise TimeoutError(timeout)

    monkeypatch.setattr(schedule._changed, "wait", waits)
    return schedule


@pytest.fixture
def seats(schedule):
    """Streams that have had their first chunk."""
    seats = [Seat(slot, None) for slot in range(3)]
    for seat in seats:
        schedule.join(seat)
        assert schedule.push(seat, CHUNK[HISTORY:]) == 1
    assert schedule.next().stepped == seats
    return seats


def push(schedule, *seats):
    for seat in seats:
        assert schedule.push(seat, CHUNK) == 1


def push_together(schedule, *seats):
    slots = np.array([seat.slot for seat in seats])
    assert schedule.push_rows(slots, np.tile(CHUNK, (len(seats), 1))).all()


@pytest.mark.parametrize("push", [push, push_together])
def test_patience_counts_from_the_first_chunk(schedule, seats, clock, push):
    push(schedule, seats[0])
    clock.now_s += 0.25
    push(schedule, seats[1])
    with pytest.raises(TimeoutError, match=r"0\.25"):
        schedule.next()
    clock.now_s += 0.25
    step = schedule.next()
    assert (step.stepped, step.rows.tolist(), step.slots) == (seats[:2], [0, 1], 3)
    assert (step.ready_s, step.begun_s) == (10.0, 10.5)
    push(schedule, seats[2])  # the next step's patience begins with its own first chunk
    with pytest.raises(TimeoutError, match=r"0\.5"):
        schedule.next()


@pytest.mark.parametrize("push", [push, push_together])
def test_a_step_begins_at_once_when_every_stream_has_a_chunk(schedule, seats, push):
    push(schedule, *seats)
    assert schedule.next().stepped == seats
    with pytest.raises(TimeoutError, match="None"):  # without a chunk there is nothing to be patient for
        schedule.next()


def test_an_idle_stream_delays_no_other(schedule, seats, clock):
    """It is expected for one and a half chunks after its last chunk, or after it was opened."""
    push(schedule, *seats)
    schedule.next()
    clock.now_s += 1.4 * CHUNK_S
    push(schedule, *seats[:2])
    with pytest.raises(TimeoutError):
        schedule.next()
    clock.now_s += PATIENCE_S
    assert schedule.next().stepped == seats[:2]
    for _ in range(2):
        clock.now_s += 0.9
        push(schedule, *seats[:2])
        assert schedule.next().stepped == seats[:2]


def test_streams_are_expected_at_their_own_pace(schedule, seats, clock):
    """An engine that is too slow for live audio waits for all of them still; a pause is no pace."""
    for interval_s in (3.0, 3.0, 100.0):
        clock.now_s += interval_s
        push(schedule, *seats)
        schedule.next()
    clock.now_s += 5.9  # one and a half of the longest interval, 4 chunks, are 6 s
    push(schedule, seats[0])
    with pytest.raises(TimeoutError):
        schedule.next()
    push(schedule, *seats[1:])
    schedule.next()
    clock.now_s += 3.0
    push(schedule, *seats)
    schedule.next()
    clock.now_s += 4.6  # one and a half of 3 s
    push(schedule, seats[0])
    assert schedule.next().stepped == seats[:1]


def test_chunks_that_come_together_are_a_pace(schedule, seats, clock):
    push(schedule, *seats)
    schedule.next()
    clock.now_s += 4.0
    for seat in seats:
        assert schedule.push(seat, np.tile(CHUNK, 2)) == 2
    schedule.next()
    schedule.next()
    clock.now_s += 2.9  # less than one and a half of 2 s
    push(schedule, seats[0])
    with pytest.raises(TimeoutError):
        schedule.next()
    clock.now_s += PATIENCE_S
    assert schedule.next().stepped == seats[:1]
    push(schedule, seats[0])
    assert schedule.next().stepped == seats[:1]


def test_those_that_leave_and_complete_are_not_waited_for(schedule, seats):
    push(schedule, seats[0])
    assert schedule.leave(seats[1]) and not schedule.leave(seats[1])
    with pytest.raises(TimeoutError):
        schedule.next()
    schedule.complete(seats[2])
    step = schedule.next()
    assert step.stepped == [seats[0]] and step.ended == [seats[2]] and schedule.open_streams == 2


def test_an_end_without_a_chunk_delays_no_other_stream(schedule, seats, clock):
    push(schedule, seats[0])
    clock.now_s += 0.25
    schedule.complete(seats[1])
    step = schedule.next()
    assert (step.given, step.stepped, step.ended) == (None, [], [seats[1]])
    with pytest.raises(TimeoutError, match=r"0\.25"):
        schedule.next()


def test_a_stream_ends_with_its_last_chunk(schedule, seats):
    push(schedule, *seats, seats[1])
    schedule.complete(seats[1])
    assert [schedule.waiting(seat) for seat in seats] == [1, 2, 1]
    assert schedule.next().ended == [] and schedule.waiting(seats[1]) == 1
    push(schedule, seats[0], seats[2])
    step = schedule.next()
    assert step.stepped == seats and step.ended == [seats[1]]
    push(schedule, seats[0], seats[2])  # the one that has ended need not have left
    assert schedule.next().stepped == [seats[0], seats[2]]


def test_chunks_of_a_stream_keep_their_order(schedule, seats):
    schedule.leave(seats[1])
    schedule.join(seats[1])
    for number in range(3):
        schedule.push(seats[1], np.full(2560 - (HISTORY if number == 0 else 0), number, np.float32))
    for seat in (seats[0], seats[2]):
        schedule.leave(seat)
    for number in range(3):
        given = schedule.next().given
        begin = HISTORY if number == 0 else 0
        assert (given.samples[1, begin:] == number).all() and given.length[1] == 2560
        assert given.active.tolist() == [False, True, False, False, False] and given.reset[1] == (number == 0)


def test_a_step_covers_the_highest_open_slot(schedule, seats):
    """The number of open streams may be smaller than that."""
    schedule.leave(seats[0])
    schedule.leave(seats[1])
    push(schedule, seats[2])
    step = schedule.next()
    assert step.stepped == [seats[2]] and step.slots == 3


def test_a_slot_is_as_new_for_its_next_stream(schedule, seats, clock):
    push(schedule, *seats, seats[1])
    schedule.complete(seats[1])
    schedule.leave(seats[1])
    late, new = seats[1], Seat(1, None)
    assert schedule.push(late, CHUNK) == schedule.complete(late) == 0  # it has left
    assert schedule.waiting(late) == 0
    schedule.join(new)
    assert schedule.waiting(new) == 0 and schedule.next().stepped == [seats[0], seats[2]]
    push(schedule, new)
    clock.now_s += PATIENCE_S
    step = schedule.next()
    assert step.stepped == [new] and step.ended == []


def test_a_schedule_stops(schedule):
    schedule.stop()
    assert schedule.next() is None
