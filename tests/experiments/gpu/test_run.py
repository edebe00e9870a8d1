"""The command: its settings, and dry runs."""

import dataclasses
import json

import pytest

from experiments.gpu import run
from experiments.gpu.points import DRY


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--preset", "huge"], "--preset: 'huge' is none of"),
        (["--stages", "a,x"], "--stages: write some of"),
        (["--stages", ","], "--stages: write some of"),
        (["--limit-s", "0"], "greater than 0"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--sizes.points", "8"], "'8' is not a point"),
        (["--sizes.points", "8@3"], "left context"),
    ],
)
def test_mistakes_are_sentences(arguments, message, capsys, tmp_path):
    try:
        code = run.main([*arguments, "--output", str(tmp_path / "rows.jsonl")])
    except SystemExit as exit:
        code = exit.code
    assert code == 2 and message in capsys.readouterr().err and not (tmp_path / "rows.jsonl").exists()


def dry_rows(tmp_path, **settings):
    output = tmp_path / "rows.jsonl"
    code = run.EXPERIMENT.run(run.Settings(dry=True, output=output, workers=2, limit_s=3000.0, **settings))
    return code, [json.loads(line) for line in output.read_text().splitlines()]


def test_a_dry_run_of_one_point(tmp_path, capsys, monkeypatch):
    # two frames of random weights have no rate of labels that a bias could set; the table shows the row at any rate
    monkeypatch.setattr("experiments.gpu.report.MAX_LABELS_PER_FRAME", 10.0)
    sizes = dataclasses.replace(DRY, calibration=("2@0",), points=("2@0",), product_width=64)
    code, rows = dry_rows(tmp_path, stages="b", sizes=sizes, commit="abc1234")
    assert code == 0 and [row["kind"] for row in rows if row["stage"] == "b"] == ["ceilings", "step", "done"]
    (step,) = [row for row in rows if row["kind"] == "step"]
    assert step["p50_ms"] > 0 and step["floor_share"] > 0 and step["temp_bytes"] > 0 and step["dry"]
    assert step["point"] == "2@0/plain" and step["compiling"] == 0 and step["commit"] == "abc1234"
    assert "| step | 80 ms | plain | 2 |" in capsys.readouterr().out


def test_no_stage_begins_after_the_limit(tmp_path):
    sizes = dataclasses.replace(DRY, calibration=("2@0",), points=("2@0",))
    settings = run.Settings(dry=True, output=tmp_path / "rows.jsonl", workers=1, stages="f", limit_s=1e-6, sizes=sizes)
    assert run.EXPERIMENT.run(settings) == 1
    (row,) = [json.loads(line) for line in settings.output.read_text().splitlines() if '"skipped"' in line]
    assert row["stage"] == "f" and row["error"].endswith("s had passed")


@pytest.mark.slow
def test_a_dry_run_of_all_stages(tmp_path):
    code, rows = dry_rows(tmp_path, stages="a,b,h,c,d,e,f", compile_s=2000.0)
    assert code == 0 and not [row for row in rows if "error" in row]
    kinds = {row["kind"] for row in rows}
    assert {"correctness", "ceilings", "step", "one stream", "paced", "offline", "training", "table"} <= kinds
    checks = [row for row in rows if row["kind"] == "correctness" and row["dtype"] == "float32"]
    assert all(row["relative_error"] < 1e-5 and row["streams_identical"] == row["streams"] for row in checks)
