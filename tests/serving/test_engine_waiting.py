"""When the engine begins a step, with which size, and which streams it ends: on a clock that is set by hand."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.decoding.state import Emission
from nemojax.errors import EngineError
from nemojax.serving import engine as engine_module
from nemojax.serving.engine import Engine
from tests.serving.running import LOOKAHEAD


class FakeBatch:
    """Notes the steps' sizes, and computes nothing."""

    def __init__(self, size):
        self.size, self.sizes = size, []

    def step(self, given):
        self.sizes.append(len(given.samples))
        rows = np.zeros((len(given.samples), 1), np.int32)
        return Emission(rows, rows, rows.astype(np.float32), rows[:, 0])

    def resize(self, size):
        self.size = size

    def wait(self):
        pass


@pytest.fixture
def idle(recognizer, monkeypatch):
    """An engine whose threads do not run, with three open streams, and a clock that is set by hand."""
    monkeypatch.setattr(recognizer, "batch", lambda size, lookahead: FakeBatch(size))
    engine = Engine(recognizer, LOOKAHEAD, slots=(2, 5), patience_s=1.0)
    engine._compile()
    engine._running, engine._batch.sizes = True, []
    engine.later = []  # calls that the event loop would make
    engine._loop = SimpleNamespace(
        call_soon_threadsafe=lambda *call: None, call_later=lambda *call: engine.later.append(call)
    )
    engine.streams = [engine.open() for _ in range(3)]
    engine.now_s = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: engine.now_s)
    for stream in engine.streams:
        stream.seat.last_s = engine.now_s

    def waits(timeout=None):
        raise TimeoutError(timeout)

    monkeypatch.setattr(engine._wake, "wait", waits)
    return engine


CHUNK = np.zeros(100, np.float32)


def streams(seats):
    return [seat.stream() for seat in seats]


def test_patience_counts_from_the_first_chunk(idle):
    idle.enqueue(idle.streams[0].seat, CHUNK)
    idle.now_s += 0.75
    idle.enqueue(idle.streams[1].seat, CHUNK)
    with pytest.raises(TimeoutError, match=r"0\.25"):
        idle._next()
    idle.now_s += 0.25
    assert streams(idle._next().stepped) == idle.streams[:2]
    idle.enqueue(idle.streams[2].seat, CHUNK)  # the next step's patience begins with its own first chunk
    with pytest.raises(TimeoutError, match=r"1\.0"):
        idle._next()


def test_a_step_begins_at_once_when_every_stream_has_a_chunk(idle):
    for stream in idle.streams:
        idle.enqueue(stream.seat, CHUNK)
    assert streams(idle._next().stepped) == idle.streams
    with pytest.raises(TimeoutError, match="None"):  # without a chunk there is nothing to be patient for
        idle._next()


def test_idle_streams_are_closed(idle):
    silent, waiting, complete = idle.streams
    idle.now_s += 3.0
    waiting.push_nowait(np.zeros(2_000, np.float32))  # a chunk waits for the engine
    idle.complete(complete.seat)
    idle.now_s += 5.0
    silent.push_nowait(CHUNK)
    idle._close_idle(10.0)
    assert idle.later.pop() == (10.0, idle._close_idle, 10.0) and idle.open_streams == 2
    idle.now_s += 9.0
    idle._close_idle(10.0)
    assert idle.later.pop()[0] == 1.0 and idle.open_streams == 2
    idle.now_s += 1.0
    idle._close_idle(10.0)
    assert idle.open_streams == 1 and idle.open().seat.slot == silent.seat.slot
    with pytest.raises(EngineError, match="it got no samples for 10 s"):
        silent.push_nowait(CHUNK)
    waiting.push_nowait(CHUNK)
    idle._running = False
    idle.later.clear()
    idle._close_idle(10.0)
    assert idle.later == []


def test_an_end_without_a_chunk_delays_no_other_stream(idle):
    idle.enqueue(idle.streams[0].seat, CHUNK)
    idle.now_s += 0.75
    idle.complete(idle.streams[1].seat)
    result = idle._next()
    assert (result.emission, result.stepped, streams(result.ended)) == (None, [], [idle.streams[1]])
    with pytest.raises(TimeoutError, match=r"0\.25"):
        idle._next()


def test_a_batch_shrinks_only_after_many_spare_steps(idle, monkeypatch):
    monkeypatch.setattr(engine_module, "SHRINK_AFTER", 2)
    first, second, third = idle.streams

    def step(*streams):
        for stream in streams:
            idle.enqueue(stream.seat, CHUNK)
        idle.now_s += 1.0
        idle._next()
        return idle._batch.sizes[-1]

    assert step(first, third) == 5
    third.close()
    assert [step(first) for _ in range(4)] == [5, 5, 2, 2]
    assert step(first, second) == 2
    idle.streams[2] = idle.open()
    assert step(first) == 5  # the open slot counts, though it has no chunk
    idle.streams[2].close()
    assert [step(first) for _ in range(2)] == [5, 5]
    idle.streams[2] = idle.open()
    assert step(first) == 5 and idle._spare_steps == 0


def test_a_batch_covers_the_highest_open_slot(idle):
    """The number of open streams may be smaller than that."""
    _, second, third = idle.streams
    second.close()
    idle.enqueue(third.seat, CHUNK)
    idle.now_s += 1.0
    assert streams(idle._next().stepped) == [third] and idle._batch.sizes == [5]
