"""The command line, run in this process: what it prints, where, and how it exits."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemojax import cli


@pytest.fixture(scope="module")
def files(tmp_path_factory, speech):
    directory, x = tmp_path_factory.mktemp("audio"), np.asarray(speech)
    soundfile.write(directory / "a.wav", x[:40_000], 16_000, subtype="FLOAT")
    soundfile.write(directory / "b.flac", x, 16_000)
    soundfile.write(directory / "c.wav", np.stack([x[:44_100]] * 2, 1), 22_050)
    soundfile.write(directory / "silence.wav", np.zeros(8000, np.float32), 16_000)
    return directory


@pytest.fixture
def run(checkpoint_directory, capsys, recognizer):
    def run(*arguments, model=checkpoint_directory):
        code = cli.main([*map(str, arguments), *(["--model", str(model)] if model else [])])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def refused(capsys, *arguments):
    """Exit code and message of a command that is not understood."""
    with pytest.raises(SystemExit) as exit:
        cli.main([*map(str, arguments)])
    captured = capsys.readouterr()
    return exit.value.code, captured.out + captured.err


def test_text(run, files, recognizer):
    code, out, err = run("transcribe", files / "a.wav")
    assert code == 0 and out == recognizer.transcribe(files / "a.wav").text + "\n" and out.strip() and not err


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
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


def test_stream_prints_what_it_hears(run, files, recognizer):
    code, out, _ = run("transcribe", "--stream", files / "a.wav", files / "silence.wav", "--lookahead", 1)
    text = [recognizer.transcribe(files / name, 1).text for name in ("a.wav", "silence.wav")]
    assert code == 0 and out == f"{files}/a.wav: {text[0]}\n{files}/silence.wav: {text[1]}\n"


def test_live_hears_each_chunk_when_it_is_spoken(run, files, recognizer, monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        cli.time, "sleep", lambda seconds: slept.append(seconds) or now.__setitem__(0, now[0] + seconds)
    )
    code, out, _ = run("transcribe", "--live", files / "a.wav", "--lookahead", 6)
    assert code == 0 and out == recognizer.transcribe(files / "a.wav", 6).text + "\n"
    assert sum(slept) == pytest.approx(2.5) and max(slept) < 0.561  # as long as the recording; a chunk at most


def test_what_was_done_to_the_audio_is_said(run, files):
    code, _, err = run("transcribe", files / "c.wav")
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
    bad = ["text.wav", "empty.wav", "cut.wav", "nan.wav", "missing.wav"]
    code, out, err = run("transcribe", *(tmp_path / name for name in bad), files / "a.wav", *mode, *form)
    assert code == 1 and "Traceback" not in err
    for name in bad:
        assert any(line.startswith("error:") and name in line for line in err.splitlines()), (name, err)
    assert "a.wav" in out.splitlines()[-1]
    if form:
        assert len([json.loads(line) for line in out.splitlines()]) == 1


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
    assert code == 1 and [line["audio"].split("/")[-1] for line in lines] == ["a.wav", "b.flac"]
    assert lines[1]["duration"] == pytest.approx(2.0) and "nowhere.wav" in err and "line 4" in err


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


def test_a_live_pipe_is_heard_as_it_comes(checkpoint_directory, speech):
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


def test_info(run, capsys, checkpoint_directory):
    assert cli.main(["info", str(checkpoint_directory)]) == 0
    out = capsys.readouterr().out
    assert "13 (1120 ms), 6 (560 ms), 1 (160 ms), 0 (80 ms)" in out and "made.nemo" in out and "52,201" in out


def test_a_wrong_model_or_setting_exits_with_2(run, files, tmp_path):
    for arguments, model, message in (
        ([files / "a.wav"], tmp_path / "nowhere", "is not a directory"),
        ([files / "a.wav"], tmp_path, "is not a nemojax checkpoint"),
        ([files / "a.wav", "--lookahead", 2], None, "lookahead 2 does not fit"),
        ([files / "a.wav", "--batch-size", 0], None, "--batch-size must be at least 1"),
        ([], None, "name at least one file"),
    ):
        code, out, err = run("transcribe", *arguments, **({} if model is None else {"model": model}))
        assert code == 2 and message in err and not out and "Traceback" not in err


def test_where_compiled_steps_are_kept(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.keep_compiled()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path / "nemojax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")  # the user's choice
    cli.keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"


def test_a_misspelt_command_exits_with_2(capsys, files):
    code, said = refused(capsys, "transcribe", files / "a.wav", "--model", files, "--lookahed", "1")
    assert code == 2 and "lookahed" in said and "Traceback" not in said
    assert refused(capsys, "transcribe", files / "a.wav", "--model", files, "--dtype", "int4")[0] == 2
