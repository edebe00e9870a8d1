"""What a result depends on besides its settings: hardware, how busy it is, versions, commit, time."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Goes into each row of results; of packages that are not installed the version is None.

    `cores` are those this process may use, `load` is the average number of busy ones over the last minute. The
    commit ends in "-dirty" where files differ from it, and is None outside a git checkout.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load": load_average(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in packages},
    }


def load_average() -> float:
    return round(os.getloadavg()[0], 1)


def device() -> str:
    """What jax computes on: the kind of its first device, such as "cpu"."""
    import jax  # only here: a process that starts others need not import it

    return jax.devices()[0].device_kind


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:  # no git here
        return None
    return described.stdout.strip() or None


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return model[1] if model else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
