"""The command line, run in this process: what it prints, where, and how it exits."""

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

import nemojax
from nemojax import cli
from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.cli import printer
from nemojax.cli.transcribe import in_order
from nemojax.errors import AudioError, ConfigError


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


def test_info(run, capsys, checkpoint_directory):
    assert cli.main(["info", str(checkpoint_directory)]) == 0
    out = capsys.readouterr().out
    assert "13 (1120 ms), 6 (560 ms), 1 (160 ms), 0 (80 ms)" in out and "made.nemo" in out and "52,201" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe"], "name at least one file to transcribe, or - for standard input"),
        (["transcribe", "a.wav", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["transcribe", "a.jsonl", "--output", "out", "--batch-size", "-1"], "--batch-size must be at least 1, not -1"),
        (
            ["transcribe", "a.wav", "--reset-prediction-after-s", "nan"],
            "after-s must be more than 0",
        ),
        (["transcribe", "a.wav", "--reset-prediction-after-s", "0"], "after-s must be more than 0"),
        (["transcribe", "a.wav", "--model", "nowhere"], "nowhere is not a directory"),
        (["transcribe", "a.wav", "--model", "model.nemo"], "convert a .nemo archive with nemojax-convert first"),
        (["transcribe", "a.wav", "--model", "."], ". is not a nemojax checkpoint: it has no config.json"),
        (["transcribe", "a.wav", "--lookahead", "2"], "lookahead 2 does not fit"),
        (["transcribe", "a.wav", "--lookahead", "-1"], "lookahead -1 does not fit"),
        (
            ["transcribe", "a.wav", "--output", "out"],
            "--output is for one manifest (.jsonl, .json, .jsonl.gz, .json.gz), not a.wav",
        ),
        (
            ["transcribe", "--output", "out"],
            "--output is for one manifest (.jsonl, .json, .jsonl.gz, .json.gz), not nothing",
        ),
        (["transcribe", "a.jsonl", "b.jsonl", "--output", "out"], "not a.jsonl, b.jsonl"),
        (["transcribe", "a.jsonl", "--output", "out", "--stream"], "can't be combined with --stream"),
        (["transcribe", "a.jsonl", "--output", "out", "--json"], "can't be combined with --stream, --live or --json"),
        (["transcribe", "a.wav", "--shard", "0/2"], "--shard is for a manifest with --output"),
        (["transcribe", "a.jsonl", "--output", "out", "--shard", "2/2"], "INDEX from 0 to COUNT - 1, not 2/2"),
        (["transcribe", "a.jsonl", "--output", "out", "--raw", "s16le"], "--output takes no --raw or --channel"),
        (["transcribe", "a.jsonl", "--output", "out", "--channel", "0"], "write channel_selector into the manifest's"),
        (["transcribe", "a.wav", "--raw", "s16"], "'s16' is not an encoding of raw samples"),
        (["transcribe", "a.wav", "--channel", "left"], "--channel is an index from 0 on, several such as 0,1, average"),
        (["transcribe", "a.jsonl", "--output", "out", "--shard", "half"], "written as INDEX/COUNT, such as 0/8"),
        (["transcribe", "nowhere.jsonl", "--output", "out"], "nowhere.jsonl: the manifest can't be read"),
        (
            ["transcribe", "a.jsonl", "--output", "model.nemo"],
            "model.nemo/parts can't be read or written: Not a directory",
        ),
        (["info", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_mistakes_are_one_sentence(capsys, checkpoint_directory, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.nemo").write_bytes(b"")
    (tmp_path / "a.jsonl").write_text("")
    if arguments[0] == "transcribe" and "--model" not in arguments:
        arguments = [*arguments, "--model", str(checkpoint_directory)]
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and message in err and err.count("\n") == 1 and not out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "a.wav", "--lookahed", "1"], "lookahed"),
        (["transcribe", "a.wav", "--lookahead", "far"], "far"),
        (["transcribe", "a.wav", "--dtype", "int4"], "int4"),
        (["transcribe", "a.wav", "--kernels", "fast"], "fast"),
        (["transcribe", "a.wav", "--attention", "flash"], "flash"),
        (["transcibe", "a.wav"], "transcibe"),
        ([], "transcribe"),
    ],
)
def test_misspelled_commands_exit_with_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    captured = capsys.readouterr()
    assert exit.value.code == 2 and message in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ("float32", "auto", "auto")),
        (["--dtype", "int8", "--kernels", "native"], ("int8", "native", "auto")),
        (["--attention", "fused", "--kernels", "xla"], ("float32", "xla", "fused")),
    ],
)
@pytest.mark.parametrize("bulk", [False, True])
def test_options_of_the_model_reach_load(capsys, monkeypatch, tmp_path, options, expected, bulk):
    requests = []

    def load(directory, dtype, kernels, attention):
        requests.append((directory, dtype, kernels, attention))
        raise ConfigError("the request can't be met")

    monkeypatch.setattr("nemojax.recognition.recognizer.load", load)
    files = ["a.jsonl", "--output", str(tmp_path / "out")] if bulk else ["a.wav"]
    assert cli.main(["transcribe", *files, "--model", str(tmp_path), *options]) == 2
    assert requests == [(tmp_path, *expected)] and capsys.readouterr().err == "error: the request can't be met\n"


def test_the_small_model_is_the_default(capsys, monkeypatch):
    requests = []
    monkeypatch.setattr("nemojax.recognition.recognizer.load", lambda *arguments: requests.append(arguments) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["transcribe", "a.wav"])
    assert requests == [(SMALL, "float32", "auto", "auto")]
    assert capsys.readouterr().err == f"note: {SMALL_NOTE}\n"


def test_a_manifest_into_a_directory(run, files, tmp_path, capsys):
    manifest = files / "two.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav"}\n{"audio_filepath": "nowhere.wav"}\n')
    transcribe = ("transcribe", manifest, "--output", tmp_path, "--lookahead", 1)
    code, out, err = run(*transcribe, "--shard", "0/2")
    assert code == 0 and not err
    assert out == "1 of 2 recordings are done, 0 of them failed; 1 left to other processes\n"
    code, out, err = run(*transcribe, "--shard", "1/2")
    assert code == 1 and err == "error: nowhere.wav: there is no such file\n"
    assert out == f"2 of 2 recordings are done, 1 of them failed; results are in {tmp_path / 'transcripts.jsonl'}\n"
    code, out, err = run(*transcribe)
    assert code == 1 and not err  # there is nothing left to do, but a recording has failed
    assert [json.loads(line)["lookahead"] for line in (tmp_path / "transcripts.jsonl").read_text().splitlines()] == [1]


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nemojax {nemojax.__version__}\n"
    for command, words in (([], ["transcribe", "info", "--version"]), (["transcribe"], ["--kernels", "INDEX/COUNT"])):
        with pytest.raises(SystemExit) as exit:
            cli.main([*command, "--help"])
        out = capsys.readouterr().out
        assert exit.value.code == 0 and all(word in out for word in words)


def test_results_are_printed_in_order():
    a, b, c, d = map(AudioError, "abcd")
    assert list(in_order([(1, b), (0, a), (3, d), (2, c)])) == [(0, a), (1, b), (2, c), (3, d)]
    results = in_order(iter([(0, a), (2, c)]))
    assert next(results) == (0, a) and list(results) == []


def test_where_compiled_steps_are_kept(monkeypatch, tmp_path):
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.set_compilation_cache()
    assert Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).parent == tmp_path / "nemojax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")  # the user's choice
    cli.set_compilation_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
