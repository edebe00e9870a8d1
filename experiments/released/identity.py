"""The files of a model against those of the release: sizes and checksums."""

import json
from pathlib import Path

from convert.source import sha256
from experiments.released.known import DIFFERENT, EQUAL, UNKNOWN, Check, File, Release
from nemojax.checkpoint import CONFIG, ORIGIN, has_weights
from nemojax.errors import ConfigError


def check_files(model: Path, release: Release) -> list[Check]:
    """Compares the files of a model with those of a release, and reads each once.

    Args:
      model: a NeMo archive, a Hugging Face directory, or a native checkpoint, which records the checksums of the files
        that it was converted from.

    Raises:
      ConfigError: it is none of these.
    """
    if model.is_file():
        return _checks({model.name: model}, release)
    if is_native(model):
        return _recorded(model, release)
    files = {path.name: path for path in sorted(model.iterdir()) if path.name in release.files}
    if not files and not (model / CONFIG).is_file():
        raise ConfigError(f"{model} is neither a NeMo archive, nor a Hugging Face directory, nor a native checkpoint")
    return _checks(files or {CONFIG: model / CONFIG}, release)


def is_native(model: Path) -> bool:
    """Returns whether a directory is a native checkpoint."""
    return has_weights(model) and (model / ORIGIN).is_file()


def check_parameters(count: int, release: Release) -> Check:
    """Compares the number of parameters."""
    verdict = EQUAL if count == release.parameters else DIFFERENT
    return Check("parameters", f"{count:,}", f"{release.parameters:,}", verdict)


def check_converted(native: Path, model: Path) -> None:
    """Raises ConfigError where a native checkpoint was not converted from the files of `model` as they are now."""
    for name, digest in _recorded_files(native).items():
        file = model / name if model.is_dir() else model
        if not file.is_file() or sha256(file) != digest:
            raise ConfigError(f"{native} was converted from another model than {model}; name another --output")


def _checks(files: dict[str, Path], release: Release) -> list[Check]:
    checks = []
    for name, path in files.items():
        known, size = _known(name, release), path.stat().st_size
        if known is None:
            checks.append(Check(f"{name}, bytes", f"{size:,}", "", UNKNOWN))
            continue
        checks.append(Check(f"{name}, bytes", f"{size:,}", f"{known.size_bytes:,}", _equal(size == known.size_bytes)))
        if known.sha256:
            checks.append(_digest(name, sha256(path), known))
    return checks


def _recorded(model: Path, release: Release) -> list[Check]:
    """Returns the checks of a native checkpoint: its origin names the files that it was converted from."""
    files = _recorded_files(model)
    if not files:
        return [Check("the files that it was converted from", "not recorded", "", UNKNOWN)]
    known = {name: _known(name, release) for name in files}
    return [
        Check(f"{name}, SHA-256", f"{digest[:16]}…", "", UNKNOWN)
        if (file := known[name]) is None or not file.sha256
        else _digest(name, digest, file)
        for name, digest in files.items()
    ]


def _recorded_files(native: Path) -> dict[str, str]:
    """Returns the checksums of the files that a native checkpoint was converted from, by name; none if it was not."""
    try:
        recorded = json.loads((native / ORIGIN).read_text()).get("files", {})
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{native / ORIGIN} can't be read: {error}") from None
    return {str(name): str(digest) for name, digest in recorded.items()} if isinstance(recorded, dict) else {}


def _known(name: str, release: Release) -> File | None:
    """Returns the file of a release by its name; an archive may have been renamed."""
    if name.endswith(".nemo"):
        return next((file for other, file in release.files.items() if other.endswith(".nemo")), None)
    return release.files.get(name)


def _digest(name: str, digest: str, known: File) -> Check:
    return Check(f"{name}, SHA-256", f"{digest[:16]}…", f"{known.sha256}…", _equal(digest.startswith(known.sha256)))


def _equal(same: bool) -> str:
    return EQUAL if same else DIFFERENT
