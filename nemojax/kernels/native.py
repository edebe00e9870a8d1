"""Compiles the C++ product kernel for this machine and registers it with XLA.

A C++ compiler is needed once (`c++`, or the one that $CXX names); the library is kept beside the compiled steps.
Without a compiler, or with NEMOJAX_NATIVE=0, products take the plain path, which is slower.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax

from nemojax import compilation

SOURCE = Path(__file__).with_name("panel_product.cc")
PRODUCT, INT8_PRODUCT = "nemojax_panel_product", "nemojax_int8_panel_product"
SWITCH = "NEMOJAX_NATIVE"
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC")


class CompileError(Exception):
    """Reports that the source could not be compiled, and why."""


def available() -> bool:
    """Returns whether the kernel can be called on this machine's CPU; the first call compiles it."""
    return unavailable_reason() is None


@functools.cache
def unavailable_reason() -> str | None:
    """Returns why the kernel can't be called; None if it can."""
    if os.environ.get(SWITCH) == "0":
        return f"${SWITCH} is 0"
    try:
        library = ctypes.CDLL(str(build_library(_directory())))
    except (CompileError, OSError) as error:
        return str(error)
    for symbol in (PRODUCT, INT8_PRODUCT):
        jax.ffi.register_ffi_target(symbol, jax.ffi.pycapsule(getattr(library, symbol)), platform="cpu")
    return None


def _directory() -> Path:
    try:
        return (compilation.directory() or compilation.user_directory()) / "nemojax-native"
    except RuntimeError:  # there is no home directory
        return Path(tempfile.gettempdir()) / f"nemojax-native-{os.getuid()}"


def build_library(directory: Path) -> Path:
    """Builds the library, or finds it in `directory`, where it is kept for this source, compiler and processor.

    Raises:
      CompileError: there is no compiler, or it failed.
      OSError: the directory can't be written.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise CompileError("there is no C++ compiler here; install g++, or name one in $CXX")
    command = [*compiler.split(), *FLAGS, "-I", jax.ffi.include_dir()]
    compiler_version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True).stdout
    processor = compilation.processor()
    ingredients = [SOURCE.read_text(), " ".join(command), compiler_version, jax.__version__, processor]
    library = directory / f"panels-{hashlib.sha256(chr(0).join(ingredients).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch, compilation.announced("the C++ kernels"):
            partial = Path(scratch) / library.name
            done = subprocess.run([*command, str(SOURCE), "-o", str(partial)], capture_output=True, text=True)
            if done.returncode:
                message = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr.strip())
                raise CompileError(f"{compiler} failed: {message}")
            os.replace(partial, library)
    return library
