"""`nemojax transcribe`: forms of results, ends of utterances, confidences, normalization and voice activity."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import soundfile

from nemojax.audio import voice_activity
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.text.formats import DOCUMENTS, LINES, Timed
from nemojax.text.inverse import InverseNormalizer

ENDS = EndOfUtterance(240)


def bare(text):
    """The words of a text, as normalization joins them."""
    return " ".join(text.split())


@pytest.fixture
def upper(monkeypatch):
    """Normalization that needs no package: to upper case."""

    def words(self, words):
        return tuple(dataclasses.replace(word, text=word.text.upper()) for word in words)

    monkeypatch.setattr(InverseNormalizer, "__init__", lambda self: None)
    monkeypatch.setattr(InverseNormalizer, "words", words)


@pytest.mark.parametrize("mode", [[], ["--stream"]])
@pytest.mark.parametrize("form", ["srt", "vtt", "tsv", "ctm", "stm"])
def test_forms_of_one_recording(run, files, recognizer, form, mode):
    path = files / "a.wav"
    code, out, _ = run("transcribe", path, "--lookahead", 1, "--format", form, *mode)
    expected = (DOCUMENTS | LINES)[form](Timed.of(str(path), recognizer.transcribe(path, 1)))
    assert code == 0 and out == expected and len(out) > 50


def test_lines_name_their_recordings_and_channels(run, files, recognizer, tmp_path):
    """Times of ctm count from the beginning of the file; channels from 1."""
    manifest = files / "parts.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "b.flac", "offset": 1.0, "duration": 3.0}) + "\n")
    code, out, _ = run("transcribe", manifest, files / "missing.wav", "--lookahead", 1, "--format", "ctm")
    (part,) = [json.loads(line) for line in run("transcribe", manifest, "--lookahead", 1, "--json")[1].splitlines()]
    words = [line.split(" ") for line in out.splitlines()]
    assert code == 1 and [word[4] for word in words] == [word["word"] for word in part["words"]] and words
    assert float(words[0][2]) == pytest.approx(part["words"][0]["start"] + 1.0) and words[0][:2] == ["b", "1"]
    samples, _ = soundfile.read(files / "a.wav")
    soundfile.write(tmp_path / "two.wav", np.stack([0 * samples, samples], 1), 16_000, subtype="FLOAT")
    _, out, _ = run("transcribe", tmp_path / "two.wav", "--channel", "each", "--lookahead", 1, "--format", "ctm")
    assert {tuple(line.split(" ")[:2]) for line in out.splitlines() if line.split(" ")[1] == "2"} == {("two", "2")}


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_a_line_for_each_utterance(run, files, recognizer, mode):
    path = files / "b.flac"
    code, out, _ = run("transcribe", path, "--lookahead", 1, "--end-of-utterance", 240, *mode)
    utterances = recognizer.transcribe(path, 1, end_of_utterance=ENDS).utterances
    assert code == 0 and out.splitlines() == [utterance.text for utterance in utterances] and len(utterances) > 1


def test_an_object_for_each_utterance_as_it_ends(run, files, recognizer, upper):
    path = files / "b.flac"
    options = ["--lookahead", 1, "--end-of-utterance", 240, "--json"]
    code, out, _ = run("transcribe", path, *options, "--stream", "--itn")
    *events, last = [json.loads(line) for line in out.splitlines()]
    utterances = recognizer.transcribe(path, 1, end_of_utterance=ENDS).utterances
    finals = [event for event in events if event["event"] == "utterance"]
    assert code == 0 and [event["text"] for event in finals] == [
        bare(utterance.text).upper() for utterance in utterances
    ]
    assert [event["decided"] for event in finals] == [utterance.decided_s for utterance in utterances]
    assert all(event["audio"] == str(path) for event in events) and len(last["utterances"]) == len(utterances)
    (offline,) = [json.loads(line) for line in run("transcribe", path, *options, "--itn")[1].splitlines()]
    assert offline | {"mode": "stream"} == last and offline["text"] == offline["text"].upper()


def test_confidences_and_voice_activity(run, files, recognizer, monkeypatch, tmp_path):
    detectors = []

    def loud():
        detectors.append(lambda window: float(np.abs(window).max() > 0.01))
        return detectors[-1]

    monkeypatch.setattr(voice_activity.VoiceActivity.__init__, "__defaults__", (0.5, 1.0, loud))
    samples = np.concatenate([soundfile.read(files / "a.wav")[0], np.zeros(160_000)])
    soundfile.write(tmp_path / "long.wav", samples, 16_000, subtype="FLOAT")
    options = ["--lookahead", 1, "--confidence", "gibbs,lin,1", "--json", "--vad"]
    code, out, err = run("transcribe", tmp_path / "long.wav", *options)
    found, expected = json.loads(out), recognizer.transcribe(files / "a.wav", 1, confidence="gibbs,lin,1")
    assert code == 0 and found["duration"] == 12.5 and len(detectors) == 2 and "s of silence" in err
    count = sum(frame < 31 for frame in expected.frames)
    assert found["confidences"][:count] == pytest.approx(expected.confidences[:count], abs=1e-5)


@pytest.mark.parametrize(
    ("form", "name"), [("ctm", "transcripts.ctm"), ("txt", "transcripts.txt"), ("srt", "srt/000002-a.srt")]
)
def test_forms_of_a_job(run, files, recognizer, tmp_path, form, name, upper):
    manifest = files / "job.jsonl"
    parts = [{"audio_filepath": "b.flac", "offset": offset, "duration": 2.0} for offset in (2.0, 0.5)]
    entries = [parts[0], {"audio_filepath": "a.wav"}, parts[1], {"audio_filepath": "gone.wav"}]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    job = ["transcribe", manifest, "--output", tmp_path / "out", "--lookahead", 1, "--format", form, "--itn"]
    job += ["--end-of-utterance", 240]
    code, out, _ = run(*job)
    written = tmp_path / "out" / name
    where = written if form != "srt" else written.parent
    assert code == 1 and out.endswith(f"; results are in {tmp_path}/out/transcripts.jsonl and {where}\n")
    expected = recognizer.transcribe(files / "a.wav", 1)
    if form == "srt":
        assert written.read_text().upper() == DOCUMENTS["srt"](Timed.of("a", expected)).upper()
        assert sorted(path.name for path in where.iterdir()) == ["000001-b.srt", "000002-a.srt", "000003-b.srt"]
    elif form == "ctm":
        lines = [line.split(" ") for line in written.read_text().splitlines()]
        assert [line[0] for line in lines] == sorted(line[0] for line in lines) and {"a", "b"} == {x[0] for x in lines}
        times = [float(line[2]) for line in lines if line[0] == "b"]
        assert times == sorted(times) and times[0] >= 0.5 and times[-1] > 2.0
        assert [line[4] for line in lines if line[0] == "a"] == expected.text.upper().split()
    else:
        assert written.read_text().splitlines()[1] == f"a.wav: {bare(expected.text).upper()}"
    code, _, err = run(*[argument for argument in job if argument != "--itn"])
    assert code == 2 and "holds a job with other settings (itn was True, now None)" in err


def test_a_missing_package_is_named(run, files, monkeypatch):
    monkeypatch.setitem(sys.modules, "wetext", None)
    code, _, err = run("transcribe", files / "a.wav", "--itn")
    message = 'inverse text normalization needs wetext, which is not installed: pip install "nemojax[itn]"'
    assert code == 2 and err == f"error: {message}\n"
