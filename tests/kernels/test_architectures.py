"""Products, norms and attention on other processors, by a program that calls the C++ kernels without jax."""

import platform
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from nemojax import compilation
from nemojax.kernels import compiling, processors
from tests.helpers.compiler import COMPILER, needs_compiler

DRIVER = Path(__file__).with_name("driver.cc")
ARM_COMPILER, ARM_EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
FLAGS = frozenset(compilation.processor().split())
LEVELS = [level for level in processors.LEVELS.get(platform.machine(), ()) if level.flags <= FLAGS]


def outputs(directory: Path, compiler: str, options: tuple[str, ...], *emulator: str) -> str:
    """Compiles the driver and all kernels into one program, and returns what it prints."""
    program = directory / "driver"
    command, sources = [compiler, *options, "-I", jax.ffi.include_dir()], (*compiling.SOURCES, DRIVER)
    compiling.compile_program(command, sources, program, ("-static", "-pthread"))
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> str:
    """The outputs of the plainest instructions of this architecture."""
    return outputs(tmp_path_factory.mktemp("plain"), str(COMPILER), ())


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_every_level_has_the_same_bits(level, tmp_path, expected):
    assert outputs(tmp_path, str(COMPILER), level.options) == expected


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(ARM_COMPILER is None or ARM_EMULATOR is None, reason="needs g++-aarch64-linux-gnu and qemu-user")
def test_arm_has_the_same_bits(tmp_path, expected):
    (level,) = processors.LEVELS["aarch64"]
    assert outputs(tmp_path, str(ARM_COMPILER), level.options, str(ARM_EMULATOR)) == expected
