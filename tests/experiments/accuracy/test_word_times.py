from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.accuracy import word_times
from experiments.accuracy.scoring import EvaluationSet
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording
from nemojax.errors import ConfigError
from nemojax.text.transcript import Word
from tests.data.corpora import write_manifest

RATE_HZ = 16_000


def burst(begin_s: float, end_s: float, duration_s: float) -> np.ndarray:
    """Faint noise with a loud sound in it."""
    samples = np.random.default_rng(0).normal(0, 1e-3, int(duration_s * RATE_HZ)).astype(np.float32)
    samples[int(begin_s * RATE_HZ) : int(end_s * RATE_HZ)] *= 100
    return samples


def test_bounds_of_a_sound():
    assert word_times.sound_bounds(burst(0.2, 0.5, 1.0), 20.0) == pytest.approx((0.2, 0.5))
    assert word_times.sound_bounds(burst(0.2, 0.5, 1.0), 60.0) == pytest.approx((0.0, 1.0))


def test_words_of_the_manifest_have_its_times(tmp_path):
    soundfile.write(tmp_path / "a.wav", burst(0.2, 0.5, 2.0), RATE_HZ)
    words = [["Two,", 0.2, 0.5], ["short", 0.5, 0.9], ["words.", 1.0, 1.5]]
    entry = {"audio_filepath": "a.wav", "text": "Two, short words.", "words": words}
    path = write_manifest(tmp_path / "a.jsonl", [entry])
    said = [Word("two", 1.5, 1.6, 1.0), Word("wrong", 1.7, 1.8, 1.0), Word("words", 2.3, 2.6, 1.0)]
    recognizer = SimpleNamespace(transcribe=lambda *arguments: [SimpleNamespace(words=said)])
    evaluation_set = EvaluationSet(path, "a", expand_manifest(path), None)
    found, spoken = word_times.delays(recognizer, evaluation_set, 1, word_times.Settings(tmp_path, ()), None)
    assert spoken == 3 and found == [pytest.approx((0.3, 0.1, 0.0)), pytest.approx((0.3, 0.1, -0.2))]
    write_manifest(path, [{"audio_filepath": "a.wav", "text": "two", "words": [["two", 1.0]]}])
    with pytest.raises(ConfigError, match=r"a\.jsonl: line 1: `words` must be a list of"):
        word_times.aligned(path)


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
    found, spoken = word_times.delays(SimpleNamespace(transcribe=transcribe), evaluation_set, 1, settings, rows)
    assert spoken == 2
    assert found == [pytest.approx((0.25, 0.1, -0.05), abs=1e-6)]  # the second word is not the reference
    assert [len(samples) for samples in given] == [3 * RATE_HZ] * 2 and not given[0][:RATE_HZ].any()
    wanted = "its text must be one word, or its line have `words`, not"
    assert problems == [f"{n}: {wanted} {t!r}" for n, t in (("many", "two words"), ("missing", None))]
