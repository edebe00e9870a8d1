"""Rows with their stage, and which errors count."""

import json

from experiments.gpu.stage_rows import StageRows, first_line
from experiments.harness.rows import Rows


def test_rows_have_the_facts_and_their_own_values(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    with Rows(path, {"experiment": "gpu", "seed": 3}, ()) as rows:
        staged = StageRows(rows, {"dtype": "bfloat16", "commit": "abc"})
        staged.add("b", "step", p50_ms=1.5, dtype="float32", largest=[{"name": "kernel"}])
        (row,) = map(json.loads, path.read_text().splitlines())
    assert (row["experiment"], row["seed"], row["stage"], row["kind"]) == ("gpu", 3, "b", "step")
    assert row["dtype"] == "float32" and row["commit"] == "abc" and row["elapsed_s"] >= 0
    err = capsys.readouterr().err
    assert 'b step: {"p50_ms": 1.5' in err and "kernel" not in err and not rows.problems


def test_too_little_memory_is_no_problem_other_errors_are(tmp_path):
    with Rows(tmp_path / "rows.jsonl", {}, ()) as rows:
        staged = StageRows(rows, {})
        staged.failed("b", "step", RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nmore"), point="1@0")
        assert not rows.problems
        staged.failed("b", "step", ValueError("wrong"))
        staged.add("g", "peer", error="it ended early")
    first, second, _ = rows.rows
    assert first["out_of_memory"] and first["error"] == "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"
    assert first["point"] == "1@0" and not second["out_of_memory"]
    assert rows.problems == ["stage b: ValueError: wrong", "stage g: it ended early"]


def test_an_error_is_one_short_line():
    assert first_line(ValueError()) == "ValueError: " and len(first_line(ValueError("x" * 999))) == 300
