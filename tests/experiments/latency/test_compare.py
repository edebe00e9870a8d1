from types import SimpleNamespace

import numpy as np
import pytest

from experiments.harness import checks
from experiments.harness.rows import Rows, select
from experiments.latency import compare
from experiments.latency.compare import REFERENCE, Measurements, off, read_rate
from experiments.latency.process import ContenderError


def test_labels_off_are_edits():
    assert off([1, 2, 3], [1, 2, 3]) == 0.0
    assert off([1, 3], [1, 2, 3]) == pytest.approx(1 / 3, abs=1e-5)
    assert off([1], None) is None and off([], []) is None


def test_the_rate_of_memory_is_bytes_over_the_shortest_pass(monkeypatch):
    clock = iter([0, 5, 10, 12, *range(20, 30)])
    monkeypatch.setattr(compare.time, "perf_counter", lambda: next(clock))
    assert read_rate(threads=2, megabytes=8) == 8 * 2**20  # the others take 5 and 2 s


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--contenders", "kaldi"], "kaldi"),
        (["--size", "huge"], "huge"),
        (["--lookaheads", "2"], "2 is none of"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_a_wrong_setting_is_an_error(capsys, tmp_path, arguments, complaint):
    assert compare.main([str(tmp_path), *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_plot_of_another_format_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "check_installed", lambda *modules: None)
    assert compare.main([str(tmp_path), "--plot", "latency.txt"]) == 2
    assert "svg, png, pdf" in capsys.readouterr().err


class FakeProcess:
    """A contender that answers at once; "NeMo" fails when it streams."""

    def __init__(self, name, directory, threads, cache=None):
        self.name, self.started, self.loaded_s = name, 0.0, 1.5
        if name == "sherpa-onnx int8":
            raise ContenderError(f"{name}: not installed")

    def ask(self, do, **request):
        if do == "stream" and self.name == "NeMo float32":
            raise ContenderError(f"{self.name}: it failed")
        tokens = [1, 2, 3, 4] if self.name == REFERENCE else [1, 2, 3, 5]
        answers = {"stream": {"steps": [(0.04, 0.03, 0.01)] * 5, "tokens": tokens}}
        answers["batch"] = {"seconds": 2.0, "tokens": [tokens] * len(request.get("recordings", []))}
        return answers.get(do, {}) | {"peak_bytes": 7, "resident_bytes": 5}

    def close(self):
        pass


def test_contenders_take_turns_and_one_that_fails_is_reported(work, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ContenderProcess", FakeProcess)
    monkeypatch.setattr(compare, "read_rate", lambda threads: 1e9)
    names = (REFERENCE, "transformers float32", "NeMo float32", "sherpa-onnx int8")
    settings = compare.Settings(
        work, contenders=names, lookaheads=(6, 0), repeats=2, starts=1, batch_seconds=(1.0, 2.0)
    )
    recordings = [np.zeros(16_000, np.float32), *[np.zeros(32_000, np.float32)] * 3]
    with Rows(tmp_path / "rows.jsonl", {}, ()) as rows:
        found = list(Measurements(settings, recordings, rows, SimpleNamespace(set_description=lambda text: None)).run())
    assert rows.problems == ["sherpa-onnx int8: not installed", "NeMo float32: it failed"]
    assert capsys.readouterr().err.count("error: ") == 2
    assert [row["kind"] for row in found] == ["floor"] + ["start"] * 4 + ["stream"] * 8 + ["batch"] * 12
    assert 0 < found[0]["encoder_parameters"] < found[0]["parameters"]
    assert {row["resident_bytes"] for row in select(found, kind="start")} == {5}
    starts = [(row["contender"], row["cache"]) for row in select(found, kind="start")]
    assert starts == [(REFERENCE, "none"), (REFERENCE, "kept"), ("transformers float32", ""), ("NeMo float32", "")]
    streams = select(found, kind="stream")
    assert [(row["lookahead"], row["repeat"]) for row in streams[::2]] == [(6, 0), (6, 1), (0, 0), (0, 1)]
    assert [row["contender"] for row in streams] == [*names[:2]] * 4
    assert [row["labels_off"] for row in streams] == [0.0, 0.25] * 4
    assert streams[0]["real_time_factor"] == pytest.approx(0.04 / 0.56, abs=1e-5) and streams[0]["frames"] == 35
    batches = select(found, kind="batch", contender="NeMo float32")
    assert [(row["what"], row["audio_s"], row["batch_size"]) for row in batches[::2]] == [
        ("one alone", 1.0, 1),
        ("mixed", 3.0, 4),
    ]


def test_without_its_extra_the_command_says_what_to_install(capsys, tmp_path, monkeypatch):
    here = {"numpy": True, "transformers": True}
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda name: here.get(name))
    assert compare.main([str(tmp_path / "work"), "--contenders", "transformers float32", "sherpa-onnx int8"]) == 2
    assert capsys.readouterr().err == (
        "error: torch, nemo, onnx, onnxruntime, onnxscript, sherpa_onnx are not installed: pip install "
        '"nemojax[parity]" (in a clone, `make parity` sets up such an environment, .venv-parity)\n'
    )
    assert not list(tmp_path.iterdir())
