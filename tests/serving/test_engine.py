"""Many live streams in one batch: each gets the labels that it would get alone, whatever the others do."""

import asyncio
import gc
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.decoding.state import Emission
from nemojax.errors import AudioError, Backlog, ConfigError, EngineError, EngineFull
from nemojax.serving import engine as engine_module
from nemojax.serving.engine import Engine

LOOKAHEAD = 1


def served(recognizer, talk, **settings):
    """What `talk(engine)` returns, within a running engine, or within a minute."""

    async def run():
        async with Engine(recognizer, LOOKAHEAD, **{"slots": (2, 5), **settings}) as engine:
            return await asyncio.wait_for(talk(engine), 60)

    return asyncio.run(run())


def alone(recognizer, samples):
    stream = recognizer.stream(LOOKAHEAD)
    stream.push(samples)
    return stream.finish()


def pieces(rng, samples):
    """Cut at random, some of them empty."""
    ends = sorted(rng.randrange(len(samples) + 1) for _ in range(rng.randrange(1, 30)))
    return np.split(samples, ends)


async def speak(engine, samples, rng, pause_s=0.01):
    """Pushes at random moments; checks that updates add up to the transcript."""
    stream = engine.open()
    updates = []

    async def collect():
        async for update in stream:
            updates.append(update)

    collecting = asyncio.create_task(collect())
    for piece in pieces(rng, samples):
        await stream.push(piece)
        await asyncio.sleep(rng.choice((0, 0, pause_s * rng.random())))
    transcript = await stream.finish()
    await collecting
    assert "".join(update.text for update in updates) == transcript.text
    assert [token for update in updates for token in update.tokens] == list(transcript.tokens)
    assert [frame for update in updates for frame in update.frames] == list(transcript.frames)
    return transcript


@pytest.fixture(scope="module")
def recordings(speech):
    """Of many lengths: none, one sample, around a chunk's end, long."""
    chunk = 1280 * (LOOKAHEAD + 1)
    lengths = [0, 1, chunk - 1080, chunk - 1081, chunk - 1079, chunk, 3 * chunk - 1080, 20_000, 47_111, 90_000]
    return [np.roll(speech, 7_000 * index)[:length] for index, length in enumerate(lengths)]


