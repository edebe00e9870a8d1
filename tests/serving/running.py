"""An engine that runs, and streams that talk to it."""

import asyncio

import numpy as np

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
