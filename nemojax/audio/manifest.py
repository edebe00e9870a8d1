"""NeMo manifests: one recording per line, its audio in a file beside the manifest or in a tar file beside it."""

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nemojax.audio.channels import check_channel
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.source import Recording
from nemojax.errors import AudioError

MAX_SECONDS = 1e9  # of an offset or a duration


class Line(NamedTuple):
    """A line of a manifest."""

    number: int  # from 1; 0 for an error of the whole manifest
    recording: Recording | AudioError  # an error if the line is invalid


def expand_manifest(path: str | Path) -> list[Recording | AudioError]:
    """Returns the recordings of a manifest in its order, with an AudioError in the place of an invalid line.

    A line is a JSON object. `audio_filepath` is a path, relative to the manifest, or else the name of a member of the
    uncompressed tar file with the manifest's name (`dev.tar` beside `dev.jsonl`); `offset` and `duration`, in
    seconds, select a part of it; `channel_selector` is an index of a channel, several, or "average"; `text` is the
    reference transcript. Other keys are ignored.
    A manifest that can't be read gives one AudioError.
    """
    return [line.recording for line in numbered_entries(path)]


def numbered_entries(path: str | Path) -> list[Line]:
    """Returns the lines of a manifest; the recordings are those of `expand_manifest`."""
    try:
        manifest = Manifest(path)
        lines = [manifest.parse(number, content) for number, _, content in manifest.contents()]
    except AudioError as error:
        return [Line(0, error)]
    return lines or [Line(0, AudioError(f"{path}: the manifest names no recording"))]


class Manifest:
    """A manifest that is read line by line, and never held in memory as a whole.

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

    def contents(self) -> Iterator[tuple[int, int, bytes]]:
        """Yields the number (from 1), the first byte and the content of every line that is not blank."""
        try:
            with self.path.open("rb") as file:
                offset = 0
                for number, content in enumerate(file, 1):
                    if content.strip():
                        yield number, offset, content
                    offset += len(content)
        except OSError as error:
            raise AudioError(f"{self.path}: the manifest can't be read ({error.strerror})") from None

    def read(self, number: int, offset: int) -> Line:
        """Returns line `number`, which begins at byte `offset`."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return self.parse(number, file.readline())

    def parse(self, number: int, content: bytes) -> Line:
        """Returns line `number` with the recording that it names, or with the error in it."""
        try:
            return Line(number, _recording(content, self.path.parent, self._tar))
        except UnnamedAudioError as error:
            return Line(number, AudioError(f"{self.path}: line {number}: {error}"))


class _Tar:
    """The members of a tar file, if there is one. `error` is the reason why it could not be read to its end."""

    def __init__(self, path: Path):
        self.path, self.error = path, ""
        self.members: dict[str, tuple[int, int]] = {}  # first byte, size in bytes
        if not path.is_file():
            return
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isreg() and not member.issparse():
                        self.members[_member_name(member.name)] = member.offset_data, member.size
        except tarfile.TarError as error:
            self.error = str(error)


def _member_name(name: str) -> str:
    return name.removeprefix("./")


def _recording(content: bytes, directory: Path, tar: _Tar) -> Recording:
    try:
        entry = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnnamedAudioError(f"it is not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise UnnamedAudioError(f"it is {type(entry).__name__}, not a JSON object")
    name = entry.get("audio_filepath")
    if not isinstance(name, str) or not name:
        raise UnnamedAudioError(f"its audio_filepath is {name!r}, not the name of a file")
    offset_s, duration_s = _seconds(entry, "offset"), _seconds(entry, "duration")
    if duration_s == 0:
        raise UnnamedAudioError("its duration is 0")
    text = entry.get("text")
    if text is not None and not isinstance(text, str):
        raise UnnamedAudioError(f"its text is {text!r}, not a string")
    part = offset_s or 0.0, duration_s
    channel = check_channel(entry.get("channel_selector"))
    if not os.path.exists(directory / name):
        member = tar.members.get(_member_name(name))
        if member is not None:
            return Recording(tar.path, name, *part, *member, text=text, channel=channel)
        if tar.error:
            raise UnnamedAudioError(
                f"{name} is not beside the manifest, and {tar.path} can't be read to its end ({tar.error})"
            )
    return Recording(directory / name, name, *part, text=text, channel=channel)


def _seconds(entry: dict[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_SECONDS:
        raise UnnamedAudioError(f"its {key} is {value!r}, not a number of seconds")
    return float(value)
