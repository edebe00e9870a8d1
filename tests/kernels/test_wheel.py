"""A wheel that carries the compiled C++ kernels, used where there is no compiler."""

import importlib.util
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nemojax.kernels import processors
from tests.helpers.compiler import needs_compiler

ROOT = Path(__file__).parents[2]
PROGRAM = """
import shutil
import nemojax
from nemojax.bundled import SMALL
from nemojax.kernels import native

assert not any(map(shutil.which, ("c++", "g++", "clang++")))
for dtype in ("int8", "float32"):
    text = nemojax.load(SMALL, dtype, kernels="native").transcribe(SMALL / "example.ogg").text
    print(native.carried_library(), text, sep="|")
"""


def build(out: Path, **environment: str) -> zipfile.ZipFile:
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT)]
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel)


needs_hatchling = pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling is not installed")


@needs_compiler
@needs_hatchling
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in processors.LEVELS, reason="a wheel has no kernels for this architecture")
def test_a_wheel_needs_no_compiler(tmp_path):
    wheel = build(tmp_path / "wheel", HATCH_BUILD_HOOKS_ENABLE="true")
    assert wheel.filename and wheel.filename.endswith(f"-py3-none-linux_{platform.machine()}.whl")
    wheel.extractall(tmp_path / "site")
    levels = {f"{level.name}.so" for level in processors.LEVELS[platform.machine()]}
    compiled = tmp_path / "site" / "nemojax" / "kernels" / "compiled"
    assert {path.name for path in compiled.iterdir()} == levels

    (tmp_path / "empty").mkdir()
    kept = {"PATH", "CXX", "PYTHONPATH"}
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    environment |= {"PATH": str(tmp_path / "empty"), "PYTHONPATH": str(tmp_path / "site")}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-W", "error::UserWarning", "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        library, text = line.split("|")
        assert Path(library).parent == compiled and text.startswith("bin blue at s zero now")
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_hatchling
@pytest.mark.slow
def test_any_other_wheel_is_pure_python(tmp_path):
    wheel = build(tmp_path, CXX="false")
    assert wheel.filename and wheel.filename.endswith("-py3-none-any.whl")
    names = wheel.namelist()
    assert "nemojax/kernels/tile_product.cc" in names and "nemojax/kernels/tiles.h" in names
    assert not [name for name in names if name.endswith(".so")]


COMPANIONS = """
import sys
from nemojax import cli, companions

assert companions.installed() and "site-packages" not in companions.__file__
for command in (["convert", "hf", "--help"], ["experiments"], ["experiments", "evaluate", "--help"]):
    try:
        assert not cli.main(command)
    except SystemExit as exit:
        assert not exit.code
import convert, experiments.harness.machine
assert convert.__file__ == f"{companions.directory()}/convert/__init__.py"
assert experiments.harness.machine.machine(())["commit"] is None
"""


@needs_hatchling
@pytest.mark.slow
def test_the_companions_of_a_wheel_run_whatever_the_working_directory_holds(tmp_path):
    build(tmp_path / "wheel").extractall(tmp_path / "site")
    assert {path.name.partition("-")[0] for path in (tmp_path / "site").iterdir()} == {"nemojax"}
    (tmp_path / "mine" / "experiments").mkdir(parents=True)
    (tmp_path / "mine" / "convert.py").write_text("raise SystemExit('the wrong module')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", COMPANIONS]
    done = subprocess.run(command, cwd=tmp_path / "mine", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: nemojax-convert hf" in done.stdout and "usage: nemojax experiments NAME ..." in done.stdout
    assert "    nemojax experiments evaluate MODEL MANIFEST..." in done.stdout
