import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax
import pytest

from experiments.harness import machine


@pytest.fixture(autouse=True)
def forgotten():
    """Facts are looked up once for each process."""
    for facts in (machine._commit, machine._gpus):
        facts.cache_clear()
    yield
    for facts in (machine._commit, machine._gpus):
        facts.cache_clear()


def test_a_row_names_its_machine():
    before = datetime.now(UTC).replace(microsecond=0)
    row = json.loads(json.dumps(machine.machine(("numpy", "no-such-package"))))
    assert before <= datetime.fromisoformat(row["time"]) <= datetime.now(UTC)
    assert row["versions"] == {"numpy": version("numpy"), "no-such-package": None}
    assert 1 <= row["cores"] <= (os.cpu_count() or 1) and row["load"] >= 0 and row["python"].startswith("3.")
    assert machine.device() == jax.devices()[0].device_kind


def test_without_git_or_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").write_text("gitdir: nowhere")  # hides a checkout above it
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    assert machine._commit() is None
    machine._commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine._commit() is None


def test_the_commit_is_the_checkouts(monkeypatch):
    def run(command, cwd, **options):
        assert Path(cwd) == Path(machine.__file__).parent
        return type("Done", (), {"stdout": "abc1234-dirty\n" * (command[0] == "git"), "returncode": 0})

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert machine.machine(())["commit"] == "abc1234-dirty"


@pytest.mark.parametrize(
    "script, gpus",
    [
        (
            "echo 'NVIDIA H100 80GB HBM3, 81559, 570.133.20'; echo 'Other, [N/A], 1.2'",
            [
                {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 81559 * 2**20, "driver": "570.133.20"},
                {"name": "Other", "memory_bytes": None, "driver": "1.2"},
            ],
        ),
        ("echo 'no devices were found'; exit 6", None),
        (None, None),
    ],
)
def test_gpus_are_named_where_there_are_some(script, gpus, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    assert machine.machine(()).get("gpus") == gpus
