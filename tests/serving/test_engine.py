"""Many live streams in one batch: each gets the labels that it would get alone, whatever the others do."""

import asyncio
import itertools
import random
import threading

import numpy as np
import pytest

from nemojax.errors import ConfigError, EngineError, EngineFull
from nemojax.serving import engine as engine_module
from nemojax.serving import sized_batch
from nemojax.serving.engine import Engine
from nemojax.serving.engines import open_engines
from tests.serving.running import LOOKAHEAD, alone, served, speak


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


def test_a_batch_grows_and_shrinks(recognizer, recordings, monkeypatch):
    monkeypatch.setattr(sized_batch, "SHRINK_AFTER", 3)
    long, sizes = recordings[-1], []

    async def talk(engine):
        step = engine._batch.batch.step

        def noting(given):
            sizes.append(len(given.samples))
            return step(given)

        engine._batch.batch.step = noting
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
        for _ in range(5):  # what is refused takes no slot
            with pytest.raises(ConfigError, match="sample rate"):
                engine.open(sample_rate_hz=10)
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


def test_a_failing_engine_tells_everyone(recognizer, recordings, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)  # it reports what is raised here on purpose

    async def talk(engine):
        def fail(given):
            raise RuntimeError("out of memory")

        engine._batch.batch.step = fail
        waiting, pushing, *_ = [engine.open() for _ in range(5)]
        queued = asyncio.create_task(engine.open_within(60))
        watching = asyncio.ensure_future(engine.failed)
        watching.cancel()  # one who no longer waits leaves the news to the others
        await pushing.push(recordings[-1][:5_000])
        for stream in (waiting, pushing, waiting, pushing):
            with pytest.raises(EngineError, match="the engine failed: out of memory"):
                await stream.finish()
            stream.close()  # its first error stays
        with pytest.raises(EngineError, match="the engine failed: out of memory"):
            await queued
        with pytest.raises(EngineError, match="the engine failed: out of memory"):
            engine.open()
        return str(await engine.failed), engine

    message, engine = served(recognizer, talk)
    assert message == "the engine failed: out of memory"
    with pytest.raises(EngineError, match="the engine failed: out of memory"):
        engine.open()  # also once it has stopped


def test_a_failing_reader_tells_everyone(recognizer, recordings, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)

    async def talk(engine):
        stream = engine.open()

        def fail(*labels):
            raise RuntimeError("lost device")

        stream.seat.hypothesis.append = stream.seat.hypothesis.finish = fail
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
        step = engine._batch.batch.step

        def noting(given):
            assert not any(np.shares_memory(given.samples, other) for other in unread)
            unread.append(given.samples)
            counts.append(len(unread))
            return step(given)

        engine._batch.batch.step = noting
        monkeypatch.setattr(engine_module.jax, "device_get", slow)
        speaking = asyncio.create_task(speak(engine, recordings[-1], random.Random(0)))
        await asyncio.sleep(0.5)
        resume.set()
        return await speaking

    expected = alone(recognizer, recordings[-1]).tokens
    assert served(recognizer, talk, backlog=40).tokens == expected
    assert max(counts) == engine_module.IN_FLIGHT + 2  # one step is being read, one waits for its turn to be


def test_an_engine_that_stops_ends_its_streams(recognizer, recordings):
    async def run():
        async with Engine(recognizer, LOOKAHEAD, slots=(2,)) as engine:
            stream = engine.open()
            await stream.push(recordings[-1][:1_000])
        assert await engine.failed is None
        with pytest.raises(EngineError, match="stopped"):
            await stream.finish()
        with pytest.raises(EngineError, match="stopped"):
            async for _ in stream:
                pass
        with pytest.raises(EngineError, match="stopped"):
            await stream.push(recordings[-1][:1_000])

    asyncio.run(run())


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


def test_a_short_stream_in_a_high_slot_ends_with_its_own_step(recognizer, recordings):
    """The step in which it leaves still covers its slot, and the engine continues."""

    async def talk(engine):
        short = [engine.open() for _ in range(3)][-1]
        await short.push(recordings[-3][:4_000])
        transcript = await short.finish()
        return transcript, await speak(engine, recordings[-2], random.Random(0))

    short, after = served(recognizer, talk)
    assert short == alone(recognizer, recordings[-3][:4_000]) and after == alone(recognizer, recordings[-2])


def test_a_slot_may_be_waited_for(recognizer, recordings):
    async def talk(engine):
        streams = [engine.open() for _ in range(5)]
        with pytest.raises(EngineFull, match="all 5 slots are taken"):
            await engine.open_within(0.01)
        with pytest.raises(ConfigError, match="sample rate"):
            await engine.open_within(60, sample_rate_hz=10)
        waiting = asyncio.create_task(engine.open_within(60, sample_rate_hz=16_000))
        await asyncio.sleep(0)
        await streams[3].finish()
        with pytest.raises(EngineFull):
            engine.open()  # the slot is the other's
        stream = await waiting
        await stream.push(recordings[-2])
        return await stream.finish()

    assert served(recognizer, talk) == alone(recognizer, recordings[-2])


def test_each_step_is_reported(recognizer, recordings):
    reports = []

    async def talk(engine):
        await asyncio.gather(*(speak(engine, samples, random.Random(0)) for samples in recordings[-2:]))
        return engine.steps

    steps = served(recognizer, talk, on_step=reports.append)
    assert len(reports) == steps and {report.rows for report in reports} <= {2, 5}
    assert sum(len(report.streams) for report in reports) == sum(-(-(len(r) + 1080) // 2560) for r in recordings[-2:])
    for report in reports:
        moments_s = report.ready_s, report.begun_s, report.gathered_s, report.dispatched_s, report.read_s
        assert list(moments_s) == sorted(moments_s) and report.read_s <= report.decoded_s
    assert all(before.begun_s <= after.ready_s for before, after in itertools.pairwise(reports))


def test_a_step_names_the_streams_with_something_to_read(recognizer, recordings):
    tokens = {}

    def read(report):
        assert set(report.changed) <= set(report.streams)
        for stream in report.streams:
            update = stream.read_nowait()
            assert bool(update.tokens) == (stream in report.changed)
            tokens.setdefault(stream, []).extend(update.tokens)

    async def talk(engine):
        streams = [engine.open() for _ in range(2)]
        for stream, samples in zip(streams, recordings[-2:], strict=True):
            await stream.push(samples)
        transcripts = [await stream.finish() for stream in streams]
        assert [tuple(tokens[stream]) for stream in streams] == [transcript.tokens for transcript in transcripts]

    served(recognizer, talk, on_step=read, backlog=100)
    assert any(tokens.values())


def test_engines_of_several_lookaheads_share_a_recognizer(recognizer, recordings, monkeypatch):
    made = []
    new = lambda *given, **settings: made.append(Engine(*given, **settings)) or made[-1]
    monkeypatch.setattr("nemojax.serving.engines.Engine", new)

    async def run():
        async with open_engines(recognizer, (0, 6, 6), slots=(2,)) as engines:
            assert (
                list(engines) == [0, 6]
                and list(engines.values()) == made
                and engines[0].recognizer is engines[6].recognizer is recognizer
            )
            speaking = (speak(engine, recordings[-1], random.Random(0)) for engine in engines.values())
            return await asyncio.gather(*speaking)

    for lookahead, transcript in zip((0, 6), asyncio.run(run()), strict=True):
        stream = recognizer.stream(lookahead)
        stream.push(recordings[-1])
        assert transcript == stream.finish() and transcript.lookahead == lookahead
