"""The one product that is not written in JAX, compiled for the machine that it runs on.

A C++ compiler is needed once (`c++`, or what $CXX names); what it makes is kept beside the compiled steps. Without one,
or with NEMOJAX_NATIVE=0, products of int8 weights take the plain path in `int8`, which is slower, and the first of them
says so.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import jax

SOURCE = Path(__file__).with_name("int8_product.cc")
SYMBOL = "nemojax_int8_product"
SWITCH = "NEMOJAX_NATIVE"
FLAGS = ("-O3", "-march=native", "-ffast-math", "-std=c++17", "-shared", "-fPIC")


class CompileError(Exception):
    """The source could not be compiled; says why."""


@functools.cache
def available() -> bool:
    """Whether products of int8 weights may call `SYMBOL` on this machine's CPU; compiles it at the first call."""
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        library = ctypes.CDLL(str(compiled(_directory())))
    except (CompileError, OSError) as error:
        warnings.warn(f"products of int8 weights take the slower, plain path: {error}", stacklevel=2)
        return False
    jax.ffi.register_ffi_target(SYMBOL, jax.ffi.pycapsule(getattr(library, SYMBOL)), platform="cpu")
    return True


def _directory() -> Path:
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(cache or "~/.cache").expanduser() / "nemojax-native"
    except RuntimeError:  # there is no home directory
        return Path(tempfile.gettempdir()) / f"nemojax-native-{os.getuid()}"


def compiled(directory: Path) -> Path:
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
    flags = next((x for x in cpuinfo.read_text().splitlines() if x.startswith(("flags", "Features"))), "")
    made_of = [SOURCE.read_text(), " ".join(command), told, jax.__version__, flags]
    library = directory / f"int8-{hashlib.sha256(chr(0).join(made_of).encode()).hexdigest()[:16]}.so"
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
