"""`load(..., reproducible=True)`: labels, frames and log-probabilities are the same bits however a step is composed.

Compiled as users compile it: without optimization XLA would not choose among orders of sums.
"""

import asyncio
import random
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nemojax
from nemojax.bundled import SMALL
from nemojax.recognition.hypothesis import merged
from nemojax.recognition.stream_batch import StepInput, jit_step
from nemojax.serving.engine import Engine
from nemojax.streaming import init_state
from tests.helpers.compiler import needs_compiler
from tests.helpers.optimized import OPTIMIZED
from tests.serving.running import pieces

pytestmark = needs_compiler
SEGMENT_CHUNKS = (1, 5)  # chunks in a step


class Case:
    """A recognizer at one look-ahead, recordings, and the results of each alone, chunk by chunk."""

    def __init__(self, directory, dtype: str, lookahead: int, speech: np.ndarray, reset_s: float | None = None):
        loaded = nemojax.load(directory, dtype, compiler_options=OPTIMIZED, reproducible=True)
        self.recognizer = loaded if reset_s is None else loaded.with_reset(reset_s)
        self.lookahead = lookahead
        rng, longest = random.Random(lookahead), len(speech)
        lengths = [longest, 0, 1, 17_000, *(rng.randrange(longest) for _ in range(3))]
        self.recordings = [np.roll(speech, 7_000 * i)[:length] for i, length in enumerate(lengths)]
        self.alone = [run(self.batch(1), [one], lambda: (1, [True]))[0] for one in self.recordings]
        assert sum(len(labels) for labels, _, _ in self.alone) > 30

    def batch(self, rows: int):
        return self.recognizer.batch(rows, self.lookahead)


def run(batch, recordings, plan) -> list[tuple]:
    """Transcribes recordings in the rows of a batch: where one ends, the next begins.

    `plan()` gives for each step its number of chunks, and which rows take part in it.
    """
    config, waiting = batch.config, list(enumerate(recordings))[::-1]
    rows, found = {}, [[] for _ in recordings]  # rows: index, what is left, whether it has begun
    while waiting or rows:
        chunks, active = plan()
        given = StepInput.empty(config, batch.size, chunks * batch.chunk_samples)
        given.samples[:] = np.nan  # what a row does not use changes nothing
        taken = {}
        for row in np.flatnonzero(active).tolist():
            if row not in rows and waiting:
                rows[row] = (*waiting.pop(), True)
            if row in rows:
                index, left, first = rows.pop(row)
                room = given.room(first)
                given.fill(row, left[:room], first)
                taken[row] = index
                if len(left) >= room:
                    rows[row] = (index, left[room:], False)
        emission = jax.device_get(batch.step(given))
        for row, index in taken.items():
            found[index].append([x[row, : emission.length[row]] for x in emission[:3]])
    return [joined(parts) for parts in found]


def joined(parts) -> tuple:
    """Labels, frames and the bits of log-probabilities, in order."""
    labels, frames, log_probs = (np.concatenate(x) for x in zip(*parts, strict=True))
    return tuple(labels.tolist()), tuple(frames.tolist()), tuple(log_probs.view(np.uint32).tolist())


def updates_joined(updates) -> tuple:
    whole = merged(updates)
    return whole.tokens, whole.frames, tuple(np.asarray(whole.log_probs, np.float32).view(np.uint32).tolist())


