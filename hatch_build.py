"""Compiles the C++ kernels into a wheel, once for each level of instructions: `make wheel` turns it on.

Otherwise a wheel is pure Python, and its kernels are compiled where they are used.
"""

import os
import platform
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# XLA runs a library that was compiled with headers as old as its own or older, so these are the oldest jaxlib's
HEADERS = "jaxlib>=0.10,<0.11"
# The library brings its C++ runtime, without what it does not use
COMPILE = ("-ffunction-sections", "-fdata-sections")
LINK = ("-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL", "-Wl,--gc-sections", "-Wl,--strip-all")


class CompiledKernels(BuildHookInterface[Any]):
    """Adds nemojax/kernels/compiled/LEVEL.so to a wheel, and names the wheel's platform."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [HEADERS, "lazy-loader"]  # the latter because nemojax imports it

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        import jaxlib

        sys.path.insert(0, self.root)
        from nemojax.kernels.compiling import compile_library
        from nemojax.kernels.processors import LEVELS

        include = Path(jaxlib.__file__).parent / "include"
        compiler = os.environ.get("CXX", "c++").split()
        machine = platform.machine()
        for level in LEVELS[machine]:
            library = Path(self.directory) / "kernels" / machine / f"{level.name}.so"
            library.parent.mkdir(parents=True, exist_ok=True)
            compile_library([*compiler, *level.options, *COMPILE, "-I", str(include)], library, LINK)
            build_data["force_include"][str(library)] = f"nemojax/kernels/compiled/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
