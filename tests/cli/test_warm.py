import inspect
import re
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemojax import cli, compilation
from nemojax.compilation import announced

WARM, TRANSCRIBE = (import_module(f"nemojax.cli.{name}") for name in ("warm", "transcribe"))


def test_what_was_compiled_is_printed(run, monkeypatch, tmp_path):
    requests = []

    def warm(recognizer, lookahead, batch_size, streams, progress):
        requests.append((recognizer.dtype, lookahead, batch_size, streams))
        progress(1, 2)
        with announced("a program"):
            progress(2, 2)

    monkeypatch.setattr("nemojax.warm.warm", warm)
    monkeypatch.setattr("nemojax.compilation.directory", lambda: tmp_path)
    for batch_size in (8, 0):
        options = ["--lookahead", "0", "13", "--streams", "8", "64", "--dtype", "bfloat16"]
        code, out, err = run("warm", *options, *([] if batch_size else ["--batch-size", "0"]))
        assert code == 0 and requests.pop() == ("bfloat16", (0, 13), batch_size, (8, 64)), err
        assert re.fullmatch(rf"\d+ programs compiled, \d+ found, in \d+ s; kept in {tmp_path}\n", out)
    monkeypatch.setattr(WARM, "load", lambda *given: requests.append(given) or SimpleNamespace(dtype="x"))
    clock = iter([100.0, 107.6, 200.0, 200.0])
    monkeypatch.setattr(WARM, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    watch = SimpleNamespace(compiled=["a", "b"], read=["c"])
    monkeypatch.setattr("nemojax.compilation.Watch", lambda: nullcontext(watch))
    code, out, err = run("warm", "--kernels", "xla", "--attention", "plain", "--reset-prediction-after-s", "2")
    assert (code, out) == (0, f"2 programs compiled, 1 found, in 8 s; kept in {tmp_path}\n"), err
    assert requests[0][1:] == ("float32", "xla", "plain", 2.0, False) and requests[1] == ("x", (), 8, ())
    monkeypatch.setattr(WARM, "load", lambda *given, **search: requests.append(search) or SimpleNamespace(dtype="x"))
    search = ["--beam", "4", "--confidence", "gibbs", "--lm", "a.arpa", "--lm-weight", "0.2", "--phrases", "b.txt"]
    assert run("warm", *search)[0] == 0
    expected = {"beam": 4, "confidence": "gibbs", "lm": Path("a.arpa"), "lm_weight": 0.2, "phrases": Path("b.txt")}
    assert requests[2] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "-1"], "--batch-size must be a whole number of at least 0, not -1"),
        (["--streams", "8", "0"], "each of --streams must be a whole number of at least 1, not 0"),
        (["--lookahead", "2"], "lookahead"),
        (["--beam", "4", "--reset-prediction-after-s", "2"], "can't be combined with --beam"),
    ],
)
def test_mistakes(run, options, message):
    code, _, err = run("warm", *options)
    assert code == 2 and message in err and err.startswith("error: ")


def test_it_compiles_by_default_what_transcribing_needs_by_default():
    warm, transcribe = (inspect.signature(command).parameters for command in (WARM.warm, TRANSCRIBE.transcribe))
    for name in warm.keys() & transcribe.keys() - {"lookahead"}:  # without any, each takes the model's
        assert warm[name].default == transcribe[name].default, name


def test_where_nothing_is_kept_it_says_so(run, monkeypatch):
    monkeypatch.setattr("nemojax.compilation.directory", lambda: None)
    code, _, err = run("warm")
    assert code == 2 and f"unset ${compilation.SWITCH}" in err


def test_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["warm", "--help"])
    out = capsys.readouterr().out
    assert "--streams" in out and "--batch-size" in out
