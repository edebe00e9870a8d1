from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.accuracy import utterance_ends
from experiments.accuracy.utterance_ends import Decided, Settings, Spoken, decided, joined, summary
from nemojax.errors import AudioError, ConfigError
from nemojax.text.transcript import Utterance
from tests.experiments.accuracy.test_word_times import RATE_HZ, burst

SPOKEN = [Spoken(1.0, 2.0), Spoken(4.0, 5.0), Spoken(6.0, 7.0), Spoken(9.0, 9.5)]


def utterance(begin_s, decided_s):
    return Utterance(0, "", (), begin_s, begin_s, decided_s, "silence")


def test_a_stream_knows_when_its_utterances_were_spoken():
    settings = Settings(Path("model"), (), shortest_pause_s=0.5, longest_pause_s=0.5)
    samples, spoken = joined([burst(0.2, 0.5, 1.0), burst(0.1, 0.6, 1.0)], settings)
    assert sorted(round(end - begin, 2) for begin, end in spoken) == [0.3, 0.5]
    assert len(samples) == pytest.approx((2 * 0.5 + 0.3 + 0.5 + 0.5) * RATE_HZ, abs=4)
    for begin_s, end_s in spoken:
        assert np.abs(samples[round(begin_s * RATE_HZ) : round(end_s * RATE_HZ)]).max() > 0.1
    assert spoken[0].begin_s == 0.5 and spoken[1].begin_s == pytest.approx(spoken[0].end_s + 0.5)


def test_ends_are_early_late_or_in_time():
    """The first is cut in two; the second is decided after the third has begun; of the last nothing was emitted."""
    ends = [utterance(1.1, 1.5), utterance(1.7, 2.4), utterance(4.2, 6.5), utterance(6.2, 7.8)]
    found = decided(SPOKEN, ends, [1.1, 1.7, 4.2, 4.8, 6.2, 6.9, 12.0], 0.25)
    assert found == Decided(3, 1, 1, [pytest.approx(0.5), pytest.approx(1.0)])  # at the ends of chunks of 0.25 s
    row = summary(found)
    assert (row["utterances"], row["early"], row["missed"]) == (3, 0.3333, 0.3333) and row["delay_s"][0] == 0.75
    assert summary(Decided(0, 0, 0, []))["delay_s"] is None


def test_thresholds_are_tried_on_labels_that_were_transcribed_once(recognizer, speech):
    transcript = recognizer.transcribe(speech, 1)
    few, many = (utterance_ends.with_ends(recognizer, transcript, ms) for ms in (8000, 160))
    assert len(few) == 1 < len(many) and few[0].text == transcript.text.strip()


def test_table_and_plot(tmp_path):
    row = {"label": "a", "lookahead": 1, "chunk_ms": 160.0, "silence_ms": 80.0, **summary(Decided(2, 1, 0, [0.3, 0.5]))}
    silent = row | summary(Decided(1, 0, 1, [])) | {"silence_ms": 160.0}
    lines = utterance_ends.table([row, silent]).splitlines()[2:]
    assert lines[0] == "| a | 160 ms | 80 ms | 2 | 0.40 s | 0.48 s | 0.49 s | 50.0 % | 0.0 % |"
    assert lines[1] == "| a | 160 ms | 160 ms | 1 |  |  |  | 0.0 % | 100.0 % |"
    utterance_ends.plot([row, silent], tmp_path / "plot.svg")
    assert "silence asked for" in (tmp_path / "plot.svg").read_text()


def test_settings_that_do_not_fit(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    settings = Settings(tmp_path, (tmp_path / "a.jsonl",), shortest_pause_s=2.0, longest_pause_s=1.0)
    with pytest.raises(ConfigError, match="--shortest-pause-s must be at least 0"):
        settings.check()


def test_recordings_that_can_not_be_read_are_reported(tmp_path):
    problems = []
    rows = SimpleNamespace(report=problems.append)
    with pytest.raises(ConfigError, match="it has no recording that can be read"):
        utterance_ends._recordings(SimpleNamespace(entries=[AudioError("a.wav: gone")], path=tmp_path), rows)
    assert [str(problem) for problem in problems] == ["a.wav: gone"]
