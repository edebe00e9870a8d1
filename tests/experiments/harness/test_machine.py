import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax

from experiments.harness import machine


def test_a_row_says_what_it_was_measured_on():
    row = json.loads(json.dumps(machine.machine(("numpy", "no-such-package"))))
    assert row["versions"] == {"numpy": version("numpy"), "no-such-package": None}
    assert 1 <= row["cores"] <= (os.cpu_count() or 1) and row["load"] >= 0 and row["python"].startswith("3.")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(row["time"])).total_seconds()) < 60
    assert machine.device() == jax.devices()[0].device_kind


def test_without_git_or_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").write_text("gitdir: nowhere")  # not even above it
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    assert machine._commit() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._commit() is None


def test_the_commit_is_the_checkouts(monkeypatch):
    def run(command, cwd, **options):
        assert command[0] == "git" and Path(cwd) == Path(machine.__file__).parent
        return type("Done", (), {"stdout": "abc1234-dirty\n"})

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert machine.machine(())["commit"] == "abc1234-dirty"
