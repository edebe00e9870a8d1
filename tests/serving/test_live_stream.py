"""What a caller may do with a stream of an engine, and how its slot comes back."""

import asyncio
import gc
import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.errors import AudioError, Backlog, ConfigError, EngineError, EngineFull
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.serving.live_stream import LiveStream
from tests.serving.running import LOOKAHEAD, alone, served, speak


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


def test_a_finished_stream_takes_no_more(recognizer):
    async def talk(engine):
        stream = engine.open()
        transcript = await stream.finish()
        assert transcript == alone(recognizer, np.zeros(0, np.float32)) == await stream.finish()
        with pytest.raises(ValueError, match="finished"):
            await stream.push(np.zeros(1, np.float32))

    served(recognizer, talk)


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
        await asyncio.sleep(0)
        assert engine.open_streams == 0  # before another stream is opened: a request may wait for a slot
        engine.open(), engine.open()  # nobody refers to these
        gc.collect()
        return await speak(engine, recordings[-2], random.Random(0))

    assert served(recognizer, talk, slots=(2,)) == alone(recognizer, recordings[-2])


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


def test_chunks_are_counted_once(recognizer, recordings):
    """The end of a stream that ends with a whole chunk is no chunk."""

    async def talk(engine):
        stream = engine.open()
        await stream.push(recordings[-1][: 3 * engine.chunk_samples - recognizer.config.history_samples])
        while stream.chunks_done < 3:
            await asyncio.sleep(0.01)
        await stream.finish()
        return stream.chunks_done

    assert served(recognizer, talk) == 3


