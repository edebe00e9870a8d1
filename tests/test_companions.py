"""The companions, `convert` and `experiments`: where a clone and a wheel have them, and the commands that run them."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nemojax import cli, companions
from nemojax.cli.companion_commands import convert_main
from nemojax.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def wheel(monkeypatch, tmp_path):
    """The place of a wheel's companions, which print their arguments."""
    for name in companions.NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "__main__.py").write_text("def main(arguments):\n    print(*arguments)\n    return 3\n")
    for name in [name for name in sys.modules if name.partition(".")[0] in companions.NAMES]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(companions, "_HERE", tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in companions.NAMES]:
        del sys.modules[name]


def test_a_clone_has_them_beside_nemojax():
    assert not companions.installed() and companions.directory() == ROOT


def test_a_wheel_has_them_inside(wheel, capsys):
    assert companions.installed() and companions.directory() == wheel
    assert cli.main(["experiments", "evaluate", "--help"]) == 3 and capsys.readouterr().out == "evaluate --help\n"
    assert convert_main(["hf", "a", "b"]) == 3 and capsys.readouterr().out == "hf a b\n"
    assert sys.path[0] == str(wheel) and sys.path.count(str(wheel)) == 1


def test_another_module_of_such_a_name_is_an_error(wheel, monkeypatch, capsys):
    other = ModuleType("convert")
    other.__file__ = "/elsewhere/convert.py"
    monkeypatch.setitem(sys.modules, "convert", other)
    sentence = "a module named convert was imported already, from /elsewhere/convert.py; use another process"
    with pytest.raises(ConfigError, match=f"^{sentence}$"):
        companions.enable()
    assert convert_main([]) == 2 and capsys.readouterr().err == f"error: {sentence}\n"


def test_the_commands_are_listed_and_read_their_own_arguments(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert {"convert", "experiments", "doctor"} <= set(capsys.readouterr().out.split())
    assert cli.main(["experiments", "evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling is not installed")
def test_a_wheel_has_one_name_at_the_top():
    from hatchling.builders.wheel import WheelBuilder

    paths = [file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()]
    assert {path.partition("/")[0] for path in paths} == {"nemojax"}
    inside = {path.removeprefix("nemojax/companions/") for path in paths if path.startswith("nemojax/companions/")}
    assert inside >= {"convert/__main__.py", "experiments/results/small.jsonl", "notebooks/hear_a_stream.ipynb"}


def test_nemojax_imports_neither():
    code = "import sys, nemojax.cli; print([n for n in ('convert', 'experiments') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
