"""Streams of an engine with phrases of their own: each gets what it would get alone."""

import asyncio
import random

import numpy as np
import pytest

from nemojax.errors import ConfigError, EngineError
from nemojax.recognition.stream_batch import jit_step
from nemojax.recognition.stream_graphs import NO_GRAPHS
from nemojax.serving.engine import Engine
from nemojax.serving.pending_steps import PendingSteps
from tests.helpers.messages import whole
from tests.serving.running import LOOKAHEAD, pieces, served

NO_MODEL = "lm_weight is the weight of a language model, and there is none; load one first"
LISTS = [None, [("quick fox", 5.0)], [("lazy", 3.0), ("a fine day", 5.0)], None, [("two dogs", 4.0), "she said"]]


def alone(recognizer, samples, phrases):
    stream = recognizer.stream(LOOKAHEAD, phrases=phrases)
    stream.push(samples)
    return stream.finish()


async def speak(stream, samples, rng):
    for piece in pieces(rng, samples):
        await stream.push(piece)
        await asyncio.sleep(rng.choice((0, 0.01 * rng.random())))
    return await stream.finish()


@pytest.mark.parametrize("prepared", [False, True])
def test_streams_with_other_phrases_get_what_they_would_get_alone(recognizer, recordings, prepared):
    rng = random.Random(0)

    async def talk(engine):
        compiled = []

        async def one(phrases, samples):
            await asyncio.sleep(0.1 * rng.random())
            async with engine.open(phrases=phrases) as stream:
                return await speak(stream, samples, rng)

        for _ in range(3):
            spoken = [one(phrases, np.roll(recordings[-1], 5_000 * i)) for i, phrases in enumerate(LISTS)]
            found = await asyncio.gather(*spoken)
            compiled.append(jit_step()._cache_size())
        return found, compiled

    found, compiled = served(recognizer, talk, phrases=prepared)
    for index, (phrases, transcript) in enumerate(zip(LISTS, found, strict=True)):
        assert transcript == alone(recognizer, np.roll(recordings[-1], 5_000 * index), phrases)
    assert found[1] != alone(recognizer, np.roll(recordings[-1], 5_000), None)
    assert compiled[1] == compiled[2]


def test_phrases_change_while_a_stream_runs(recognizer, recordings):
    samples, chunk = recordings[-1], 1280 * (LOOKAHEAD + 1)
    before, after = samples[: 9 * chunk + 100], samples[9 * chunk + 100 :]

    async def talk(engine):
        other, stream = engine.open(phrases=LISTS[1]), engine.open()
        await asyncio.gather(stream.push(before), other.push(before))
        stream.set_phrases(LISTS[2])
        other.set_phrases([])
        await asyncio.gather(stream.push(after), other.push(after))
        ended = await stream.finish(), await other.finish()
        with pytest.raises(ValueError, match=whole("this stream is finished; open another")):
            stream.set_phrases(None)
        return ended

    expected = []
    for first, second in ((None, LISTS[2]), (LISTS[1], None)):
        stream = recognizer.stream(LOOKAHEAD, phrases=first)
        stream.push(before)
        stream.set_phrases(second)
        stream.push(after)
        expected.append(stream.finish())
    assert list(served(recognizer, talk)) == expected


def test_phrases_that_are_none_take_no_slot(recognizer):
    async def talk(engine):
        with pytest.raises(ConfigError, match=whole("phrases must be a list of phrases, not 'fox'")):
            engine.open(phrases="fox")
        with pytest.raises(ConfigError, match=whole(NO_MODEL)):
            await engine.open_within(1.0, lm_weight=0.1)
        assert engine.open_streams == 0
        stream = engine.open()
        with pytest.raises(ConfigError, match=whole("phrases must be a list of phrases, not 'fox'")):
            stream.set_phrases("fox")
        stream.close()
        with pytest.raises(EngineError, match=whole("the stream was closed")):
            stream.set_phrases(["fox"])

    served(recognizer, talk)


def test_a_search_without_fusion_takes_no_phrases(recognizer, monkeypatch):
    class Plain:
        def initial_state(self, prediction, batch):
            return prediction

        def decode(self, model, encoded, length, state):
            return state

    monkeypatch.setattr(recognizer, "search", Plain())
    with pytest.raises(ConfigError, match=whole("Plain takes no language model and no phrases; use Greedy or Beam")):
        recognizer.with_phrases(["fox"])
    monkeypatch.undo()
    assert isinstance(Engine(recognizer, LOOKAHEAD, slots=(1,)), Engine)


def test_a_chunk_has_the_phrases_of_when_it_was_complete(recognizer):
    config = recognizer.config
    size = config.chunk_samples(LOOKAHEAD)
    pending = PendingSteps(config, 2, size)
    first, second = (recognizer.with_phrases([word]).graphs for word in ("fox", "dog"))
    pending.begin(0, first)
    pending.begin(1)
    pending.push(0, np.zeros(size, np.float32), 0)
    pending.push_rows(np.array([1]), np.zeros((1, size), np.float32), np.array([0]))
    pending.set_graphs(0, second)
    pending.push(0, np.zeros(size, np.float32), 1)
    numbers = lambda step: step.graphs.on_device(2).numbers[:, 1].tolist()
    step = pending.take()
    assert numbers(step) == [first.phrases.number, 0] and step.graphs.placed == {first.phrases}
    pending.give_back(step)
    assert not step.graphs.placed and numbers(step) == [0, 0]
    pending.drop(0)
    pending.begin(0, NO_GRAPHS)
    pending.push(0, np.zeros(2 * size, np.float32), 0)
    assert numbers(pending.take()) == [0, 0]
