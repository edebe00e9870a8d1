"""The facts that a result depends on besides its settings: hardware and its load, versions, commit, time."""

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nemojax import companions

GPU_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Returns the facts about machine and code that each row has.

    `cores` are those that this process may use, `load` is the average number of busy cores over the last minute, `gpus`
    is there only where there are GPUs. The commit is the one at the process's start; it ends in "-dirty" where files
    differ from it, and is None outside a git checkout. The version of a package that is not installed is None.
    """
    gpus = _gpus()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        **({"gpus": gpus} if gpus else {}),
        "load": load_average(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in packages},
    }


def load_average() -> float:
    return round(os.getloadavg()[0], 1)


def device() -> str:
    """Returns the kind of jax's first device, such as "cpu"."""
    import jax  # only here: a process that starts others need not import it

    return str(jax.devices()[0].device_kind)


@functools.cache
def _commit() -> str | None:
    # an installed copy may be inside a checkout of something else
    return None if companions.installed() else _output_of(["git", "describe", "--always", "--dirty"]) or None


@functools.cache
def _gpus() -> list[dict[str, Any]]:
    """Returns name, memory and driver version of each GPU, as `nvidia-smi` lists them."""
    found = []
    for line in _output_of(GPU_QUERY).splitlines():
        name, mebibytes, driver = (part.strip() for part in line.split(","))
        # an accelerator that shares its host's memory has no number here
        memory_bytes = int(mebibytes) * 2**20 if mebibytes.isdigit() else None
        found.append({"name": name, "memory_bytes": memory_bytes, "driver": driver})
    return found


def _output_of(command: Sequence[str]) -> str:
    """Runs a command in this directory; returns "" where it is not installed or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    facts = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.+)", facts)
    name = model[1] if model else platform.processor()
    return f"{name} with AMX" if "amx_int8" in facts else name  # which such a name need not tell


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
