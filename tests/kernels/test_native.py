import ctypes
import fcntl
import platform
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest

from nemojax import compilation
from nemojax.kernels import compiling, native, processors
from tests.helpers.compiler import COMPILER, needs_compiler
from tests.helpers.messages import whole


def test_without_a_compiler_the_reason_is_clear(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.CompileError, match=r"no C\+\+ compiler"):
        native.build_library(tmp_path)


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    monkeypatch.setattr(native, "_loaded", native._loaded.__wrapped__)
    assert native.unavailable_reason() == "$NEMOJAX_NATIVE is 0"
    assert not native.available()


@needs_compiler
def test_a_library_that_cannot_be_used_is_compiled_again(tmp_path, monkeypatch):
    """That of a wheel may be older than XLA supports, or damaged."""
    source, carried, built = (tmp_path / name for name in ("small.cc", "carried.so", "built.so"))
    source.write_text('extern "C" int one() { return 1; }')
    for library in (carried, built):
        subprocess.run([str(COMPILER), "-shared", "-fPIC", str(source), "-o", str(library)], check=True)

    def register(library):
        if library._name == str(carried):
            raise RuntimeError("the handler's API version (0.1) is incompatible")
        return library

    monkeypatch.setattr(native, "_register", register)
    monkeypatch.setattr(native, "carried_library", lambda: carried)
    monkeypatch.setattr(native, "build_library", lambda directory: built)
    assert native._loaded.__wrapped__()._name == str(built)
    (tmp_path / "damaged.so").write_bytes(b"")
    monkeypatch.setattr(native, "carried_library", lambda: tmp_path / "damaged.so")
    assert native._loaded.__wrapped__()._name == str(built)
    monkeypatch.setattr(native, "build_library", lambda directory: carried)
    assert native._loaded.__wrapped__() == "the handler's API version (0.1) is incompatible"


def test_a_wheel_carries_a_library_for_this_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "COMPILED", tmp_path)
    level = processors.Level("mine", frozenset({"mmx"}), ())
    monkeypatch.setattr(processors, "LEVELS", {platform.machine(): (level,)})
    monkeypatch.setattr(compilation, "processor", lambda: "x86_64 flags : mmx fpu")
    assert native.carried_library() is None
    (tmp_path / "mine.so").touch()
    assert native.carried_library() == tmp_path / "mine.so"
    monkeypatch.setattr(compilation, "processor", lambda: "x86_64 flags : fpu")
    assert native.carried_library() is None


@needs_compiler
def test_sources_become_one_library(tmp_path, monkeypatch):
    (tmp_path / "one.cc").write_text('extern "C" int one() { return 1; }')
    (tmp_path / "two.cc").write_text('extern "C" int one(); extern "C" int two() { return one() + 1; }')
    monkeypatch.setattr(compiling, "SOURCES", (tmp_path / "one.cc", tmp_path / "two.cc"))
    compiling.compile_library([COMPILER], tmp_path / "both.so")
    assert ctypes.CDLL(str(tmp_path / "both.so")).two() == 2
    (tmp_path / "two.cc").write_text("int two() { return missing; }")
    with pytest.raises(native.CompileError, match=r"failed: .*two.cc.*missing"):
        compiling.compile_library([COMPILER], tmp_path / "both.so")


def test_a_compiler_that_is_killed_has_failed(tmp_path):
    with pytest.raises(native.CompileError, match=whole("sh failed: out of memory")):
        compiling.compile_library(["sh", "-c", "echo out of memory >&2; kill -9 $$"], tmp_path / "killed.so")


@needs_compiler
def test_what_was_compiled_is_kept(tmp_path, monkeypatch):
    small = tmp_path / "small.cc"  # compiles in no time
    small.write_text('extern "C" int one() { return 1; }')
    for module in (native, compiling):
        monkeypatch.setattr(module, "SOURCES", (small,))
    first = native.build_library(tmp_path)
    made = first.stat().st_mtime_ns
    assert native.build_library(tmp_path) == first and first.stat().st_mtime_ns == made
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DANOTHER"))
    assert native.build_library(tmp_path) != first


@needs_compiler
def test_a_library_is_kept_for_all_that_it_is_made_of(tmp_path, monkeypatch):
    source, header = tmp_path / "small.cc", tmp_path / "small.h"
    for path in (source, header):
        path.write_text("// first")
    monkeypatch.setattr(native, "SOURCES", (source,))
    monkeypatch.setattr(native, "HEADERS", (header,))
    monkeypatch.setattr(native, "compile_library", lambda command, library: library.touch())
    libraries = [native.build_library(tmp_path)]
    for path in (source, header):
        path.write_text("// second")
        libraries.append(native.build_library(tmp_path))
    monkeypatch.setattr(compilation, "processor", lambda: "x86_64 another")
    libraries.append(native.build_library(tmp_path))
    for module in (native.jax, native.jaxlib.version):
        monkeypatch.setattr(module, "__version__", "0.0.1")
        libraries.append(native.build_library(tmp_path))
    assert len(set(libraries)) == 6


@needs_compiler
def test_of_processes_that_begin_together_one_compiles(tmp_path, monkeypatch):
    both, compiled = threading.Barrier(2), []

    def compile_slowly(command, library):
        compiled.append(library)
        time.sleep(0.2)
        library.touch()

    def build(_):
        both.wait()
        return native.build_library(tmp_path)

    monkeypatch.setattr(native, "compile_library", compile_slowly)
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(build, range(2))
    assert first == second and len(compiled) == 1


@needs_compiler
def test_where_files_have_no_locks_it_is_compiled_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "compile_library", lambda command, library: library.touch())
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(95, "Operation not supported")))
    assert native.build_library(tmp_path).exists()
