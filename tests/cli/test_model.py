"""Compiled programs on the command line: which are kept, and what is shown while they are compiled."""

import os
import sys
from pathlib import Path

import pytest

from nemojax import cli
from nemojax.cli.model import load as load_model
from nemojax.cli.model import show_compilation
from nemojax.compilation import Program


def test_programs_of_any_size_are_kept(monkeypatch):
    name = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    monkeypatch.setenv(name, "")  # so that it is as before afterwards
    monkeypatch.delenv(name)
    cli.set_compilation_cache()
    assert os.environ[name] == "0"
    monkeypatch.setenv(name, "2")  # the user's choice
    cli.set_compilation_cache()
    assert os.environ[name] == "2"


@pytest.mark.parametrize(
    ("directory", "seconds", "text"),
    [
        (Path("kept"), None, "compiling step, once ...\n"),
        (None, None, "compiling step ...\n"),
        (Path("kept"), 8.26, "compiled step in 8.3 s\n"),
    ],
)
def test_long_compilations_are_shown(capsys, monkeypatch, directory, seconds, text):
    monkeypatch.setattr("nemojax.cli.model.directory", lambda: directory)
    show_compilation(Program("step", seconds))
    assert capsys.readouterr() == ("", text)


@pytest.mark.parametrize("terminal", [False, True])
def test_they_are_shown_on_a_terminal_alone(monkeypatch, terminal):
    started = []
    monkeypatch.setattr("nemojax.cli.model.Watch.start", lambda watch: started.append(watch))
    monkeypatch.setattr("nemojax.recognition.recognizer.load", lambda *arguments, **_: arguments[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert load_model(Path("model"), "float32", "auto", "auto") == Path("model")
    assert len(started) == terminal
