"""The voices and their deliveries."""

import random
from collections import Counter

import pytest

from experiments.synthesis.voices import PROGRAMS, VOICES, draw_delivery


def test_voices():
    voices = [voice for voice in VOICES if voice.program in PROGRAMS]
    seen, left_out = [v for v in voices if not v.left_out], [v for v in voices if v.left_out]
    assert len(VOICES) == len({voice.speaker for voice in VOICES}) > 60
    share = Counter()
    for voice in seen:
        share[voice.program] += voice.share
    assert share.total() == pytest.approx(1) and share["espeak-ng"] == pytest.approx(0.5)
    assert {voice.program for voice in left_out} == {"espeak-ng", "flite"}
    names = {part for voice in seen for part in voice.name.split("+")[1:]}
    assert not names & {part for voice in left_out for part in voice.name.split("+")[1:]}
    rng = random.Random(0)
    for voice in VOICES:
        delivery = draw_delivery(voice, rng)
        for value, (low, high) in zip(delivery, (voice.speeds, voice.pitches, voice.sizes), strict=True):
            assert low - 1e-3 <= value <= high + 1e-3 and 0.5 < low <= 1 <= high < 1.5
