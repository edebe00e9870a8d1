"""Loads the C++ kernels and registers them with XLA.

A wheel may carry them compiled (`processors.LEVELS`). Otherwise a C++ compiler is needed once (`c++`, or the one that
$CXX names); the library is kept beside the compiled steps. Without either, or with NEMOJAX_NATIVE=0, products take the
plain path, which is slower. NEMOJAX_TILES=0 leaves AMX unused where a processor has it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np

from nemojax import compilation
from nemojax.kernels import processors
from nemojax.kernels.compiling import FLAGS, HEADERS, SOURCES, CompileError, compile_library

PRODUCT, INT8_PRODUCT = "nemojax_panel_product", "nemojax_int8_panel_product"
# the same on kernels laid out for tiles, computed by AMX or emulated
TILE_PRODUCT = {processors.AMX: "nemojax_tile_product", processors.EMULATED: "nemojax_emulated_tile_product"}
INT8_TILE_PRODUCT = {
    processors.AMX: "nemojax_int8_tile_product",
    processors.EMULATED: "nemojax_int8_emulated_tile_product",
}
FIXED_ATTENTION, FIXED_NORM = "nemojax_fixed_attention", "nemojax_fixed_norm"
FIXED_LOG_SUM_EXP = "nemojax_fixed_log_sum_exp"
FIXED_CONVOLUTION, FIXED_GATED_CONVOLUTION = "nemojax_fixed_convolution", "nemojax_fixed_gated_convolution"
FIXED = (FIXED_ATTENTION, FIXED_NORM, FIXED_LOG_SUM_EXP, FIXED_CONVOLUTION, FIXED_GATED_CONVOLUTION)
TARGETS = (PRODUCT, INT8_PRODUCT, *TILE_PRODUCT.values(), *INT8_TILE_PRODUCT.values(), *FIXED)
PANEL_BYTES = (2, 4)  # of a number that `lay_out_panels` lays out
SWITCH = "NEMOJAX_NATIVE"
COMPILED = Path(__file__).with_name("compiled")  # a wheel's libraries


def available() -> bool:
    """Returns whether the kernels can be called on this machine's CPU; the first call may compile them."""
    return unavailable_reason() is None


def unavailable_reason() -> str | None:
    """Returns why the kernels can't be called; None if they can."""
    loaded = _loaded()
    return loaded if isinstance(loaded, str) else None


@functools.cache
def tiles() -> str | None:
    """Returns which tiles compute products on this machine's CPU (`processors.tiles`); None if none do.

    The first call asks the system's kernel for permission, which holds for all threads.
    """
    loaded = _loaded()
    return None if isinstance(loaded, str) else processors.tiles(lambda: bool(loaded.nemojax_request_tiles()))


def lays_out(array: Any) -> bool:
    """Returns whether the library can lay an array out: it is there, and the array lies in this machine's memory."""
    here = isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer)
    return here and [device.platform for device in array.devices()] == ["cpu"] and isinstance(_loaded(), ctypes.CDLL)


def lay_out_panels(kernel: np.ndarray, panels: np.ndarray) -> None:
    """Writes a kernel of float32 or bfloat16 as panels, while other threads go on; `panels.to_panels` does the same."""
    assert kernel.itemsize in PANEL_BYTES
    sizes = (*kernel.shape, kernel.itemsize)
    _library().nemojax_lay_out_panels(_address(kernel), *map(ctypes.c_int64, sizes), _address(panels))


def lay_out_tiles(panels: np.ndarray, tiles: np.ndarray) -> None:
    """Writes panels of int8 or bfloat16 as tiles, while other threads go on; `panels.to_tiles` does the same."""
    _library().nemojax_lay_out_tiles(_address(panels), *map(ctypes.c_int64, panels.shape[:2]), _address(tiles))


def _library() -> ctypes.CDLL:
    library = _loaded()
    assert isinstance(library, ctypes.CDLL), "ask `lays_out` first"
    return library


def _address(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    """Returns the library, whose kernels are registered, or why there is none."""
    if os.environ.get(SWITCH) == "0":
        return f"${SWITCH} is 0"
    reason = ""
    for find in (carried_library, lambda: build_library(_directory())):
        try:
            path = find()
            if path is not None:
                return _register(ctypes.CDLL(str(path)))
        except (CompileError, OSError, RuntimeError) as error:  # RuntimeError: XLA refuses the version of a library
            reason = str(error)
    return reason


def _register(library: ctypes.CDLL) -> ctypes.CDLL:
    with contextlib.suppress(RuntimeError):  # there is no CPU among jax's platforms
        jax.local_devices(backend="cpu")  # XLA checks a library's version here if it runs already, and else too late
    for target in TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return library


def carried_library() -> Path | None:
    """Returns the best library for this processor that the package carries; None if it carries none."""
    level = processors.level(platform.machine(), frozenset(compilation.processor().split()))
    library = COMPILED / f"{level.name}.so" if level else None
    return library if library and library.exists() else None


def _directory() -> Path:
    try:
        return (compilation.directory() or compilation.user_directory()) / "nemojax-native"
    except RuntimeError:  # there is no home directory
        return Path(tempfile.gettempdir()) / f"nemojax-native-{os.getuid()}"


def build_library(directory: Path) -> Path:
    """Builds the library, or finds it in `directory`, where it is kept for these sources, compiler and processor.

    Raises:
      CompileError: there is no compiler, or it failed.
      OSError: the directory can't be written.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise CompileError("there is no C++ compiler here; install g++, or name one in $CXX")
    command = [*compiler.split(), *processors.THIS_PROCESSOR]
    compiler_version = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True).stdout
    files = [path.read_text() for path in (*SOURCES, *HEADERS)]
    versions = [compiler_version, jax.__version__, jaxlib.version.__version__]  # of jaxlib are the headers
    ingredients = [*files, *command, *FLAGS, *versions, compilation.processor()]
    library = directory / f"kernels-{hashlib.sha256(chr(0).join(ingredients).encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory), compilation.announced("the C++ kernels"):
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                partial = Path(scratch) / library.name
                compile_library([*command, "-I", jax.ffi.include_dir()], partial)
                os.replace(partial, library)
    return library


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds the directory's lock where the file system has locks: of processes that begin together, one compiles."""
    with (directory / "lock").open("w") as lock:
        with contextlib.suppress(ImportError, OSError):
            import fcntl  # not on Windows

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
