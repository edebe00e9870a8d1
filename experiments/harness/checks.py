"""Checks of settings: each raises a ConfigError that names the flag."""

import importlib.util
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nemojax.errors import ConfigError


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def at_least(minimum: float, settings: Any, *names: str) -> None:
    """Checks settings that are numbers, or tuples of numbers; None passes."""
    for name in names:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one < minimum:
                raise ConfigError(f"{flag(name)} must be at least {minimum:g}, not {one}")


def one_of(known: Collection[Any], settings: Any, *names: str) -> None:
    """Checks settings that are names, or tuples of names."""
    for name in names:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if one not in known:
                raise ConfigError(f"{flag(name)}: {one!r} is none of {', '.join(map(str, known))}")


def check_manifests(manifests: Sequence[Path]) -> None:
    if not manifests:
        raise ConfigError("name at least one manifest")


EXTRAS = {  # of nemojax, by the modules that they install and that commands import
    "train": ("grain",),
    "experiments": ("matplotlib", "whisper_normalizer"),
    "notebooks": ("jupytext", "nbclient", "nbformat"),
    "docs": ("pdoc",),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
    "datasets": ("datasets",),
    "parity": ("torch", "nemo", "transformers", "onnx", "onnxruntime", "onnxscript", "sherpa_onnx"),
}


def check_installed(*modules: str) -> None:
    """Checks that modules of an extra can be imported, without importing them."""
    if missing := [name for name in dict.fromkeys(modules) if importlib.util.find_spec(name) is None]:
        raise ConfigError(needed(*missing))


def needed(*missing: str) -> str:
    """Returns the sentence that says how to install modules of an extra."""
    (extra,) = {extra for extra, modules in EXTRAS.items() if set(missing) & set(modules)}
    clone = " (in a clone, `make parity` sets up such an environment, .venv-parity)" if extra == "parity" else ""
    verb = "is" if len(missing) == 1 else "are"
    return f'{", ".join(missing)} {verb} not installed: pip install "nemojax[{extra}]"{clone}'
