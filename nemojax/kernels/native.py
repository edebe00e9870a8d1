"""The one product that is not written in JAX, compiled for the machine that it runs on.

A C++ compiler is needed once (`c++`, or what $CXX names); what it makes is kept beside the compiled steps. Without one,
or with NEMOJAX_NATIVE=0, products take the plain path, which is slower.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax

SOURCE = Path(__file__).with_name("panel_product.cc")
PRODUCT, INT8_PRODUCT = "nemojax_panel_product", "nemojax_int8_panel_product"
SWITCH = "NEMOJAX_NATIVE"
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC")


class CompileError(Exception):
    """The source could not be compiled; says why."""


def available() -> bool:
    """Whether the products may be called on this machine's CPU; the first call compiles them."""
    return unavailable_reason() is None


@functools.cache
def unavailable_reason() -> str | None:
    """Why they may not; None where they may."""
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
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(cache or "~/.cache").expanduser() / "nemojax-native"
    except RuntimeError:  # there is no home directory
        return Path(tempfile.gettempdir()) / f"nemojax-native-{os.getuid()}"


def build_library(directory: Path) -> Path:
    """The library, in a directory where it is kept for this source, these headers, this compiler and this processor.

    Raises:
      CompileError: there is no compiler, or it failed.
      OSError: the directory can't be written.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise CompileError("there is no C++ compiler here; install g++, or name one in $CXX")
    command = [*compiler.split(), *FLAGS, "-I", jax.ffi.include_dir()]
    told = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True).stdout
    cpuinfo = Path("/proc/cpuinfo")
    facts = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    flags = next((fact for fact in facts if fact.startswith(("flags", "Features"))), facts[0])
    made_of = [SOURCE.read_text(), " ".join(command), told, jax.__version__, flags]
    library = directory / f"panels-{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            partial = Path(scratch) / library.name
            done = subprocess.run([*command, str(SOURCE), "-o", str(partial)], capture_output=True, text=True)
            if done.returncode:
                complaint = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr.strip())
                raise CompileError(f"{compiler} failed: {complaint}")
            os.replace(partial, library)
    return library
