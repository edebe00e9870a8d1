"""`nemojax doctor`: what a report of a bug needs to say about a machine."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nemojax import __version__, compilation, hub
from nemojax.cli.options import Json
from nemojax.errors import NemojaxError, shown
from nemojax.text.json_lines import json_line

PACKAGES: tuple[str, ...] = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "tensorstore",
    "sentencepiece",
    "soundfile",
)
PACKAGES += ("soxr", "huggingface-hub", "grain", "matplotlib", "torch", "nemo_toolkit", "transformers")
GPU_PACKAGES = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "jax-rocm7-plugin")  # listed where installed
# settings that change what is computed, where, or what is kept; no other variable is printed, it might be a secret
VARIABLES: tuple[str, ...] = ("JAX_", "XLA_", "NEMOJAX_", "LIBTPU_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
VARIABLES += ("CXX", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE")
GIBIBYTE = 2**30


def doctor(json: Json = False) -> int:
    """Print what a report of a bug needs: versions, devices, kernels, compiler and caches."""
    found = {name: section() for name, section in SECTIONS.items()}
    if json:
        print(json_line(found, sys.stdout.encoding or "utf-8"))
        return 0
    width = max(len(name) for rows in found.values() for name in rows)
    for name, rows in found.items():
        print("\n".join([f"{name}:", *(f"  {key:<{width}}  {shown(value)}" for key, value in rows.items())]))
    return 0


def versions() -> dict[str, str]:
    """Returns the versions of nemojax, Python and the packages that it uses."""
    rows = {"nemojax": __version__, "python": platform.python_version(), "system": platform.platform()}
    rows |= {name: _version(name) or "not installed" for name in PACKAGES}
    return rows | {name: version for name in GPU_PACKAGES if (version := _version(name))}


def devices() -> dict[str, str]:
    """Returns the processor and the devices of jax, or why jax has none."""
    rows = {"processor": f"{_processor()}, {_cores()} cores for this process"}
    if (memory := _memory_bytes()) is not None:
        rows["memory"] = f"{memory / GIBIBYTE:.1f} GiB"

    def found() -> str:
        import jax

        from nemojax.device import default_device

        default_device()  # its errors are sentences
        return "; ".join(f"{device.id}: {device.device_kind} ({device.platform})" for device in jax.devices())

    return rows | {"jax": _or_reason(found)}


def kernels() -> dict[str, str]:
    """Returns which C++ kernels run here, or why none do, and the compiler."""

    def native() -> str:
        from nemojax.kernels import native

        if (reason := native.unavailable_reason()) is not None:
            return f"not available: {reason}"
        carried = native.carried_library()
        return f"compiled in the wheel ({carried.stem})" if carried else "compiled on this machine"

    def tiles() -> str:
        from nemojax.kernels import native

        return native.tiles() or "none"

    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    return {
        "C++ kernels": _or_reason(native),
        "tiles (AMX)": _or_reason(tiles),
        "compiler": _first_line([*compiler.split(), "--version"]) if compiler else "none",
        "ffmpeg": _first_line(["ffmpeg", "-version"]) if shutil.which("ffmpeg") else "not installed",
    }


def caches() -> dict[str, str]:
    """Returns the directories that keep compiled programs and converted models, and what they hold."""

    def compiled() -> str:
        directory = compilation.keep()
        return "nothing is kept" if directory is None else _contents(directory)

    return {
        "compiled programs": _or_reason(compiled),
        "converted models": _or_reason(lambda: _contents(hub.models_directory())),
    }


def environment() -> dict[str, str]:
    """Returns the variables of the environment that change what is computed or kept."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(VARIABLES)} or {"none": "set"}


SECTIONS: dict[str, Callable[[], dict[str, str]]] = {
    "versions": versions,
    "devices": devices,
    "kernels": kernels,
    "caches": caches,
    "environment": environment,
}


def _or_reason(find: Callable[[], str]) -> str:
    """Returns what is found, or the error: a broken installation is what this command is for."""
    try:
        return find()
    except NemojaxError as error:
        return f"error: {error}"
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str:
    """Returns the first line that a program prints, or why it can't run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"error: {command[0]}: {error}"
    return (done.stdout or done.stderr).partition("\n")[0]


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _contents(directory: Path) -> str:
    """Returns a directory with the number and size of the files in it, at any depth."""
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    size = f"{len(sizes):,} files, {sum(sizes) / GIBIBYTE:.2f} GiB" if sizes else "empty"
    return f"{directory}: {size if directory.is_dir() else 'not there yet'}"
