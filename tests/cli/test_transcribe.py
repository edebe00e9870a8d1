"""`nemojax transcribe`, run in this process: what it prints, where, and how it exits."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemojax.cli import printer
from nemojax.cli.transcribe import in_order
from nemojax.decoding.beam import Beam
from nemojax.errors import AudioError


def test_text(run, files, recognizer):
    code, out, err = run("transcribe", files / "a.wav", "--lookahead", 1)
    assert code == 0 and out == recognizer.transcribe(files / "a.wav", 1).text + "\n" and out.strip() and not err


@pytest.mark.parametrize("lookahead", [1, *(pytest.param(r, marks=pytest.mark.slow) for r in (0, 6, 13))])
def test_json_in_both_modes(run, files, recognizer, lookahead):
    paths = [files / "b.flac", files / "a.wav"]
    expected = [recognizer.transcribe(path, lookahead) for path in paths]
    for mode, flags in (("offline", []), ("stream", ["--stream"])):
        code, out, _ = run("transcribe", *paths, "--json", "--lookahead", lookahead, *flags)
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 0 and [line["audio"] for line in lines] == [str(path) for path in paths]  # in the order given
        for line, want in zip(lines, expected, strict=True):
            assert tuple(line["tokens"]) == want.tokens and tuple(line["frames"]) == want.frames
            assert line["text"] == want.text and line["mode"] == mode and line["lookahead"] == lookahead
            assert [w["word"] for w in line["words"]] == want.text.split()


def test_stream_prints_the_same_text(run, files, recognizer):
    code, out, _ = run("transcribe", "--stream", files / "a.wav", files / "silence.wav", "--lookahead", 1)
    text = [recognizer.transcribe(files / name, 1).text for name in ("a.wav", "silence.wav")]
    assert code == 0 and out == f"{files}/a.wav: {text[0]}\n{files}/silence.wav: {text[1]}\n"


def test_live_is_paced_in_real_time(run, files, recognizer, monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr(printer.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        printer.time, "sleep", lambda seconds: slept.append(seconds) or now.__setitem__(0, now[0] + seconds)
    )
    code, out, _ = run("transcribe", "--live", files / "a.wav", "--lookahead", 1)
    assert code == 0 and out == recognizer.transcribe(files / "a.wav", 1).text + "\n"
    assert sum(slept) == pytest.approx(2.5) and max(slept) < 0.161  # as long as the recording; a chunk at most


def test_changes_made_to_the_audio_are_printed(run, files):
    code, _, err = run("transcribe", files / "c.wav", "--lookahead", 1)
    assert code == 0 and f"{files}/c.wav: resampled from 22050 Hz, mixed down from 2 channels" in err


@pytest.mark.parametrize("mode", [[], ["--stream"]])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_bad_files_are_named_and_the_others_transcribed(run, files, tmp_path, mode, form):
    (tmp_path / "text.wav").write_text("not audio at all")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.wav").write_bytes((files / "a.wav").read_bytes()[:30_000])
    nan = np.zeros(30_000, np.float32)
    nan[20_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", nan, 16_000, subtype="FLOAT")
    bad = ["text.wav", "empty.wav", "nan.wav", "missing.wav"]
    code, out, err = run(
        "transcribe", *(tmp_path / name for name in [*bad, "cut.wav"]), files / "a.wav", "--lookahead", 1, *mode, *form
    )
    assert code == 1 and "Traceback" not in err
    for name in bad:
        assert any(line.startswith("error:") and name in line for line in err.splitlines()), (name, err)
    assert re.search(r"cut.wav: its header announces \d+ bytes of samples, and it ends after 29\d+\n", err)
    assert "a.wav" in out.splitlines()[-1]
    if form:
        assert len([json.loads(line) for line in out.splitlines()]) == 2


def test_manifests_are_expanded(run, files, tmp_path, recognizer):
    manifest = files / "set.jsonl"
    entries = [
        {"audio_filepath": "a.wav", "text": "x"},
        {"audio_filepath": "nowhere.wav"},
        {"audio_filepath": "b.flac", "offset": 1.0, "duration": 2.0},
    ]
    manifest.write_text("\n".join(map(json.dumps, entries)) + "\nnot json\n")
    code, out, err = run("transcribe", manifest, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and [line["line"] for line in lines] == [1, 2, 3, 4]
    names = ["a.wav", "nowhere.wav", "b.flac", f"{manifest}: line 4"]
    assert [line["audio"] for line in lines] == names and {line["manifest"] for line in lines} == {str(manifest)}
    assert lines[0]["text"] == lines[0]["reference"] == "x"
    assert lines[0]["pred_text"].split() == [word["word"] for word in lines[0]["words"]] != ["x"]
    assert lines[2]["duration"] == pytest.approx(2.0) and "nowhere.wav" in err and "line 4" in err
    assert "no such file" in lines[1]["error"] and "it is not JSON" in lines[3]["error"]


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_names_that_can_not_be_printed(run, files, tmp_path, recognizer, mode):
    """One is not UTF-8, one has two lines. Each result is one line, and JSON gives the name back."""
    names = [
        os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/M\xe4dchen.wav", b"/two\nlines.wav", b"/gone\n\xff")
    ]
    for name in names[:2]:
        Path(name).write_bytes((files / "a.wav").read_bytes())
    text = recognizer.transcribe(files / "a.wav", 1).text
    code, out, err = run("transcribe", *names, "--lookahead", 1, *mode)
    assert code == 1 and out == "".join(
        rf"{tmp_path}/{name}.wav: {text}" + "\n" for name in (r"M\udce4dchen", r"two\nlines")
    )
    assert err == rf"error: {tmp_path}/gone\n\udcff: there is no such file" + "\n"
    code, out, _ = run("transcribe", *names, "--lookahead", 1, "--json", *mode)
    assert code == 1 and [json.loads(line)["audio"] for line in out.splitlines()] == names[:2]


def test_the_prediction_network_may_begin_anew_after_a_pause(run, files, recognizer):
    arguments = ("transcribe", files / "b.flac", "--lookahead", 1, "--stream")
    want = recognizer.transcribe(files / "b.flac", 1, reset_prediction_after_s=0.08).text
    assert run(*arguments, "--reset-prediction-after-s", 0.08)[:2] == (0, want + "\n") != run(*arguments)[:2]


@pytest.mark.parametrize("mode", [[], ["--stream"], ["--output"]])
def test_a_beam_lists_its_best_hypotheses(run, files, recognizer, tmp_path, mode):
    """Also in the files of a job."""
    want = recognizer.with_search(Beam(3, n_best=2)).transcribe(files / "b.flac", 1)
    named = files / "b.flac"
    if mode == ["--output"]:
        named = files / "one.jsonl"
        named.write_text('{"audio_filepath": "b.flac"}\n')
        mode = ["--output", tmp_path / "out"]
    else:
        mode = [*mode, "--json"]
    code, out, _ = run("transcribe", named, "--lookahead", 1, "--beam", 3, "--n-best", 2, *mode)
    if "--output" in mode:
        out = (tmp_path / "out" / "transcripts.jsonl").read_text()
    found = json.loads(out)
    assert code == 0 and found["tokens"] == list(want.tokens)
    assert [one["tokens"] for one in found["n_best"]] == [list(one.tokens) for one in want.n_best]
    assert [one["score"] for one in found["n_best"]] == pytest.approx([one.score for one in want.n_best], abs=0.02)


def pipe(monkeypatch, data: bytes):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_standard_input(run, files, recognizer, monkeypatch, speech, mode):
    pcm = (np.asarray(speech)[:40_000] * 32_767).astype("<i2")
    expected = recognizer.transcribe(pcm, 1).text + "\n"
    pipe(monkeypatch, pcm.tobytes())
    assert run("transcribe", "-", "--lookahead", 1, *mode)[:2] == (0, expected)
    pipe(monkeypatch, (files / "a.wav").read_bytes())
    assert run("transcribe", "-", "--lookahead", 1, *mode)[1] == recognizer.transcribe(files / "a.wav", 1).text + "\n"


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_declared_samples(run, recognizer, monkeypatch, speech, tmp_path, mode):
    pcm = (np.asarray(speech)[:40_000] * 32_767).astype(">i2")
    expected = recognizer.transcribe(pcm, 1, sample_rate_hz=8000)
    (tmp_path / "a.raw").write_bytes(pcm.tobytes() + b"\0")
    pipe(monkeypatch, pcm.tobytes() + b"\0")
    options = ("--raw", "s16be,8000", "--lookahead", 1, *mode)
    for file, name in (("-", "-"), (tmp_path / "a.raw", tmp_path / "a.raw")):
        code, out, err = run("transcribe", file, *options)
        assert (code, out) == (0, expected.text + "\n")
        notes = [f"{name}: resampled from 8000 Hz", "1 byte not used (a part of a sample of 2 bytes)"]
        assert err.splitlines() == ([", ".join(notes)] if not mode else [notes[0], f"{name}: {notes[1]}"])
    code, out, err = run("transcribe", tmp_path / "a.raw", "--json", *options)
    assert json.loads(out)["notes"] == ["resampled from 8000 Hz", "1 byte not used (a part of a sample of 2 bytes)"]


@pytest.mark.parametrize("mode", [[], ["--stream"]])
def test_channels(run, files, recognizer, speech, mode):
    left, right = np.asarray(speech)[:20_000], np.asarray(speech)[40_000:60_000]
    soundfile.write(files / "two.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    text = [recognizer.transcribe(samples, 1).text for samples in (left, right)]
    assert text[0] != text[1]
    name = str(files / "two.wav")
    assert run("transcribe", name, "--channel", 1, "--lookahead", 1, *mode) == (
        *(0, text[1] + "\n"),
        f"{name}: channel 1 of 2\n",
    )
    code, out, _ = run("transcribe", name, "--channel", "each", "--lookahead", 1, *mode)
    assert (code, out) == (0, f"{name} channel 0: {text[0]}\n{name} channel 1: {text[1]}\n")
    raw = files / "two.raw"
    raw.write_bytes(np.stack([left, right], 1).astype("<f4").tobytes())
    code, out, _ = run("transcribe", raw, "--raw", "f32le,16000,2", "--channel", "each", "--lookahead", 1, *mode)
    assert (code, out) == (0, f"{raw} channel 0: {text[0]}\n{raw} channel 1: {text[1]}\n")
    (files / "two.jsonl").write_text('{"audio_filepath": "two.wav", "channel_selector": 1}\n' * 2)
    code, out, _ = run("transcribe", files / "two.jsonl", "--channel", 0, "--lookahead", 1, *mode)
    assert (code, out) == (0, f"two.wav: {text[1]}\n" * 2)
    code, out, err = run("transcribe", name, "--channel", 2, "--lookahead", 1, *mode)
    assert (code, out, err) == (1, "", f"error: {name}: it has no channel 2: its channels are 0 to 1\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>502 Bad Gateway</html>", "it is not audio, but text"),
        (b"\0\0\0\x1cftypM4A " + bytes(99), "it is an MP4 file (m4a, mp4 or mov), which only ffmpeg decodes"),
        (np.random.default_rng(0).bytes(9000), "its bytes are not 16-bit samples at 16000 Hz with 1 channel"),
    ],
)
def test_standard_input_of_something_else(run, monkeypatch, content, message):
    monkeypatch.setenv("PATH", "")
    pipe(monkeypatch, content)
    code, out, err = run("transcribe", "-", "--lookahead", 1)
    assert (
        code == 1 and not out and err.count("\n") == 1 and err.startswith("error: standard input: ") and message in err
    )


@pytest.mark.parametrize("name", ["two\nlines.wav", "zero\0byte.wav", "x" * 5000, "\udcff.wav"])
def test_names_are_shown_on_one_line(run, name):
    code, out, err = run("transcribe", name, "--lookahead", 1)
    assert code == 1 and not out and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1100


def test_a_live_pipe_is_transcribed_as_it_arrives(checkpoint_directory, speech):
    """Text is printed while the pipe is still open."""
    command = [sys.executable, "-m", "nemojax.cli", "transcribe", "-", "--stream", "--lookahead", "0"]
    pcm = (np.asarray(speech) * 32_767).astype("<i2").tobytes()
    with subprocess.Popen(
        [*command, "--model", str(checkpoint_directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(pcm)
        process.stdin.flush()
        assert process.stdout.read(1)
        process.stdin.close()
        assert process.stdout.read().endswith(b"\n") and process.wait() == 0


def test_a_manifest_into_a_directory(run, files, tmp_path, capsys):
    manifest = files / "two.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav"}\n{"audio_filepath": "nowhere.wav"}\n')
    transcribe = ("transcribe", manifest, "--output", tmp_path, "--lookahead", 1)
    code, out, err = run(*transcribe, "--shard", "1/2")
    assert code == 1 and err == "error: nowhere.wav: there is no such file\n"
    assert out == "1 of 2 recordings are done, 1 of them failed; 1 left to other processes\n"
    code, out, err = run(*transcribe, "--shard", "0/2")
    assert code == 1 and not err  # of another process
    assert out == f"2 of 2 recordings are done, 1 of them failed; results are in {tmp_path / 'transcripts.jsonl'}\n"
    code, out, err = run(*transcribe)
    assert code == 1 and not err  # there is nothing left to do, but a recording has failed
    assert [json.loads(line)["lookahead"] for line in (tmp_path / "transcripts.jsonl").read_text().splitlines()] == [1]


def test_results_are_printed_in_order():
    a, b, c, d = map(AudioError, "abcd")
    assert list(in_order([(1, b), (0, a), (3, d), (2, c)])) == [(0, a), (1, b), (2, c), (3, d)]
    results = in_order(iter([(0, a), (2, c)]))
    assert next(results) == (0, a) and list(results) == []


def test_a_manifest_without_a_recording_is_an_error(run, tmp_path):
    (tmp_path / "m.jsonl").write_text("\n")
    code, out, err = run("transcribe", tmp_path / "m.jsonl")
    assert (code, out) == (1, "") and f"error: {tmp_path / 'm.jsonl'}: the manifest names no recording" in err
