import math
from types import SimpleNamespace

from experiments.training import dev_scores
from nemojax.errors import AudioError
from nemojax.metrics import word_errors


def test_a_manifest_of_which_nothing_is_scored_has_a_row_all_the_same(recognizer, monkeypatch):
    monkeypatch.setattr(dev_scores, "evaluate", lambda *given, **options: [])
    rows = list(dev_scores.dev_rows(recognizer, {"dev": [AudioError("no such file")] * 2}, 4, print))
    assert [row["lookahead"] for row in rows] == list(recognizer.config.encoder.lookaheads)
    assert all(row["failed"] == 2 and math.isnan(row["wer"]) and "hypothesis" not in row for row in rows)


def test_each_evaluation_shows_another_recording_at_the_first_lookahead(recognizer, monkeypatch):
    def scored(text):
        errors = word_errors(text, text)
        return SimpleNamespace(words=errors, characters=errors, reference=text, hypothesis=text.upper())

    monkeypatch.setattr(dev_scores, "evaluate", lambda *given, **options: [scored("one"), scored("two")])
    for evaluation, shown in ((0, "ONE"), (1, "TWO"), (2, "ONE")):
        rows = list(dev_scores.dev_rows(recognizer, {"dev": [None, None]}, 4, print, evaluation))
        assert rows[0]["hypothesis"] == shown and not any("hypothesis" in row for row in rows[1:])
