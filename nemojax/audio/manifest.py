"""Manifests: a recording a line, in NeMo's form, beside its files or beside a tar that holds them."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemojax.audio.source import Recording
from nemojax.errors import AudioError

LONGEST_S = 1e9


def expand_manifest(path: str | Path) -> list[Recording | AudioError]:
    """The recordings of a manifest, in its order; for a line that names none, an AudioError in its place.

    A line is a JSON object: `audio_filepath`, where relative, is relative to the manifest, and else the name
    of a member of the uncompressed tar that is called as the manifest is (`dev.tar` beside `dev.jsonl`);
    `offset` and `duration`, in seconds, choose a part of it; `text` is what is said. More is ignored.
    A manifest that can't be read is one AudioError.
    """
    return [entry for _, entry in numbered_entries(path)]


def numbered_entries(path: str | Path) -> list[tuple[int, Recording | AudioError]]:
    """What `expand_manifest` gives, each with the number of its line; 0 for what is wrong with the whole."""
    try:
        manifest = Manifest(path)
        entries = [(number, manifest.entry(number, line)) for number, _, line in manifest.lines()]
    except AudioError as error:
        return [(0, error)]
    return entries or [(0, AudioError(f"{path}: the manifest names no recording"))]


class Manifest:
    """A manifest that is read line by line, and never held whole.

    Raises:
      AudioError: it can't be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.open("rb").close()
            self._tar = _Tar(self.path.with_suffix(".tar"))
        except OSError as error:
            raise AudioError(f"{path}: the manifest can't be read ({error.strerror})") from None

    def lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Every line that is not blank: its number, from 1 on, the byte that it begins at, itself."""
        try:
            with self.path.open("rb") as file:
                offset = 0
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, offset, line
                    offset += len(line)
        except OSError as error:
            raise AudioError(f"{self.path}: the manifest can't be read ({error.strerror})") from None

    def line(self, offset: int) -> bytes:
        """The line that begins at a byte."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.readline()

    def entry(self, number: int, line: bytes) -> Recording | AudioError:
        """The recording that a line names, or what is wrong with it."""
        try:
            return _recording(line, self.path.parent, self._tar)
        except ValueError as error:
            return AudioError(f"{self.path}: line {number}: {error}")


class _Tar:
    """Where the files in a tar are, if there is one. `fault` is what kept it from being read to its end."""

    def __init__(self, path: Path):
        self.path, self.fault = path, ""
        self.members: dict[str, tuple[int, int]] = {}  # first byte, size in bytes
        if not path.is_file():
            return
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isreg() and not member.issparse():
                        self.members[_normal(member.name)] = member.offset_data, member.size
        except tarfile.TarError as error:
            self.fault = str(error)


def _normal(name: str) -> str:
    return name.removeprefix("./")


def _recording(line: bytes, directory: Path, tar: _Tar) -> Recording:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise ValueError(f"it is {type(entry).__name__}, not a JSON object")
    name = entry.get("audio_filepath")
    if not isinstance(name, str) or not name:
        raise ValueError(f"its audio_filepath is {name!r}, not the name of a file")
    offset_s, duration_s = _seconds(entry, "offset"), _seconds(entry, "duration")
    if duration_s == 0:
        raise ValueError("its duration is 0")
    text = entry.get("text")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"its text is {text!r}, not text")
    part = offset_s or 0.0, duration_s
    member = tar.members.get(_normal(name))
    if not os.path.exists(directory / name):
        if member is not None:
            return Recording(tar.path, name, *part, *member, text=text)
        if tar.fault:
            raise ValueError(
                f"{name} is not beside the manifest, and {tar.path} can't be read to its end ({tar.fault})"
            )
    return Recording(directory / name, name, *part, text=text)


def _seconds(entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LONGEST_S:
        raise ValueError(f"its {key} is {value!r}, not a number of seconds")
    return float(value)