def check_rows(case: Case, rows: int, seed: int) -> None:
    """Random segments, joins and pauses."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(case.recordings))

    def plan():
        active = rng.random(rows) < 0.8
        return int(rng.choice(SEGMENT_CHUNKS)), active | ~active.any()

    found = run(case.batch(rows), [case.recordings[i] for i in order], plan)
    assert found == [case.alone[i] for i in order]


def check_pushes(case: Case, seed: int) -> None:
    """Streams, cut at random."""
    rng = random.Random(seed)
    for samples, alone in zip(case.recordings, case.alone, strict=True):
        stream = case.recognizer.stream(case.lookahead)
        updates = [stream.push(piece) for piece in pieces(rng, samples)] if len(samples) else []
        transcript = stream.finish()
        assert (transcript.tokens, transcript.frames) == alone[:2]
        count = sum(len(update.tokens) for update in updates)
        pushed = updates_joined(updates) if updates else ((), (), ())
        assert pushed == tuple(part[:count] for part in alone)


def check_engine(case: Case, seed: int) -> None:
    """Streams of an engine, which join and pause at random; its batch grows and shrinks."""
    rng = random.Random(seed)

    async def speak(engine, samples):
        await asyncio.sleep(0.05 * rng.random())
        stream, updates = engine.open(), []

        async def collect():
            async for update in stream:
                updates.append(update)

        collecting = asyncio.create_task(collect())
        for piece in pieces(rng, samples) if len(samples) else []:
            await stream.push(piece)
            await asyncio.sleep(rng.choice((0, 0.01 * rng.random())))
        await stream.finish()
        await collecting
        return updates_joined(updates) if updates else ((), (), ())

    async def serve():
        async with Engine(case.recognizer, case.lookahead, slots=(1, 3, 10)) as engine:
            talks = [speak(engine, samples) for samples in case.recordings]
            return await asyncio.wait_for(asyncio.gather(*talks), 120)

    assert asyncio.run(serve()) == case.alone


def check_offline(case: Case, batch_size: int) -> None:
    transcripts = case.recognizer.transcribe(case.recordings, case.lookahead, batch_size)
    assert [(t.tokens, t.frames) for t in transcripts] == [alone[:2] for alone in case.alone]
    least = lambda alone: np.exp(np.asarray(alone[2], np.uint32).view(np.float32).min(initial=0))
    for transcript, alone in zip(transcripts, case.alone, strict=True):
        confidence = min((word.confidence for word in transcript.words), default=1.0)
        assert confidence == pytest.approx(least(alone), abs=1e-4)


@pytest.fixture(scope="module")
def case(checkpoint_directory, speech):
    return cache(lambda dtype, lookahead: Case(checkpoint_directory, dtype, lookahead, np.asarray(speech)))


def test_in_batches_of_any_cut(case):
    check_rows(case("float32", 1), 3, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype, lookahead",
    [("float32", 0), ("float32", 1), ("float32", 6), ("float32", 13), ("bfloat16", 1), ("int8", 0), ("int8", 13)],
)
def test_however_a_step_is_put_together(case, dtype, lookahead):
    one = case(dtype, lookahead)

    @settings(max_examples=4, deadline=None)
    @given(rows=st.sampled_from([1, 3, 8]), seed=st.integers(0, 2**16))
    def any_cut(rows, seed):
        check_rows(one, rows, seed)

    any_cut()
    check_pushes(one, lookahead)
    check_engine(one, lookahead)
    for batch_size in (1, 3, 8):
        check_offline(one, batch_size)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, reset_s", [("float32", None), ("bfloat16", None), ("int8", 0.4)])
def test_the_small_model(dtype, reset_s):
    one = Case(SMALL, dtype, 1, nemojax.open_audio(SMALL / "example.ogg").read(10**7), reset_s)
    check_rows(one, 8, 0)
    check_pushes(one, 0)
    check_engine(one, 0)
    check_offline(one, 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_look_ahead_may_change_within_a_stream(checkpoint_directory, speech, dtype):
    """Chunks of one look-ahead are one step or several, beside other rows or alone."""
    recognizer = nemojax.load(checkpoint_directory, dtype, reproducible=True)
    config, step = recognizer.config, jit_step(OPTIMIZED)
    plan = [(13, 1), (1, 5), (0, 1), (6, 1), (0, 5), (1, 1), (13, 1)]  # look-aheads, and chunks at each

    def transcribed(rows: int, whole: bool, row: int) -> tuple:
        state, found, begin = init_state(recognizer.model, recognizer.constants, rows), [], 0
        for lookahead, chunks in plan:
            for count in [chunks] if whole else [1] * chunks:
                given = StepInput.empty(config, rows, count * config.chunk_samples(lookahead))
                for other in range(rows):
                    samples = np.roll(speech, 5_000 * (other - row))
                    given.fill(other, samples[begin : begin + given.room(begin == 0)], begin == 0)
                begin += given.room(begin == 0)
                arguments = recognizer.model, recognizer.constants, state, given.segment()
                state, emission = step(*arguments, lookahead=lookahead, search=recognizer.search)
                emission = jax.device_get(emission)
                found.append([x[row, : emission.length[row]] for x in emission[:3]])
        return joined(found)

    alone = transcribed(1, False, 0)
    assert len(alone[0]) > 20
    assert transcribed(1, True, 0) == transcribed(3, False, 2) == transcribed(3, True, 1) == alone


def test_the_recognizer_says_whether_it_is(checkpoint_directory):
    assert nemojax.load(checkpoint_directory, reproducible=True).reproducible
    assert not nemojax.load(checkpoint_directory).reproducible
