from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.accuracy import word_times
from experiments.accuracy.scoring import EvaluationSet
from nemojax.audio.source import Recording
from nemojax.text.transcript import Word

RATE_HZ = 16_000


def burst(begin_s: float, end_s: float, duration_s: float) -> np.ndarray:
    """Faint noise with a loud sound in it."""
    samples = np.random.default_rng(0).normal(0, 1e-3, int(duration_s * RATE_HZ)).astype(np.float32)
    samples[int(begin_s * RATE_HZ) : int(end_s * RATE_HZ)] *= 100
    return samples


def test_bounds_of_a_sound():
    assert word_times.sound_bounds(burst(0.2, 0.5, 1.0), 20.0) == pytest.approx((0.2, 0.5))
    assert word_times.sound_bounds(burst(0.2, 0.5, 1.0), 60.0) == pytest.approx((0.0, 1.0))


def test_delays_count_from_the_sound(tmp_path):
    entries = []
    for name, text in ("one", "One."), ("two", "two"), ("many", "two words"), ("missing", None):
        soundfile.write(tmp_path / f"{name}.wav", burst(0.2, 0.5, 1.0), RATE_HZ)
        entries.append(Recording(tmp_path / f"{name}.wav", name, text=text))
    given = []

    def transcribe(audio, lookahead, batch_size):
        given.extend(audio)
        words = [Word("one", 1.45, 1.6, 1.0)], [Word("too", 1.4, 1.5, 1.0)]
        return [SimpleNamespace(words=w) for w in words]

    problems = []
    rows = SimpleNamespace(report=lambda error: problems.append(str(error)))
    settings = word_times.Settings(tmp_path, ())
    evaluation_set = EvaluationSet(tmp_path, "set", entries, None)
    found = word_times.delays(SimpleNamespace(transcribe=transcribe), evaluation_set, 1, settings, rows)
    assert found == [pytest.approx((0.25, 0.1), abs=1e-6)]  # the second word is not the reference
    assert [len(samples) for samples in given] == [3 * RATE_HZ] * 2 and not given[0][:RATE_HZ].any()
    assert problems == [
        f"{n}: its text must be one word, not {t!r}" for n, t in (("many", "two words"), ("missing", None))
    ]
