import ctypes

import pytest

from nemojax.kernels import compiling, native
from tests.helpers.compiler import COMPILER, needs_compiler


def test_without_a_compiler_the_reason_is_clear(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.CompileError, match=r"no C\+\+ compiler"):
        native.build_library(tmp_path)


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.unavailable_reason.__wrapped__() == "$NEMOJAX_NATIVE is 0"


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
