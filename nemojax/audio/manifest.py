"""Manifests: one recording per line, its audio in a file or in a tar file beside the manifest.

A line is a JSON object with NeMo's keys, or a Lhotse cut (`lhotse_cut.py`). NeMo's keys are

    audio_filepath            a member of the line's shard; or else a file beside the manifest, a member of the tar file
                              with the manifest's name (`tar_shards.py`), or a file in the working directory.
                              `audio_filename` is another name of this key.
    offset, duration          the part of the file to use, in seconds
    text                      the reference transcript. Without it, `text_filepath` names a file that has it, or
                              `normalized_text` is taken.
    shard_id                  number of the tar file of a tarred dataset
    _skipme                   lines where this is true are left out

Other keys are not used; results repeat them. A manifest may be compressed with gzip.
"""

import io
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, NamedTuple

from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.manifest_entry import MAX_LINE_BYTES, is_left_out, parse_entry, recording_of
from nemojax.audio.shard_names import manifest_paths
from nemojax.audio.source import Recording
from nemojax.audio.tar_shards import TarShards
from nemojax.audio.window import Window
from nemojax.errors import AudioError, shown

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")  # of manifests
GZIP = b"\x1f\x8b"
# A gzip file may decompress to at most this many times its size, plus this many bytes.
MAX_RATIO, MAX_EXTRA_BYTES = 50, 64 << 20
COPY_BYTES = 1 << 20  # decompressed at a time
MAX_SKIPPED_BYTES = 2**28  # of a line that is too long to be read; a file with a longer one is no manifest


class Line(NamedTuple):
    """A line of a manifest."""

    number: int  # from 1; 0 for an error of the whole manifest
    recording: Recording | AudioError  # an error if the line is invalid


class Request(NamedTuple):
    """A line of a manifest with all its keys, which its result repeats."""

    number: int  # from 1
    recording: Recording | AudioError  # an error if the line is invalid
    keys: dict[str, Any]  # empty if the line is not a JSON object


def expand_manifest(path: str | Path) -> list[Recording | AudioError]:
    """Returns the recordings of a manifest in its order, with an AudioError in the place of an invalid line.

    A manifest that can't be read gives one AudioError.
    """
    return [line.recording for line in numbered_entries(path)]


def numbered_entries(path: str | Path) -> list[Line]:
    """Returns the lines of a manifest; the recordings are those of `expand_manifest`.

    A name with a range of numbers stands for several manifests, see `shard_names.py`.
    """
    try:
        manifests = manifest_paths(path)
    except AudioError as error:
        return [Line(0, error)]
    lines: list[Line] = []
    for manifest in manifests:
        try:
            lines += [Line(request.number, request.recording) for request in Manifest(manifest).requests()]
        except AudioError as error:
            lines.append(Line(0, error))
    return lines or [Line(0, AudioError(f"{shown(str(path))}: the manifest names no recording"))]


class Manifest:
    """A manifest that is read line by line, and never held in memory as a whole.

    Raises:
      AudioError: it can't be read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._decompressed: io.BufferedIOBase | None = None
        try:
            status = os.stat(self.path)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError("Is a directory")
            if not stat.S_ISREG(status.st_mode):
                raise OSError("it is not a regular file")
            with self.path.open("rb") as file:
                if file.read(2) == GZIP:
                    file.seek(0)
                    self._decompressed = _decompress(file, status.st_size)
            self._tars = TarShards(self.path)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise self._unreadable(error) from None

    def requests(self) -> Iterator[Request]:
        """Yields the lines, in their order."""
        for number, _, content in self.contents():
            yield self.parse(number, content)

    def contents(self) -> Iterator[tuple[int, int, bytes]]:
        """Yields the number (from 1), the first byte and the content of every line that is not blank or left out.

        Of a line of more than MAX_LINE_BYTES the beginning is returned, which is an error where it is parsed.
        """
        try:
            with self._open() as file:
                number = offset = 0
                while content := file.readline(MAX_LINE_BYTES + 1):
                    number, size = number + 1, len(content)
                    if number == 1:
                        self._check_first(content)
                    last = content
                    while not last.endswith(b"\n") and (last := file.readline(MAX_LINE_BYTES)):
                        size += len(last)
                        if size > MAX_SKIPPED_BYTES:
                            raise OSError(f"line {number} is longer than {MAX_SKIPPED_BYTES} bytes")
                    if content.strip() and not is_left_out(content):
                        yield number, offset, content
                    offset += size
        except OSError as error:
            raise self._unreadable(error) from None

    def read(self, number: int, offset: int) -> Request:
        """Returns line `number`, which begins at byte `offset`."""
        with self._open() as file:
            file.seek(offset)
            return self.parse(number, file.readline(MAX_LINE_BYTES + 1))

    def parse(self, number: int, content: bytes) -> Request:
        """Returns line `number` with the recording that it names, or with the error in it."""
        keys: dict[str, Any] = {}
        try:
            keys = parse_entry(content)
            return Request(number, recording_of(keys, self.path.parent, self._tars), keys)
        except UnnamedAudioError as error:
            return Request(number, AudioError(f"{shown(str(self.path))}: line {number}: {error}"), keys)

    def _open(self) -> io.BufferedIOBase:
        if self._decompressed is None:
            return self.path.open("rb")
        size = self._decompressed.seek(0, os.SEEK_END)
        return io.BufferedReader(Window(self._decompressed, 0, size))

    def _check_first(self, content: bytes) -> None:
        """Raises AudioError where the first line shows that the file is no JSON lines in UTF-8."""
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise AudioError(f"{shown(str(self.path))}: the manifest is UTF-16; save it as UTF-8")
        begin = content.removeprefix(b"\xef\xbb\xbf").strip()
        if begin in (b"[", b"{") or begin.startswith(b"[{"):
            raise AudioError(
                f"{shown(str(self.path))}: the manifest is one JSON text; write each recording as one line "
                "(jq -c '.[]' makes them of an array)"
            )

    def _unreadable(self, error: Exception) -> AudioError:
        reason = "its gzip data are cut short" if isinstance(error, EOFError) else str(error)
        if isinstance(error, zlib.error | BadGzipFile):
            reason = "its gzip data are damaged"
        reason = getattr(error, "strerror", None) or reason
        return AudioError(f"{shown(str(self.path))}: the manifest can't be read ({reason})")


def _decompress(file: io.BufferedIOBase, size: int) -> io.BufferedIOBase:
    """Returns the content of a gzip file, in a file without a name."""
    limit = MAX_RATIO * size + MAX_EXTRA_BYTES
    target = io.BufferedRandom(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - the manifest keeps it open
    source = GzipFile(fileobj=file)
    while piece := source.read(COPY_BYTES):
        if target.tell() + len(piece) > limit:
            raise OSError(f"it decompresses to more than {MAX_RATIO} times its size")
        target.write(piece)
    target.flush()
    return target
