"""The C++ compiler of this machine, which the native kernels need."""

import shutil

import pytest

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")
