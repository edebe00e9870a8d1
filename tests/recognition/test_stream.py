"""What a live stream keeps where a step fails."""

import numpy as np
import pytest

from nemojax.errors import StreamError
from nemojax.recognition.end_of_utterance import EndOfUtterance
from tests.helpers.sounds import wave


@pytest.fixture
def stream(recognizer):
    return recognizer.stream(1)


def let_steps_fail(monkeypatch, stream, *numbers: int) -> list[int]:
    """Makes the steps of these numbers fail, counted from 1 and from now on; returns what has an item for each step."""
    step, calls = stream._batch.step, []

    def failing_step(given):
        calls.append(1)
        if len(calls) in numbers:
            raise MemoryError("no room")
        return step(given)

    monkeypatch.setattr(stream._batch, "step", failing_step)
    return calls


def test_chunks_wait_where_a_step_fails(recognizer, stream, monkeypatch):
    """The rest of the push, and what is pushed later, is transcribed once steps succeed again."""
    samples = wave(7 * stream.chunk_samples + 100, 1)[:, 0]
    expected = recognizer.transcribe(samples, 1)
    let_steps_fail(monkeypatch, stream, 2, 3)
    cut = 5 * stream.chunk_samples
    with pytest.raises(MemoryError):
        stream.push(samples[:cut])
    with pytest.raises(MemoryError):
        stream.push(samples[cut:])
    update = stream.push(samples[:0])  # also what the first push added before its step failed
    assert len(update.tokens) > 0 and update.tokens == tuple(stream._hypothesis.tokens)
    assert update.transcribed_s == pytest.approx(7 * 0.16 - 1080 / 16_000)
    transcript = stream.finish()
    assert (transcript.tokens, transcript.frames) == (expected.tokens, expected.frames)
    assert transcript.duration_s == expected.duration_s


def test_a_stream_that_forgets_returns_what_was_found_before_a_step_failed(recognizer, speech, monkeypatch):
    whole, stream = recognizer.stream(1), recognizer.stream(1, keep_transcript=False)
    let_steps_fail(monkeypatch, stream, 9)
    whole.push(speech[:30_000])
    with pytest.raises(MemoryError):
        stream.push(speech[:30_000])
    expected, transcript = whole.finish(), stream.finish()
    assert (transcript.text, transcript.tokens) == (expected.text, expected.tokens) and expected.tokens
    assert transcript.words == expected.words


def test_an_end_that_fails_is_tried_again(recognizer, stream, speech, monkeypatch):
    samples = speech[:20_000]
    expected = recognizer.transcribe(samples, 1)
    stream.push(samples)
    calls = let_steps_fail(monkeypatch, stream, 1)
    with pytest.raises(MemoryError):
        stream.finish()
    with pytest.raises(ValueError, match="this stream is finished"):
        stream.push(samples)
    transcript = stream.finish()
    assert (transcript.tokens, transcript.duration_s) == (expected.tokens, 1.25) and len(calls) == 2


def test_a_lost_state_is_an_error_that_says_what_was_transcribed(stream, monkeypatch):
    stream.push(np.zeros(stream.chunk_samples, np.float32))
    begun_s = (stream.chunk_samples - stream._batch.config.history_samples) / 16_000
    monkeypatch.setattr(type(stream._batch), "is_lost", True)
    for ending in (lambda: stream.push(np.zeros(2 * stream.chunk_samples, np.float32)), stream.finish, stream.finish):
        with pytest.raises(StreamError, match=rf"its state is lost: {begun_s:.2f} s are transcribed"):
            ending()


@pytest.mark.parametrize("samples", [20_000, 20_200, 40_000])
def test_a_stream_that_forgets_returns_what_no_update_had(recognizer, speech, samples):
    whole, stream = recognizer.stream(1), recognizer.stream(1, keep_transcript=False)
    whole.push(speech[:samples])
    update = stream.push(speech[:samples])
    assert update.text and stream.text == ""
    expected, rest = whole.finish(), stream.finish()
    assert update.text + rest.text == expected.text and update.tokens + rest.tokens == expected.tokens
    assert rest.notes == ("the text of earlier updates was not kept",) and stream.text == rest.text


def test_ends_of_utterances_are_those_of_the_whole_recording(recognizer, speech):
    """Whatever is pushed at a time, while streaming or not; and the labels are the same without them."""
    ends = EndOfUtterance(240, max_utterance_s=1.0)
    whole = recognizer.transcribe(speech, 1, end_of_utterance=ends)
    plain = recognizer.transcribe(speech, 1)
    assert len(whole.utterances) > 2 and {"silence", "length"} <= {u.reason for u in whole.utterances}
    assert (whole.tokens, whole.frames, whole.text) == (plain.tokens, plain.frames, plain.text)
    for size in (700, 2560, 40_000):
        stream = recognizer.stream(1, end_of_utterance=ends)
        updates = [stream.push(speech[begin : begin + size]) for begin in range(0, len(speech), size)]
        found = [utterance for update in updates for utterance in update.final]
        transcript = stream.finish()
        assert transcript.utterances == whole.utterances and list(whole.utterances[: len(found)]) == found
