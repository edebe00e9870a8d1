"""Single sentences of the synthesizers, where they are installed, and their level."""

import numpy as np
import pytest

from experiments.synthesis import programs
from experiments.synthesis.voices import Delivery
from tests.experiments.synthesis.installed import installed_voices
from tests.helpers.sounds import wave


def test_level():
    samples = np.concatenate([np.zeros(8000), 0.01 * wave(8000), np.zeros(100)]).astype(np.float32)
    levels = [programs.leveled(gain * samples) for gain in (1, 20)]
    np.testing.assert_allclose(*levels, rtol=1e-4)
    assert np.sqrt(np.square(levels[0][8000:16_000]).mean()) == pytest.approx(programs.LEVEL, rel=0.02)
    click = samples.copy()
    click[9000] = 1.0
    assert np.abs(programs.leveled(click)).max() == pytest.approx(programs.PEAK)
    with pytest.raises(programs.SynthesisError, match="no sound"):
        programs.leveled(np.zeros(16_000, np.float32))


@pytest.mark.slow
def test_voices_take_speed_and_pitch():
    text = "The small green house is near the river."
    for voice in installed_voices():
        if voice.program == "espeak-ng" and voice.name != "en-us+m1":
            continue
        plain, fast = (programs.speak(text, voice, Delivery(speed, 1, 1)) for speed in (1, 1.25))
        assert 0.7 < len(fast) / len(plain) < 0.9, voice.speaker
        if voice.pitches != (1, 1):
            high = programs.speak(text, voice, Delivery(1, 1.25, 1))
            assert pitch_hz(high) / pitch_hz(plain) == pytest.approx(1.25, abs=0.08), voice.speaker
            assert len(high) == pytest.approx(len(plain), rel=0.1), voice.speaker
        if voice.sizes != (1, 1):
            small = programs.speak(text, voice, Delivery(1, 1, 1.12))
            assert pitch_hz(small) / pitch_hz(plain) == pytest.approx(1.12, abs=0.08), voice.speaker
            assert len(small) == pytest.approx(len(plain), rel=0.1), voice.speaker


def test_no_two_voices_sound_the_same():
    text = "The small green house is near the river."
    spoken = {voice.speaker: programs.speak(text, voice, Delivery(1, 1, 1)) for voice in installed_voices()}
    assert len({samples.tobytes() for samples in spoken.values()}) == len(spoken)


def pitch_hz(samples):
    """The median fundamental frequency of the loud frames, by autocorrelation."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::256]
    frames = frames[np.square(frames).mean(1) > np.square(samples).mean()]
    power = np.square(np.abs(np.fft.rfft(frames, 2048)))
    lags = np.fft.irfft(power)[:, 40:280]
    return float(16_000 / (40 + np.median(lags.argmax(1))))
