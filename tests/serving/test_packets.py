"""Packets of many streams at once."""

import asyncio

import numpy as np
import pytest

from nemojax.errors import AudioError
from nemojax.serving import packets
from nemojax.serving.engine import Engine
from tests.serving.running import LOOKAHEAD, alone, served


def test_many_streams_are_pushed_at_once(recognizer, speech):
    """Each gets what it would get alone; those that can't take their samples are returned."""
    table = np.stack([np.roll(speech, -9_000 * row)[:25_600] for row in range(4)])
    integers = (table * 32_767).astype(np.int16)

    async def talk(engine):
        streams = [engine.open(), engine.open(), engine.open(), engine.open()]
        streams[3].close()
        for begin in range(0, 25_600, 1_600):
            waiting = list(range(4))
            while waiting:
                left = [streams[row] for row in waiting]
                refused = engine.push_nowait(left, integers[waiting, begin : begin + 1_600])
                waiting = [streams.index(stream) for stream in refused if stream is not streams[3]]
                await asyncio.sleep(0.001)
        with pytest.raises(ValueError, match="at most a chunk of each stream, 2560 samples, not 2561"):
            engine.push_nowait(streams[:1], np.zeros((1, 2_561), np.float32))
        assert streams[3].ended and not streams[0].ended
        with pytest.raises(AudioError, match="stream 1 of 2: sample 0 of those pushed is nan"):
            engine.push_nowait(streams[:2], np.array([[0, 0], [np.nan, 0]], np.float32))
        with pytest.raises(AudioError, match=r"the shape \[2, samples\]; these have the shape \[1, 5\]"):
            engine.push_nowait(streams[:2], np.zeros((1, 5), np.float32))
        async with Engine(recognizer, LOOKAHEAD, slots=(1,)) as other:
            foreign = other.open()
            with pytest.raises(ValueError, match="another engine"):
                engine.push_nowait([streams[0], foreign], np.zeros((2, 100), np.float32))
            assert foreign.duration_s == 0
        return [await stream.finish() for stream in streams[:3]]

    for row, transcript in enumerate(served(recognizer, talk, backlog=2)):
        assert transcript == alone(recognizer, integers[row])


def test_streams_of_all_kinds_are_pushed_together(recognizer, speech, monkeypatch):
    """In groups: streams that resample, and streams that are at different places of a chunk."""
    monkeypatch.setattr(packets, "TOGETHER", 3)
    table = np.stack([np.roll(speech, -9_000 * row)[:19_200] for row in range(5)]).astype(np.float32)

    async def talk(engine):
        rates = [None, 8000, None, None, 8000]
        streams = [engine.open(sample_rate_hz=rate) for rate in rates]
        for row in (2, 4):
            streams[row].push_nowait(table[row, :777])
        for begin in range(0, 19_200, 800):
            waiting = list(range(5))
            while waiting:
                refused = engine.push_nowait([streams[row] for row in waiting], table[waiting, begin : begin + 800])
                waiting = [streams.index(stream) for stream in refused]
                await asyncio.sleep(0.001)
        assert [stream.duration_s for stream in streams] == [1.2, 2.4, 19_977 / 16_000, 1.2, 19_977 / 8000]
        return [await stream.finish() for stream in streams]

    transcripts = served(recognizer, talk, backlog=2)
    for row, samples in enumerate(table):
        whole = np.concatenate([samples[:777], samples]) if row in (2, 4) else samples
        stream = recognizer.stream(LOOKAHEAD, 8000 if row in (1, 4) else None)
        stream.push(whole)
        assert transcripts[row] == stream.finish()


def test_a_packet_overtakes_no_push(recognizer, speech):
    """A push waits for room. A packet that arrives with the step that makes room comes after that push all the same."""
    refused, samples = [], np.asarray(speech)[:20_000]

    async def talk(engine):
        streams = [engine.open()]
        pushing = asyncio.create_task(streams[0].push(samples))

        def packet(report):
            if not pushing.done():
                refused.append(engine.push_nowait(streams, np.ones((1, 100), np.float32)) == streams)

        engine.on_step = packet
        await pushing
        return await streams[0].finish()

    assert served(recognizer, talk, backlog=1) == alone(recognizer, samples) and refused and all(refused)


def test_a_stream_is_given_once(recognizer):
    async def talk(engine):
        stream, other = engine.open(), engine.open()
        with pytest.raises(ValueError, match="a stream is given twice; push its packets one after the other"):
            engine.push_nowait([stream, other, stream], np.zeros((3, 100), np.float32))
        assert stream.duration_s == other.duration_s == 0
        assert engine.push_nowait([], np.zeros((0, 100), np.float32)) == []

    served(recognizer, talk)
