"""Commands and options: mistakes, defaults, help."""

import io
import os
import sys

import pytest

import nemojax
from nemojax import checkpoint, cli
from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.errors import ConfigError


def test_info(run, capsys, checkpoint_directory, monkeypatch):
    config, tokenizer, origin = checkpoint.read_settings(checkpoint_directory)
    origin |= {"notes": ["a list"], "settings": {"nested": 1}}  # too long for a line
    monkeypatch.setattr(checkpoint, "read_settings", lambda model: (config, tokenizer, origin))
    assert cli.main(["info", str(checkpoint_directory)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "parameters           52,201",
        "encoder              2 layers of width 32, 4 heads",
        "left context         70 frames of 80 ms",
        "look-aheads (chunk)  13 (1120 ms), 6 (560 ms), 1 (160 ms), 0 (80 ms); any R where R + 1 divides 70",
        "prediction network   LSTM, 2 x 24",
        "vocabulary           64 pieces and blank",
        "audio                16000 Hz, 128 mel bins",
        "origin: source       made.nemo",
    ]


@pytest.mark.parametrize(
    "error,code,message",
    [
        (ConfigError("two\nlines"), 2, "error: two\\nlines\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_how_a_command_ends(capsys, monkeypatch, error, code, message):
    def info() -> int:
        raise error

    replaced, null = [], os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(cli, "info", info)
    monkeypatch.setattr(cli.os, "open", lambda *asked: replaced.append(asked) or null)
    monkeypatch.setattr(cli.os, "dup2", lambda *descriptors: replaced.append(descriptors))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 99, raising=False)
    assert cli.main(["info"]) == code and capsys.readouterr() == ("", message)
    # what is still in the buffer of standard output goes nowhere
    assert replaced == ([(os.devnull, os.O_WRONLY), (null, 99)] if code == 0 else [])
    os.close(null)


def test_characters_that_the_terminal_does_not_have(monkeypatch):
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, "ascii"))
    monkeypatch.setattr(sys, "argv", ["nemojax", "transcribe", "é.jsonl", "--output", "out", "--json"])
    assert cli.main() == 2
    print("é", file=sys.stdout)
    assert cli.main(["info", "é"]) == 2
    sys.stdout.flush()
    sys.stderr.flush()
    assert out.getvalue() == b"\\xe9\n" and b"--output can't be combined with" in err.getvalue()
    assert b"error: \\xe9 is not a directory" in err.getvalue()


def test_options_of_recordings_reach_the_recognizer(capsys, monkeypatch, tmp_path):
    given = []

    class Recognizer:
        def lookahead(self, lookahead):
            return lookahead or 13

        def with_reset(self, seconds):
            given.append(seconds)
            return self

        def transcribe_each(self, sources, lookahead, batch_size, progress):
            given.append((lookahead, batch_size))
            return ((index, source) for index, source in enumerate(sources))

    monkeypatch.setattr("nemojax.recognition.recognizer.load", lambda *_, **__: Recognizer())
    model = ["--model", str(tmp_path)]
    assert cli.main(["transcribe", "gone.wav", *model]) == 1
    options = ["--lookahead", "1", "--batch-size", "3", "--reset-prediction-after-s", "2.5"]
    assert cli.main(["transcribe", "gone.wav", *model, *options]) == 1
    assert given == [(13, 8), 2.5, (1, 3)]
    assert capsys.readouterr() == ("", "error: gone.wav: there is no such file\n" * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe"], "name at least one file to transcribe, or - for standard input"),
        (["transcribe", "a.wav", "--batch-size", "0"], "--batch-size must be a whole number of at least 1, not 0"),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--batch-size", "-1"],
            "--batch-size must be a whole number of at least 1, not -1",
        ),
        (
            ["transcribe", "a.wav", "--reset-prediction-after-s", "nan"],
            "--reset-prediction-after-s must be more than 0 and at most 1e+09 seconds, not nan",
        ),
        (
            ["transcribe", "a.wav", "--reset-prediction-after-s", "0"],
            "--reset-prediction-after-s must be more than 0 and at most 1e+09 seconds, not 0.0",
        ),
        (["transcribe", "a.wav", "--beam", "0"], "--beam must be a whole number of at least 1, not 0"),
        (["transcribe", "a.wav", "--beam", "65"], "width of a beam must be at most 64 hypotheses, not 65"),
        (["evaluate", "a.jsonl", "--beam", "-3"], "--beam must be a whole number of at least 1, not -3"),
        (["transcribe", "a.wav", "--n-best", "2"], "--n-best needs --beam: greedy search has one hypothesis"),
        (
            ["transcribe", "a.wav", "--beam", "2", "--n-best", "3", "--json"],
            "--n-best must be at most the width of --beam, 2, not 3",
        ),
        (
            ["transcribe", "a.wav", "--beam", "2", "--n-best", "2"],
            "--n-best needs --json or --output, whose results have room for it",
        ),
        (
            ["transcribe", "a.wav", "--beam", "2", "--reset-prediction-after-s", "1"],
            "--reset-prediction-after-s can't be combined with --beam: only greedy search begins anew after a pause",
        ),
        (["transcribe", "a.wav", "--model", "nowhere"], "nowhere is not a directory: there is none of this name"),
        (
            ["transcribe", "a.wav", "--model", "model.nemo"],
            "model.nemo is not a directory; convert a .nemo archive with nemojax-convert first",
        ),
        (
            ["transcribe", "a.wav", "--model", "."],
            (
                ". is not a nemojax checkpoint: it has no config.json, tokenizer.model, origin.json, "
                "weights; nemojax-convert makes one from a NeMo or Hugging Face checkpoint"
            ),
        ),
        (
            ["transcribe", "a.wav", "--lookahead", "2"],
            (
                "lookahead 2 does not fit: lookahead + 1 must divide the left context of 70 frames; this "
                "model was trained with (13, 6, 1, 0)"
            ),
        ),
        (
            ["transcribe", "a.wav", "--lookahead", "-1"],
            (
                "lookahead -1 does not fit: lookahead + 1 must divide the left context of 70 frames; "
                "this model was trained with (13, 6, 1, 0)"
            ),
        ),
        (
            ["transcribe", "a.wav", "--output", "out"],
            "--output is for one manifest (.jsonl, .json, .jsonl.gz, .json.gz), not a.wav",
        ),
        (
            ["transcribe", "--output", "out"],
            "--output is for one manifest (.jsonl, .json, .jsonl.gz, .json.gz), not nothing",
        ),
        (
            ["transcribe", "a.jsonl", "b.jsonl", "--output", "out"],
            "--output is for one manifest (.jsonl, .json, .jsonl.gz, .json.gz), not a.jsonl, b.jsonl",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--stream"],
            "--output can't be combined with --stream, --live or --json: its results are JSON lines",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--json"],
            "--output can't be combined with --stream, --live or --json: its results are JSON lines",
        ),
        (["transcribe", "a.wav", "--shard", "0/2"], "--shard is for a manifest with --output"),
        (
            ["transcribe", "a.wav", "b.wav", "--format", "srt"],
            "--format srt is for one recording; name one file, or give a manifest and --output",
        ),
        (
            ["transcribe", "a.wav", "--format", "docx"],
            "--format must be one of txt, json, srt, vtt, tsv, ctm, stm, not 'docx'",
        ),
        (["transcribe", "a.wav", "--json", "--format", "ctm"], "--json can't be combined with --format ctm"),
        (
            ["transcribe", "a.wav", "--stream", "--vad"],
            "--vad skips silence of recordings; it can't be combined with --stream or --live",
        ),
        (
            ["transcribe", "a.wav", "--live", "--itn"],
            "--itn changes text that is final; with --stream or --live, add --end-of-utterance",
        ),
        (
            ["transcribe", "a.wav", "--end-of-utterance", "0"],
            "--end-of-utterance must be a positive number of milliseconds, not 0.0",
        ),
        (
            ["transcribe", "a.wav", "--confidence", "entropy"],
            "the measure of a confidence must be one of probability, max_prob, gibbs, tsallis, renyi, not 'entropy'",
        ),
        (
            ["transcribe", "a.wav", "--confidence", "tsallis", "--format", "vtt"],
            "--confidence needs --json, --format ctm or tsv, or --output: vtt has no confidences",
        ),
        (
            ["transcribe", "a.wav", "--stream", "--end-of-utterance", "800", "--format", "srt"],
            "--end-of-utterance needs text, --json, --format stm, or --output: srt has no utterances",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--shard", "2/2"],
            "a shard is INDEX/COUNT with INDEX from 0 to COUNT - 1, not 2/2",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--channel", "each"],
            (
                "a line of a manifest has one result, so --channel each is not possible here; write a "
                "line for each channel, with channel_selector"
            ),
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--raw", "s17le"],
            (
                "'s17le' is not an encoding of raw samples; these are: s8, u8, s16le, s16be, s24le, "
                "s24be, s32le, s32be, f32le, f32be, f64le, f64be, alaw, mulaw"
            ),
        ),
        (
            ["evaluate", "a.jsonl", "--channel", "each"],
            (
                "a line of a manifest has one result, so --channel each is not possible here; write a "
                "line for each channel, with channel_selector"
            ),
        ),
        (
            ["transcribe", "a.wav", "--raw", "s16"],
            (
                "'s16' is not an encoding of raw samples; these are: s8, u8, s16le, s16be, s24le, s24be, "
                "s32le, s32be, f32le, f32be, f64le, f64be, alaw, mulaw"
            ),
        ),
        (
            ["transcribe", "a.wav", "--channel", "left"],
            "--channel is an index from 0 on, several such as 0,1, average or each; not 'left'",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "out", "--shard", "half"],
            "a shard is written as INDEX/COUNT, such as 0/8, not 'half'",
        ),
        (
            ["transcribe", "nowhere.jsonl", "--output", "out"],
            "nowhere.jsonl: the manifest can't be read (No such file or directory)",
        ),
        (
            ["transcribe", "a.jsonl", "--output", "model.nemo"],
            "model.nemo/parts can't be read or written: Not a directory",
        ),
        (["info", "nowhere"], "nowhere is not a directory: there is none of this name"),
    ],
)
def test_mistakes_are_one_sentence(capsys, checkpoint_directory, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.nemo").write_bytes(b"")
    (tmp_path / "a.jsonl").write_text("")
    if arguments[0] == "transcribe" and "--model" not in arguments:
        arguments = [*arguments, "--model", str(checkpoint_directory)]
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


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
        ([], ("float32", "auto", "auto", None)),
        (["--dtype", "int8", "--kernels", "native"], ("int8", "native", "auto", None)),
        (["--attention", "fused", "--kernels", "xla"], ("float32", "xla", "fused", None)),
        (["--reproducible"], ("float32", "auto", "auto", True)),
    ],
)
@pytest.mark.parametrize("bulk", [False, True])
def test_options_of_the_model_reach_load(capsys, monkeypatch, tmp_path, options, expected, bulk):
    requests = []

    def load(directory, dtype, kernels, attention, reproducible):
        requests.append((directory, dtype, kernels, attention, reproducible))
        raise ConfigError("the request can't be met")

    monkeypatch.setattr("nemojax.recognition.recognizer.load", load)
    files = ["a.jsonl", "--output", str(tmp_path / "out")] if bulk else ["a.wav"]
    assert cli.main(["transcribe", *files, "--model", str(tmp_path), *options]) == 2
    assert requests == [(tmp_path, *expected)] and capsys.readouterr().err == "error: the request can't be met\n"


def test_the_small_model_is_the_default(capsys, monkeypatch):
    requests = []
    load = lambda *arguments, **options: requests.append(arguments) or 1 / 0
    monkeypatch.setattr("nemojax.recognition.recognizer.load", load)
    with pytest.raises(ZeroDivisionError):
        cli.main(["transcribe", "a.wav"])
    assert requests == [(SMALL, "float32", "auto", "auto")]
    assert capsys.readouterr().err == f"note: {SMALL_NOTE}\n"


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"nemojax {nemojax.__version__}\n"
    for command, words in (([], ["transcribe", "info", "--version"]), (["transcribe"], ["--kernels", "INDEX/COUNT"])):
        with pytest.raises(SystemExit) as exit:
            cli.main([*command, "--help"])
        out = capsys.readouterr().out
        assert exit.value.code == 0 and all(word in out for word in words)