@pytest.mark.parametrize("seed", range(3))
def test_streams_get_the_labels_that_they_would_get_alone(recognizer, recordings, seed):
    rng = random.Random(seed)
    chosen = [rng.choice(recordings) for _ in range(14)]

    async def talk(engine):
        slots = asyncio.Semaphore(5)

        async def one(samples):
            await asyncio.sleep(0.2 * rng.random())
            async with slots:
                return await speak(engine, samples, rng)

        return await asyncio.gather(*map(one, chosen)), engine.steps

    transcripts, steps = served(recognizer, talk)
    for samples, transcript in zip(chosen, transcripts, strict=True):
        assert transcript == alone(recognizer, samples)
    assert sum(len(transcript.tokens) for transcript in transcripts) > 30
    assert steps < sum(len(samples) // 2560 + 1 for samples in chosen), "no step was shared"


def test_streams_at_any_rate(recognizer, speech):
    samples = speech[:32_000]
    pcm = (samples * 32_767).astype("<i2").tobytes()

    async def talk(engine):
        resampled, telephone = engine.open(sample_rate_hz=8000), engine.open(raw="s16le,8000")
        with pytest.raises(ConfigError, match="the sample rate of a stream is 1000 to 1000000 Hz, not 10"):
            engine.open(sample_rate_hz=10)
        assert engine.open_streams == 2  # none is lost
        for begin in range(0, 32_000, 777):
            await resampled.push(samples[begin : begin + 777])
        for begin in range(0, len(pcm), 999):
            await telephone.push(pcm[begin : begin + 999])
        return await resampled.finish(), await telephone.finish()

    resampled, telephone = served(recognizer, talk)
    stream = recognizer.stream(LOOKAHEAD, 8000)
    stream.push(samples)
    assert resampled == stream.finish() and resampled.tokens and resampled.notes == ("resampled from 8000 Hz",)
    stream = recognizer.stream(LOOKAHEAD, raw="s16le,8000")
    stream.push(pcm)
    assert telephone == stream.finish()


def test_a_batch_grows_and_shrinks(recognizer, recordings, monkeypatch):
    monkeypatch.setattr(engine_module, "SHRINK_AFTER", 3)
    long, sizes = recordings[-1], []

    async def talk(engine):
        step = engine._batch.step

        def noting(given):
            sizes.append(len(given.samples))
            return step(given)

        engine._batch.step = noting
        rng = random.Random(0)
        first = asyncio.create_task(speak(engine, long, rng, pause_s=0.1))
        others = [asyncio.create_task(speak(engine, recordings[-3], rng)) for _ in range(3)]
        return await asyncio.gather(first, *others)

    first, *others = served(recognizer, talk, backlog=1)
    assert first == alone(recognizer, long)
    assert all(other == alone(recognizer, recordings[-3]) for other in others)
    assert 5 in sizes and sizes[-1] == 2


def test_a_full_engine_refuses_and_a_slot_is_as_new(recognizer, recordings):
    async def talk(engine):
        streams = [engine.open() for _ in range(5)]
        with pytest.raises(EngineFull, match="all 5 slots are taken"):
            engine.open()
        await streams[2].push(recordings[-1][:30_000])
        streams[2].close()
        with pytest.raises(EngineError, match="closed"):
            await streams[2].finish()
        after = await speak(engine, recordings[-2], random.Random(0))
        assert engine.open_streams == 4
        return after

    assert served(recognizer, talk) == alone(recognizer, recordings[-2])


def test_bad_samples_harm_nobody(recognizer, recordings):
    async def talk(engine):
        bad, good = engine.open(), asyncio.create_task(speak(engine, recordings[-1], random.Random(0)))
        await bad.push(recordings[-2][:30_000])
        for samples in (np.array([0.0, np.nan]), np.zeros((2, 2)), np.zeros(3, np.int64)):
            with pytest.raises(AudioError):
                await bad.push(samples)
            with pytest.raises(AudioError):
                bad.push_nowait(samples)
        await bad.push(recordings[-2][30_000:])
        return await bad.finish(), await good

    assert served(recognizer, talk) == (alone(recognizer, recordings[-2]), alone(recognizer, recordings[-1]))


def test_a_stalled_stream_holds_nobody_up(recognizer, recordings):
    async def talk(engine):
        stalled = engine.open()
        await stalled.push(recordings[-2][:10_000])
        other = await speak(engine, recordings[-1], random.Random(0))
        await stalled.push(recordings[-2][10_000:])
        return await stalled.finish(), other

    assert served(recognizer, talk) == (alone(recognizer, recordings[-2]), alone(recognizer, recordings[-1]))


def test_patience_is_for_those_that_come_soon(recognizer, recordings):
    """With a long patience, two streams that push in turns share every step."""

    async def talk(engine):
        first, second = engine.open(), engine.open()
        for at in range(0, 20_000, 2_000):
            await first.push(recordings[-1][at : at + 2_000])
            await asyncio.sleep(0.005)
            await second.push(recordings[-2][at : at + 2_000])
        transcripts = await asyncio.gather(first.finish(), second.finish())
        return [len(transcript.tokens) for transcript in transcripts], engine.steps

    _, steps = served(recognizer, talk, patience_s=30.0)
    assert steps == -(-(20_000 + 1080) // 2560)


def test_pushing_too_fast(recognizer, recordings):
    async def talk(engine):
        stream, stalled = engine.open(), engine.open()
        with pytest.raises(Backlog, match="2 chunks wait"):
            for at in range(0, 90_000, 1_000):
                stream.push_nowait(recordings[-1][at : at + 1_000])
        at_first = stream.backlog
        stalled.close()
        await stream.push(np.zeros(0, np.float32))  # waits for room, though it brings nothing
        return at_first, stream.backlog, stream.chunks_done

    before, after, done = served(recognizer, talk, backlog=2, patience_s=30.0)
    assert before == 2 and after < 2 and done >= 1


def test_a_failing_engine_tells_everyone(recognizer, recordings, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)  # it reports what is raised here on purpose

    async def talk(engine):
        def fail(given):
            raise RuntimeError("out of memory")

        engine._batch.step = fail
        waiting, pushing = engine.open(), engine.open()
        await pushing.push(recordings[-1][:5_000])
        for stream in (waiting, pushing):
            with pytest.raises(EngineError, match="the engine failed: out of memory"):
                await stream.finish()
        with pytest.raises(EngineError, match="not running"):
            engine.open()

    served(recognizer, talk)


def test_a_failing_reader_tells_everyone(recognizer, recordings, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)

    async def talk(engine):
        stream = engine.open()

        def fail(emission, ended):
            raise RuntimeError("lost device")

        stream.seat.decode = fail
        with pytest.raises(EngineError, match="the engine failed: lost device"):
            for at in range(0, 90_000, 1_000):
                await stream.push(recordings[-1][at : at + 1_000])
            await stream.finish()

    served(recognizer, talk)


def test_samples_are_kept_until_their_step_is_read(recognizer, recordings, monkeypatch):
    """The memory of a step that may still be computed is not used for another."""
    resume, unread, counts = threading.Event(), [], []
    device_get = engine_module.jax.device_get

    def slow(emission):
        resume.wait(10)
        read = device_get(emission)
        if emission is not None:
            unread.pop(0)
        return read

    async def talk(engine):
        step = engine._batch.step

        def noting(given):
            assert not any(np.shares_memory(given.samples, other) for other in unread)
            unread.append(given.samples)
            counts.append(len(unread))
            return step(given)

        engine._batch.step = noting
        monkeypatch.setattr(engine_module.jax, "device_get", slow)
        speaking = asyncio.create_task(speak(engine, recordings[-1], random.Random(0)))
        await asyncio.sleep(0.5)
        resume.set()
        return await speaking

    expected = alone(recognizer, recordings[-1]).tokens
    assert served(recognizer, talk, backlog=40).tokens == expected
    assert max(counts) == engine_module.BUFFERS  # all are in use, and no fewer would do


def test_an_engine_that_stops_ends_its_streams(recognizer, recordings):
    async def run():
        async with Engine(recognizer, LOOKAHEAD, slots=(2,)) as engine:
            stream = engine.open()
            await stream.push(recordings[-1][:1_000])
        with pytest.raises(EngineError, match="stopped"):
            await stream.finish()
        with pytest.raises(EngineError, match="stopped"):
            async for _ in stream:
                pass
        with pytest.raises(EngineError, match="stopped"):
            await stream.push(recordings[-1][:1_000])

    asyncio.run(run())


def test_a_finished_stream_takes_no_more(recognizer):
    async def talk(engine):
        stream = engine.open()
        transcript = await stream.finish()
        assert transcript == alone(recognizer, np.zeros(0, np.float32)) == await stream.finish()
        with pytest.raises(ValueError, match="finished"):
            await stream.push(np.zeros(1, np.float32))

    served(recognizer, talk)


@pytest.mark.parametrize(
    "name,values",
    [
        ("slots", [(), (0,), (4, -1)]),
        ("backlog", [0, -1]),
        ("patience_s", [-1.0, float("nan"), float("inf"), 1e300]),
        ("idle_limit_s", [0.0, -1.0, float("nan"), float("inf")]),
    ],
)
def test_settings_must_fit(recognizer, name, values):
    for value in values:
        with pytest.raises(ConfigError, match=name):
            Engine(recognizer, **{name: value})


def test_an_engine_may_reset_the_prediction_network(recognizer):
    engine = Engine(recognizer, slots=(1,), reset_prediction_after_s=2.0)
    assert engine.recognizer.search.reset_prediction_after_s == 2.0
    assert recognizer.search.reset_prediction_after_s is None
    assert Engine(engine.recognizer, slots=(1,)).recognizer.search.reset_prediction_after_s == 2.0
    with pytest.raises(ConfigError, match="reset_prediction_after_s"):
        Engine(recognizer, reset_prediction_after_s=float("nan"))


def test_a_block_closes_its_stream(recognizer, recordings):
    async def talk(engine):
        with pytest.raises(ZeroDivisionError):
            async with engine.open() as stream:
                await stream.push(recordings[-1])
                raise ZeroDivisionError
        with pytest.raises(EngineError, match="closed"):
            await stream.finish()
        async with engine.open() as stream:
            await stream.push(recordings[-1])
            transcript = await stream.finish()
        assert engine.open_streams == 0 and await stream.finish() == transcript
        return transcript

    assert served(recognizer, talk, slots=(1,)) == alone(recognizer, recordings[-1])


def test_a_task_that_waits_keeps_its_stream(recognizer, recordings):
    """The event loop itself holds tasks weakly."""

    async def talk(engine):
        finished = []

        async def handle():
            stream, idle = engine.open(), engine.open()
            asyncio.get_running_loop().call_later(0.3, idle.close)  # until then every step waits for it
            await stream.push(recordings[-2])
            finished.append(await stream.finish())

        asyncio.create_task(handle())  # noqa: RUF006
        for _ in range(5):
            await asyncio.sleep(0.2)
            gc.collect()
        return finished

    assert served(recognizer, talk, patience_s=30.0) == [alone(recognizer, recordings[-2])]


def test_abandoned_streams_give_their_slots_back(recognizer, recordings):
    async def handle(engine, samples):
        stream = engine.open()
        await stream.push(samples)
        async for _ in stream:
            pass

    async def talk(engine):
        handlers = [asyncio.create_task(handle(engine, recordings[-1])) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(EngineFull):
            engine.open()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        del handler, handlers
        gc.collect()
        await asyncio.sleep(0.05)  # iterators are closed by the loop
        gc.collect()
        engine.open(), engine.open()  # nobody refers to these
        gc.collect()
        return await speak(engine, recordings[-2], random.Random(0))

    assert served(recognizer, talk, slots=(2,)) == alone(recognizer, recordings[-2])


def test_a_short_stream_in_a_high_slot_ends_with_its_own_step(recognizer, recordings):
    """The step in which it leaves still covers its slot, and the engine continues."""

    async def talk(engine):
        short = [engine.open() for _ in range(3)][-1]
        await short.push(recordings[-3][:4_000])
        transcript = await short.finish()
        return transcript, await speak(engine, recordings[-2], random.Random(0))

    short, after = served(recognizer, talk)
    assert short == alone(recognizer, recordings[-3][:4_000]) and after == alone(recognizer, recordings[-2])


def test_closing_a_finished_stream_leaves_its_old_slot_alone(recognizer):
    async def talk(engine):
        first = engine.open()
        await first.finish()
        second = engine.open()
        assert second.seat.slot == first.seat.slot
        first.close()
        with pytest.raises(EngineFull):
            engine.open()
        return await second.finish()

    assert served(recognizer, talk, slots=(1,)) == alone(recognizer, np.zeros(0, np.float32))


def test_samples_that_were_refused_are_not_transcribed(recognizer, recordings):
    async def talk(engine):
        stream, stalled = engine.open(), engine.open()
        taken = 0
        with pytest.raises(Backlog):
            while True:
                stream.push_nowait(recordings[-1][taken : taken + 1_000])
                taken += 1_000
        stalled.close()
        return await stream.finish(), taken

    transcript, taken = served(recognizer, talk, backlog=2, patience_s=30.0)
    assert transcript == alone(recognizer, recordings[-1][:taken])


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
