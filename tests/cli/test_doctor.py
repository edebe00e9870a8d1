"""`nemojax doctor`: what it prints, also where something is broken."""

import importlib
import json
import subprocess
from unittest import mock

import pytest

import nemojax
from nemojax import cli
from nemojax.errors import ConfigError

doctor = importlib.import_module("nemojax.cli.doctor")  # the package has the command by the same name


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "a secret")
    monkeypatch.setenv("NEMOJAX_TILES", "0")
    (tmp_path / "nemojax" / "models" / "owner").mkdir(parents=True)
    (tmp_path / "nemojax" / "models" / "owner" / "weights").write_bytes(bytes(2**20))
    return tmp_path


def test_sections(capsys, elsewhere):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["versions", "devices", "kernels", "caches", "environment"]
    assert found["versions"]["nemojax"] == nemojax.__version__
    assert "cpu" in found["devices"]["jax"] and "cores for this process" in found["devices"]["processor"]
    assert found["caches"]["converted models"] == f"{elsewhere}/nemojax/models: 1 files, 0.00 GiB"
    assert found["environment"]["NEMOJAX_TILES"] == "0" and "HF_TOKEN" not in found["environment"]
    assert "a secret" not in json.dumps(found)


def test_lines(capsys, elsewhere):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "versions:" and [line.split() for line in lines if line.split()[0] == "nemojax"] == [
        ["nemojax", nemojax.__version__]
    ]
    assert len({len(line) - len(line[2:].partition("  ")[2].lstrip()) for line in lines if line.startswith("  ")}) == 1


def test_what_is_broken_is_shown(monkeypatch):
    def missing() -> str:
        raise ConfigError("jax finds no device of JAX_PLATFORMS=tpu")

    monkeypatch.setattr("nemojax.device.default_device", missing)
    assert doctor.devices()["jax"] == "error: jax finds no device of JAX_PLATFORMS=tpu"
    monkeypatch.setattr("nemojax.kernels.native.unavailable_reason", lambda: "there is no C++ compiler")
    assert doctor.kernels()["C++ kernels"] == "not available: there is no C++ compiler"
    monkeypatch.setattr("nemojax.kernels.native.unavailable_reason", lambda: 1 / 0)
    assert doctor.kernels()["C++ kernels"] == "error: ZeroDivisionError: division by zero"
    monkeypatch.setenv("CXX", "none-such --flag")
    assert doctor.kernels()["compiler"].startswith("error: none-such: ")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", mock.Mock(side_effect=subprocess.TimeoutExpired(["none-such"], 10)))
        assert doctor.kernels()["compiler"] == "error: none-such: Command '['none-such']' timed out after 10 seconds"
    monkeypatch.setattr(doctor, "PACKAGES", ("none-such",))
    assert doctor.versions()["none-such"] == "not installed"