def test_a_long_push_goes_in_piecewise(recognizer, speech):
    """No more chunks wait than the engine allows, and others get their turns; canceled, it says how much was taken."""
    samples = np.concatenate([speech, speech])[:60_000]

    async def talk(engine):
        stream, deepest = engine.open(), 0
        pushing = asyncio.create_task(stream.push(samples))
        second = asyncio.create_task(stream.push(samples[:1_234]))  # in its turn
        while not pushing.done():
            deepest = max(deepest, stream.backlog)
            if deepest == 2:
                with pytest.raises(Backlog):  # nothing overtakes a push
                    stream.push_nowait(samples[:1])
            await asyncio.sleep(0)
        await second
        transcript, chunks = await stream.finish(), stream.chunks_pushed
        late = engine.open()
        pushing = asyncio.create_task(late.push(samples))
        while late.chunks_done < 3:
            await asyncio.sleep(0)
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        taken = round(late.duration_s * 16_000)
        return transcript, deepest, chunks, taken, await late.finish()

    transcript, deepest, chunks, taken, canceled = served(recognizer, talk, backlog=2)
    assert transcript == alone(recognizer, np.concatenate([samples, samples[:1_234]]))
    assert deepest == 2 and chunks == -(-(61_234 + 1080) // 2560)
    assert 3 * 2560 - 1080 <= taken < len(samples) and canceled == alone(recognizer, samples[:taken])


def test_updates_may_be_read_without_waiting(recognizer, recordings):
    async def talk(engine):
        stream, read = engine.open(), []
        assert stream.read_nowait() is None
        for piece in np.array_split(recordings[-1], 9):
            await stream.push(piece)
            while stream.chunks_done < stream.chunks_pushed:
                await asyncio.sleep(0.001)
            read.append(stream.read_nowait())
        transcript = await stream.finish()
        return [*read, stream.read_nowait()], stream.read_nowait(), transcript

    updates, after, transcript = served(recognizer, talk)
    assert after is None and "".join(update.text for update in updates) == transcript.text
    assert len({update.transcribed_s for update in updates}) == len(updates) > 1


def test_pushes_keep_their_order_and_their_bytes(recognizer, speech):
    """Of several tasks, some of whose pushes are long; half a sample waits for its other half."""
    data = (speech[:40_000] * 32_767).astype("<i2").tobytes()

    async def talk(engine):
        stream = engine.open(raw="s16le,16000")
        ends = [0, 30_001, 30_002, 50_001, 50_100, 70_003, len(data)]
        pushes = [asyncio.create_task(stream.push(data[a:b])) for a, b in itertools.pairwise(ends)]
        await asyncio.gather(*pushes)
        return await stream.finish()

    assert served(recognizer, talk, backlog=1) == alone(recognizer, np.frombuffer(data, "<i2"))


def test_a_push_without_waiting_takes_all_or_nothing(recognizer, speech):
    async def talk(engine):
        stream = engine.open()
        with pytest.raises(Backlog, match=r"0\.340 s of samples are more than there is room for \(0\.320 s\)"):
            stream.push_nowait(speech[:5_440])
        assert stream.duration_s == 0
        stream.push_nowait(speech[:5_120])
        return await stream.finish()

    assert served(recognizer, talk, backlog=2) == alone(recognizer, speech[:5_120])


def test_updates_have_times_probabilities_and_how_much_is_transcribed(recognizer, recordings):
    samples, frame_s = recordings[-1], recognizer.config.frame_ms / 1000

    async def talk(engine):
        stream, kept, updates = engine.open(keep_transcript=False), engine.open(), []

        async def read():
            async for update in stream:
                updates.append(update)

        reading = asyncio.create_task(read())
        await asyncio.gather(stream.push(samples), kept.push(samples))
        transcripts = await asyncio.gather(stream.finish(), kept.finish())
        await reading
        return updates, *transcripts

    updates, forgotten, kept = served(recognizer, talk)
    total = sum(updates[1:], updates[0])
    assert (total.text, total.tokens, total.frames) == (kept.text, kept.tokens, kept.frames)
    np.testing.assert_allclose(total.times_s, np.array(kept.frames) * frame_s, atol=1e-3)
    assert len(total.log_probs) == len(kept.tokens)
    np.testing.assert_allclose(np.exp(min(total.log_probs)), min(word.confidence for word in kept.words), atol=1e-3)
    positions_s = [update.transcribed_s for update in updates]
    assert positions_s == sorted(positions_s) and positions_s[-1] == total.transcribed_s == len(samples) / 16_000
    assert {round(at_s * 16_000 + 1080) % 2560 for at_s in positions_s[:-1]} == {0}  # whole chunks
    assert (forgotten.text, forgotten.tokens, forgotten.words) == ("", (), ())
    assert forgotten.duration_s == kept.duration_s
    assert forgotten.notes == ("the text of earlier updates was not kept",)


def test_a_part_is_at_most_a_chunk():
    stream = SimpleNamespace(_server=(server := object()), _part_samples=2560)
    LiveStream.check_part(stream, server, 2560)
    with pytest.raises(ValueError, match="at most a chunk of each stream, 2560 samples, not 2561"):
        LiveStream.check_part(stream, server, 2561)
    with pytest.raises(ValueError, match="a stream of another engine"):
        LiveStream.check_part(stream, object(), 1)


def test_utterances_end_as_in_a_stream_alone(recognizer, speech):
    """Streams of one engine have ends of their own, or none; a pause without labels ends an utterance too."""
    ends = [EndOfUtterance(240, max_utterance_s=1.0), EndOfUtterance(800), None]

    async def talk(engine):
        async def one(end_of_utterance):
            given = {"end_of_utterance": end_of_utterance}
            stream = await engine.open_within(60, **given) if end_of_utterance is ends[1] else engine.open(**given)
            final = []

            async def read():
                async for update in stream:
                    final.extend(update.final)

            reading = asyncio.create_task(read())
            for begin in range(0, len(speech), 3000):
                await stream.push(speech[begin : begin + 3000])
            transcript = await stream.finish()
            await reading
            return transcript, tuple(final)

        return await asyncio.gather(*map(one, ends))

    for end_of_utterance, (transcript, final) in zip(ends, served(recognizer, talk), strict=True):
        stream = recognizer.stream(LOOKAHEAD, end_of_utterance=end_of_utterance)
        stream.push(speech)
        assert transcript == stream.finish() and final == transcript.utterances
        assert bool(final) == (end_of_utterance is not None)
