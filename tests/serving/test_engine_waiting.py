"""What an engine does beside its steps: it compiles them, closes idle streams on a clock set by hand, and stops."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.decoding.arpa import write_arpa
from nemojax.decoding.estimation import estimate
from nemojax.errors import Backlog, EngineError
from nemojax.serving.engine import Engine
from tests.helpers.messages import whole
from tests.serving.running import LOOKAHEAD


class FakeBatch:
    """Notes its size and those of its steps, and computes nothing."""

    def __init__(self, size, recognizer):
        self.size, self.config = size, recognizer.config
        self.chunk_samples = self.config.chunk_samples(LOOKAHEAD)
        self.steps = []

    def step(self, given):
        self.steps.append(len(given.samples))

    def resize(self, size):
        self.size = size

    def wait(self):
        pass


@pytest.fixture
def idle(recognizer, monkeypatch):
    """An engine whose threads do not run, with three open streams, and a clock that is set by hand."""
    monkeypatch.setattr(recognizer, "batch", lambda size, lookahead: FakeBatch(size, recognizer))
    engine = Engine(recognizer, LOOKAHEAD, slots=(2, 5), patience_s=1.0)
    engine._compile()
    engine._stopped = None
    engine.later = []  # calls that the event loop would make
    engine._loop = SimpleNamespace(
        call_soon_threadsafe=lambda *call: None, call_later=lambda *call: engine.later.append(call)
    )
    engine.streams = [engine.open() for _ in range(3)]
    engine.now_s = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: engine.now_s)
    for stream in engine.streams:
        stream.seat.samples_s = engine.now_s
    return engine


def test_idle_streams_are_closed(idle):
    silent, waiting, complete = idle.streams
    idle.now_s += 3.0
    waiting.push_nowait(np.zeros(2_000, np.float32))  # a chunk waits for the engine
    complete.seat.complete = True
    idle.now_s += 5.0
    silent.push_nowait(np.zeros(100, np.float32))
    idle._close_idle(10.0)
    assert idle.later.pop() == (10.0, idle._close_idle, 10.0) and idle.open_streams == 3
    idle.now_s += 9.0
    idle._close_idle(10.0)
    assert idle.later.pop()[0] == 1.0 and idle.open_streams == 3
    idle.now_s += 1.0
    idle._close_idle(10.0)
    assert idle.open_streams == 2 and idle.open().seat.slot == silent.seat.slot
    with pytest.raises(EngineError, match="it got no samples for 10 s"):
        silent.push_nowait(np.zeros(100, np.float32))
    waiting.push_nowait(np.zeros(100, np.float32))
    idle._stopped = EngineError("stopped")
    idle.later.clear()
    idle._close_idle(10.0)
    assert idle.later == []


def test_packets_of_many_streams_keep_them_from_being_idle(idle):
    idle.now_s += 9.0
    assert idle.push_nowait(idle.streams[:2], np.zeros((2, 100), np.float32)) == []
    idle.now_s += 9.0
    idle._close_idle(10.0)
    assert idle.open_streams == 2 and [stream.ended for stream in idle.streams] == [False, False, True]


@pytest.mark.parametrize("rate_hz,chunk", [(8_000, 1_280), (48_000, 7_680)])
def test_a_stream_has_room_for_whole_chunks_at_its_own_rate(idle, rate_hz, chunk):
    stream = idle.open(rate_hz)
    assert stream.room == 4
    with pytest.raises(Backlog):
        stream.push_nowait(np.zeros(4 * chunk + 1, np.float32))
    stream.push_nowait(np.zeros(4 * chunk, np.float32))


def test_a_step_of_every_size_is_compiled_before_a_stream_comes(recognizer, monkeypatch):
    batch = FakeBatch(2, recognizer)
    monkeypatch.setattr(recognizer, "batch", lambda size, lookahead: batch)

    async def sizes_of_steps():
        async with Engine(recognizer, LOOKAHEAD, slots=(2, 3, 5)):
            return list(batch.steps)

    assert asyncio.run(sizes_of_steps()) == [2, 3, 5] and batch.size == 2


def test_who_waits_for_a_slot_is_told_that_the_engine_stops(recognizer, monkeypatch):
    monkeypatch.setattr(recognizer, "batch", lambda size, lookahead: FakeBatch(size, recognizer))

    async def wait():
        async with Engine(recognizer, LOOKAHEAD, slots=(1,)) as engine:
            stream = engine.open()
            waiting = asyncio.create_task(engine.open_within(60.0))
            await asyncio.sleep(0)
        with pytest.raises(EngineError, match=whole("the engine has stopped")):
            await asyncio.wait_for(waiting, 10.0)
        stream.close()

    asyncio.run(wait())


def test_other_phrases_leave_the_language_model_its_weight(recognizer, monkeypatch, tmp_path):
    write_arpa(tmp_path / "lm.arpa", estimate([[5, 9, 20]], recognizer.tokenizer.size, 2))
    with_lm = recognizer.with_language_model(tmp_path / "lm.arpa")
    monkeypatch.setattr(with_lm, "batch", lambda size, lookahead: FakeBatch(size, recognizer))

    async def graphs():
        async with Engine(with_lm, LOOKAHEAD, slots=(1,)) as engine:
            stream, found = engine.open(lm_weight=2.0), []
            for phrases in (["fox"], None):
                stream.set_phrases(phrases)
                found.append(stream.seat.graphs)
            return found

    some, none = asyncio.run(graphs())
    assert some.phrases is not None and none.phrases is None and some.lm_weight == none.lm_weight == 2.0
