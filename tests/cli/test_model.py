"""Which notes a command gives while it loads its model, and what it asks for."""

import sys

import pytest

from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.cli import model
from nemojax.decoding.beam import Beam


class Loaded:
    def with_reset(self, seconds):
        return "with a reset", seconds

    def with_search(self, search):
        return search


@pytest.fixture
def asked(monkeypatch):
    """What was asked for of the recognizer, and whether compilation is watched."""
    asked = []

    def load(*given, reproducible):
        asked.append((*given, reproducible))
        return Loaded()

    monkeypatch.setattr("nemojax.recognition.recognizer.load", load)
    watch = lambda report: type("Watch", (), {"start": lambda self: asked.append(report)})()
    monkeypatch.setattr(model, "Watch", watch)
    return asked


def test_the_small_model_is_named_once(asked, tmp_path, capsys):
    assert isinstance(model.load(SMALL, "float32", "auto", "plain"), Loaded)
    assert capsys.readouterr().err == f"note: {SMALL_NOTE}\n"
    model.load(tmp_path, "bfloat16", "xla", "auto", reproducible=True)
    assert capsys.readouterr().err == ""
    assert asked == [(SMALL, "float32", "auto", "plain", None), (tmp_path, "bfloat16", "xla", "auto", True)]


def test_long_compilations_are_shown_on_a_terminal_alone(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model.load(tmp_path, "int8", "native", "fused")
    assert asked == [model.show_compilation, (tmp_path, "int8", "native", "fused", None)]


@pytest.mark.parametrize("seconds", [0.08, 2.5])
def test_a_reset_is_asked_for(asked, tmp_path, seconds):
    assert model.load(tmp_path, "float32", "auto", "auto", seconds) == ("with a reset", seconds)


def test_a_beam_is_asked_for(asked, tmp_path):
    found = model.load(tmp_path, "float32", "auto", "auto", beam=3, n_best=2)
    assert (found, found.n_best) == (Beam(3), 2)
