from types import SimpleNamespace

import numpy as np
import pytest

from experiments.accuracy import confidence
from experiments.accuracy.confidence import Judged, calibration_error, judged, reliability, roc_area
from experiments.accuracy.scoring import EvaluationSet
from nemojax.audio.source import Recording
from nemojax.text.transcript import Word


def found(*pairs):
    values, right = zip(*pairs, strict=True)
    return Judged(np.array(values), np.array(right, bool))


def test_words_are_right_where_the_reference_has_them():
    words = [Word(text, 0.0, 0.1, value) for text, value in (("The", 0.9), ("red", 0.2), ("fox,", 0.8), ("ran", 0.3))]
    assert judged("the quick fox", words) == [(0.9, True), (0.2, False), (0.8, True), (0.3, False)]


def test_area_under_the_roc_curve():
    assert roc_area(found((0.9, 1), (0.8, 1), (0.1, 0))) == 1.0
    assert roc_area(found((0.1, 1), (0.9, 0))) == 0.0
    assert roc_area(found((0.5, 1), (0.5, 0))) == 0.5
    assert roc_area(found((0.9, 1), (0.4, 1), (0.5, 0), (0.4, 0))) == pytest.approx(2.5 / 4)
    assert roc_area(found((0.9, 1))) is None


def test_calibration():
    bins = reliability(found((0.95, 1), (1.0, 1), (0.91, 0), (0.12, 0)))
    assert bins[9] == (3, 0.9533, 0.6667) and bins[1] == (1, 0.12, 0.0) and bins[0] == (0, 0.0, 0.0)
    assert calibration_error(bins) == pytest.approx((3 * (0.9533 - 0.6667) + 0.12) / 4)


def test_a_row_for_each_measure(tmp_path, monkeypatch):
    entries = [Recording(tmp_path / "a.wav", "a", text="one two")]
    words = [Word("one", 0.0, 0.1, 0.9), Word("too", 0.2, 0.3, 0.4)]
    recognizer = SimpleNamespace(
        lookahead=lambda lookahead: 13,
        config=SimpleNamespace(chunk_ms=lambda lookahead: 1120.0),
        with_confidence=lambda name: recognizer,
        transcribe_each=lambda *_, **__: [(0, SimpleNamespace(words=words))],
    )
    monkeypatch.setattr("nemojax.recognition.recognizer.load", lambda model: recognizer)
    monkeypatch.setattr(confidence, "read_sets", lambda *_, **__: [EvaluationSet(tmp_path, "a", entries, None)])
    rows = SimpleNamespace(rows=[], report=lambda error: None)
    rows.add = rows.rows.append
    confidence.measure(confidence.Settings(tmp_path, (), measures=("tsallis", "gibbs")), rows)
    assert [(row["measure"], row["words"], row["wrong"], row["roc_area"]) for row in rows.rows] == [
        ("tsallis", 2, 1, 1.0),
        ("gibbs", 2, 1, 1.0),
    ]
    assert confidence.table(rows.rows).splitlines()[2] == "| a | tsallis | 1 of 2 | 1.000 | 0.250 |"
    confidence.plot(rows.rows, tmp_path / "plot.svg")
    assert "share of right words" in (tmp_path / "plot.svg").read_text()
