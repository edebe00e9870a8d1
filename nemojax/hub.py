"""Names of models: that of the package, and those on the hub, which are converted once into the user's cache.

nemojax does not import the converters. `python -m convert` runs as a process of its own: its memory, which holds the
weights of another toolkit, is free again when the model is loaded.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from nemojax import companions
from nemojax.bundled import SMALL, SMALL_NAME
from nemojax.errors import CheckpointError

# owner/model, or owner/model@revision
NAME = re.compile(r"(?P<owner>\w[\w.-]*)/(?P<model>\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?")
DEFAULT_REVISION = "main"
ARCHIVE = ".nemo"  # the end of a file's name, and of no model's
_PACKAGES = Path(__file__).parents[1]  # where nemojax is


def resolve(model: str | Path) -> Path:
    """Returns the directory of a model: itself if it is a path, or that of a name: "small", or a name on the hub.

    "small" is the model of the package, unless the working directory has a file or directory of this name.
    A name such as "nvidia/nemotron-speech-streaming-en-0.6b" may end with "@" and a branch, tag or commit. It is
    downloaded and converted when it is first used; a line on standard error says so. Later uses need no network.

    Raises:
      CheckpointError: the name can't be downloaded or converted, or looks like a mistyped directory; says why.
    """
    if str(model) == SMALL_NAME and not os.path.lexists(model):
        return SMALL
    name = NAME.fullmatch(str(model))
    if name is None or os.path.lexists(model) or str(model).endswith(ARCHIVE):
        return Path(model)
    try:
        cached = _cached(name)
        if not cached.is_dir():
            _refuse_mistyped(str(model), name["owner"])
            cached.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(cached.parent / f".{cached.name}.lock"):
                if not cached.is_dir():  # no other process has converted it meanwhile
                    _convert(f"{name['owner']}/{name['model']}", name["revision"], cached)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        raise CheckpointError(
            f"the cache of models can't be used: {error}; set XDG_CACHE_HOME to a directory that can be written, or "
            f"convert {model} with nemojax-convert"
        ) from None
    return cached


def is_here(model: str | Path) -> bool:
    """Returns whether `resolve` needs no download: a path, or a name whose model is in the cache."""
    name = NAME.fullmatch(str(model))
    if name is None or os.path.lexists(model) or str(model).endswith(ARCHIVE) or os.path.isdir(name["owner"]):
        return True
    return _cached(name).is_dir()


def _cached(name: re.Match[str]) -> Path:
    """Returns the directory in the cache of a name on the hub."""
    revision = name["revision"] or DEFAULT_REVISION
    return models_directory() / name["owner"] / name["model"] / revision.replace("/", "--")


def _refuse_mistyped(model: str, owner: str) -> None:
    """Raises CheckpointError for a name whose first part is a directory here: the rest is mistyped, more likely."""
    if os.path.isdir(owner):
        raise CheckpointError(
            f"there is no directory {model}, and {owner} is a directory here, so it is not looked for on the hub; "
            f"if it is a name on the hub, convert it with: nemojax-convert hf {model.partition('@')[0]} OUT"
        )


def models_directory() -> Path:
    """Returns the directory of converted models, in `$XDG_CACHE_HOME` or the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nemojax" / "models"


def _convert(name: str, revision: str | None, directory: Path) -> None:
    """Downloads and converts a model of the hub in another process."""
    print(f"{name} is downloaded, and converted once into {directory}", file=sys.stderr, flush=True)
    for unfinished in directory.parent.glob(f".{directory.name}.*/"):  # of a process that was killed
        shutil.rmtree(unfinished, ignore_errors=True)
    notes = run_converter("hf", name, str(directory), *([] if revision is None else ["--revision", revision]))
    for note in notes[:-1]:  # the last line sums up
        print(note, file=sys.stderr)


def run_converter(*arguments: str) -> list[str]:
    """Runs a command of the converters in another process; returns the lines that it prints.

    Raises:
      CheckpointError: it can't be done; says why.
    """
    # -P: a folder named convert where the user works is not the converters
    command = [sys.executable, "-P", "-m", "convert", *arguments]
    places = dict.fromkeys(map(str, (companions.directory(), _PACKAGES)))  # one in a clone
    paths = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}  # the device's memory stays free
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        *_, line = done.stderr.splitlines() or [f"the converter ended with exit code {done.returncode}"]
        raise CheckpointError(line.removeprefix("error: "))
    return done.stdout.splitlines()
