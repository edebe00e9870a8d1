"""The tar files of a manifest, and which of them has the audio of a line.

A tar file has the manifest's name (`dev.tar` beside `dev.jsonl`), or is a shard of NeMo's tarred datasets:

    audio_0.tar, audio_1.tar, ...        the shards
    tarred_audio_manifest.json           all lines; `shard_id` is the number of a line's shard
    sharded_manifests/manifest_0.json    the lines of one shard each

or of Lhotse's (Shar): `recording.000000.tar` beside `cuts.000000.jsonl.gz`.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.tar_index import Member, TarIndex
from nemojax.errors import shown

# as NeMo finds the numbers in names, also after other words
SHARD = re.compile(r".*?audio[^/]*_(\d{1,9})[^/]*\.tar")
SHARDED_MANIFEST = re.compile(r".*?manifest[^/]*_(\d{1,9})[^/]*\.jsonl?")
LHOTSE_CUTS = re.compile(r"cuts\.(\d+)\.jsonl")
MAX_SHARD = 999_999_999


class TarMember(NamedTuple):
    """A member of a tar file, and the file."""

    path: Path
    member: Member


class TarShards:
    """The tar files beside a manifest and, for shards, one folder up. Each is read when it is first needed.

    Args:
      manifest: path of the manifest.
    """

    def __init__(self, manifest: Path):
        name = manifest.name.removesuffix(".gz")
        cuts = LHOTSE_CUTS.fullmatch(name)
        own = manifest.with_name(f"recording.{cuts[1]}.tar" if cuts else os.path.splitext(name)[0] + ".tar")
        self._own = own if own.is_file() else None
        self._folders = (manifest.parent, manifest.parent / "..")
        number = SHARDED_MANIFEST.fullmatch(name)
        self._number = int(number[1]) if number else None
        self._paths: dict[int, Path | None] = {}
        self._indexes: dict[Path, TarIndex] = {}
        self._numbered: list[dict[int, list[str]]] | None = None  # shards with other names, in each folder

    def has_shard(self, shard_id: Any) -> bool:
        """Returns whether there is the shard of a line. Raises UnnamedAudioError if there are several."""
        number = self._number_of(shard_id)
        return number is not None and self._shard(number) is not None

    def find(self, name: str, shard_id: Any) -> TarMember | None:
        """Returns the member for a name in the manifest; None if no tar file is expected to have it.

        Args:
          shard_id: of the line; what is not a number of a shard is ignored.

        Raises:
          UnnamedAudioError: the tar file that should have it is missing, is damaged, or does not have it.
        """
        number = self._number_of(shard_id)
        shard = None if number is None else self._shard(number)
        for path in filter(None, (self._own, shard)):
            index = self._index(path)
            if (member := index.find(name)) is not None:
                return TarMember(path, member)
            if index.error:
                raise UnnamedAudioError(
                    f"{shown(name)} is not beside the manifest, and {shown(str(path))} can't be read to its end "
                    f"({index.error})"
                )
        if shard is not None:
            raise UnnamedAudioError(f"{shown(name)} is neither beside the manifest nor in {shown(str(shard))}")
        if number is not None and number == shard_id and self._own is None:
            raise UnnamedAudioError(
                f"{shown(name)} is not beside the manifest, and there is no audio_{number}.tar there or one folder up"
            )
        return None

    def _number_of(self, shard_id: Any) -> int | None:
        """Returns the number of a line's shard: its own, or the manifest's."""
        return shard_id if type(shard_id) is int and 0 <= shard_id <= MAX_SHARD else self._number

    def _index(self, path: Path) -> TarIndex:
        if path not in self._indexes:
            self._indexes[path] = TarIndex(path)
        return self._indexes[path]

    def _shard(self, number: int) -> Path | None:
        """Returns the tar file of a shard; None if there is none. Raises UnnamedAudioError if there are several."""
        if number not in self._paths:
            self._paths[number] = self._find_shard(number)
        return self._paths[number]

    def _find_shard(self, number: int) -> Path | None:
        for folder in self._folders:
            if (path := folder / f"audio_{number}.tar").is_file():
                return path
        if self._numbered is None:
            self._numbered = [_numbered(folder) for folder in self._folders]
        for folder, numbered in zip(self._folders, self._numbered, strict=True):
            if len(found := numbered.get(number, [])) > 1:
                raise UnnamedAudioError(
                    f"shard {number} is in {shown(found[0])} or {shown(found[1])}; rename one to audio_{number}.tar"
                )
            if found:
                return folder / found[0]
        return None


def _numbered(folder: Path) -> dict[int, list[str]]:
    """Returns the names of the shards in a folder by their numbers."""
    found: dict[int, list[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return found
    for name in names:
        if match := SHARD.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    return found
