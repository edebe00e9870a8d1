"""No phrase comes out of silence or noise, however many are expected."""

import numpy as np
import pytest

from nemojax import bundled
from nemojax.data.waveform import colored_noise
from nemojax.decoding.beam import Beam
from nemojax.recognition.recognizer import load
from nemojax.text.phrases import MOST_BOOST

MINUTES, RATE_HZ, PHRASES = 10, 16_000, 1_000
SYLLABLES = ("ba", "den", "fi", "go", "hum", "jo", "ka", "lin", "mor", "ne", "pol", "ras", "su", "ter", "vi", "wen")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (bundled.SMALL / "config.json").exists(), reason=f"there is no model at {bundled.SMALL}"),
]


@pytest.mark.parametrize("kind", ["silence", "noise", "pink noise", "hum"])
def test_no_phrase_comes_out_of(kind):
    rng = np.random.default_rng(0)
    phrases = {"".join(rng.choice(SYLLABLES, rng.integers(2, 5))) for _ in range(2 * PHRASES)}
    phrases = sorted(phrases)[:PHRASES] + ["the", "yes", "blue"]
    count = MINUTES * 60 * RATE_HZ
    samples = np.zeros(count, np.float32)
    if kind == "noise":
        samples = (0.02 * rng.standard_normal(count)).astype(np.float32)
    elif kind == "pink noise":
        samples = (0.02 * (lambda x: x / x.std())(colored_noise(count, 1.0, rng))).astype(np.float32)
    elif kind == "hum":
        samples = (0.05 * np.sin(2 * np.pi * 50 * np.arange(count) / RATE_HZ)).astype(np.float32)
    recognizer = load()
    expected = [(phrase, MOST_BOOST) for phrase in phrases]
    plain = recognizer.transcribe(samples, 6)
    transcript = recognizer.transcribe(samples, 6, phrases=expected)
    assert not set(transcript.text.lower().split()) & set(phrases)
    assert transcript.frames == plain.frames  # phrases replace labels, and add none
    if kind != "silence":
        beam = recognizer.with_search(Beam(4)).transcribe(samples, 6, phrases=expected)
        assert not set(beam.text.lower().split()) & set(phrases)
