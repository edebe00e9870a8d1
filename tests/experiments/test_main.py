"""The list of commands, and running one by its name."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from experiments import __main__ as experiments
from experiments.harness.checks import EXTRAS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_list_has_every_command(arguments, capsys):
    assert experiments.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: ")
    assert [line.split()[0] for line in lines[2:]] == list(experiments.COMMANDS)
    assert all(command.question in line for command, line in zip(experiments.COMMANDS.values(), lines[2:], strict=True))


@pytest.mark.parametrize("name, close", [("evalute", "evaluate"), ("cost-grow", "cost_growth"), ("xyz", None)])
def test_an_unknown_name_gets_the_closest(name, close, capsys):
    assert experiments.main([name]) == 2
    out, err = capsys.readouterr()
    hint = f"; did you mean {close}?" if close else ""
    assert not out and err.splitlines()[0] == f"error: there is no experiment {name!r}{hint}"


def test_a_command_gets_its_arguments_and_gives_its_exit_code(monkeypatch):
    module = importlib.import_module("experiments.speed.roofline")
    given = []
    monkeypatch.setattr(module, "main", lambda arguments: given.append(arguments) or 3)
    assert experiments.main(["roofline", "--preset", "tiny"]) == 3 and given == [["--preset", "tiny"]]

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "main", interrupted)
    assert experiments.main(["roofline"]) == 130


HELP = """
import importlib, sys
from experiments.__main__ import COMMANDS
for name, command in COMMANDS.items():
    if name not in ("train", "export"):
        module = importlib.import_module(f"experiments.{command.module}")
        try:
            module.main(["--help"])
        except SystemExit as exit:
            assert not exit.code, name
        slow = {"jax", "flax", "torch", "librosa", "matplotlib"} & set(sys.modules)
        assert not slow, f"{name} --help imports {slow}"
"""


def test_help_imports_nothing_slow():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m experiments evaluate" in done.stdout and "Rows are appended to this file." in done.stdout


def test_a_missing_package_of_an_extra_is_named(monkeypatch, capsys):
    module = importlib.import_module("experiments.speed.roofline")

    def missing(arguments):
        raise ModuleNotFoundError("No module named 'nbclient.client'", name="nbclient.client")

    monkeypatch.setattr(module, "main", missing)
    assert experiments.main(["roofline"]) == 2
    expected = 'error: roofline: nbclient is not installed: pip install "nemojax[notebooks]"\n'
    assert capsys.readouterr().err == expected

    def broken(arguments):
        raise ModuleNotFoundError("No module named 'experiments.none'", name="experiments.none")

    monkeypatch.setattr(module, "main", broken)
    with pytest.raises(ModuleNotFoundError):
        experiments.main(["roofline"])


def test_the_extras_are_those_of_the_project():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    renamed = {"nemo": "nemo-toolkit"}
    for extra, modules in EXTRAS.items():
        names = " ".join(extras[extra]).lower().replace("_", "-")
        assert not [name for name in modules if renamed.get(name, name.lower().replace("_", "-")) not in names]
