"""Opens a .nemo archive: a tar, a tar.gz from older versions of NeMo, or one that was packed with bzip2 or xz.

Nothing is extracted: members are read inside the archive. A compressed one is first decompressed to a file without a
name.
Rejects anything a legitimate archive does not contain (absolute paths, "..", links, devices, a name twice), though
reading without extracting would be safe from it.
"""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, reason, short
from convert.files import FilePart, LimitedPart, OpenFile, open_file

BLOCK = tarfile.BLOCKSIZE  # bytes
MAX_MEMBERS = 1000  # NeMo writes about five
MAX_HEADER_BYTES = 4 << 20  # of all headers of the tar, extended ones included; NeMo writes 512 for each member
ZSTD = b"\x28\xb5\x2f\xfd"  # the first bytes; Python 3.11 does not read it
SETTINGS = "model_config.yaml"  # what NeMo looks for in an archive
# files that an operating system adds to a folder that is packed by hand
LITTER = ("._", ".DS_Store")
# A compressed archive may decompress to at most this many times its size, plus this many bytes. Weights compress by
# less than a tenth, settings and vocabularies by more.
MAX_RATIO, MAX_EXTRA_BYTES = 20, 64 << 20
# A longer run of digits in a header is no number of an archive; tarfile's time grows with the square of its length.
LONG_NUMBER = re.compile(rb"[0-9]{100}")
INCOMPLETE = "is not a complete .nemo archive (a tar, or a compressed one)"
COPY_BYTES = 1 << 20  # decompressed at a time
MAX_XZ_BYTES = 256 << 20  # of memory for decompressing


class HeaderPart(LimitedPart):
    """A file from which tarfile reads headers; it refuses a header that tarfile would parse for minutes."""

    def __init__(self, file: FilePart) -> None:
        super().__init__(file, MAX_HEADER_BYTES)

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        if LONG_NUMBER.search(buffer[:count]):
            raise ConvertError("has a number of a hundred digits in a header; refused")
        return count


def open_nemo(path: str | Path, scratch: str | Path | None = None) -> dict[str, FilePart]:
    """Returns the regular members of a .nemo archive by name, without a leading "./".

    Args:
      scratch: directory in which a compressed archive is decompressed, to a file without a name; by default the
        system's.

    Raises:
      ConvertError: the file is not a tar or a compressed one, is damaged or cut short, or has a member that is refused.
    """
    file = open_file(path)
    magic = file.read(6)
    if not magic:
        raise ConvertError(f"{path} is empty")
    if magic.startswith(ZSTD):
        raise ConvertError(f"{path} is compressed with zstd; run unzstd on it first")
    if magic[:2] == b"PK":
        raise ConvertError(f"{path} is a zip file, not a .nemo archive (a tar); torch checkpoints are not supported")
    try:
        if (stream := _decompressed(file, magic)) is not None:
            file = _copy(stream, file.size, scratch)
        return _settings_folder(_members(file))
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
    except OSError as error:
        if error.errno is not None:
            raise ConvertError(f"{path} can't be read: {error.strerror or error}") from None
        raise ConvertError(f"{path} {INCOMPLETE}: {reason(error)}") from None  # of compressed data
    except MemoryError:
        raise
    except RecursionError:
        raise ConvertError(f"{path} has headers of headers without end; refused") from None
    except Exception as error:  # tarfile raises errors of many types for damaged headers
        raise ConvertError(f"{path} {INCOMPLETE}: {reason(error)}") from None


def _decompressed(file: FilePart, magic: bytes) -> Iterator[bytes] | None:
    """Returns the content of a compressed file in pieces, by its first bytes; None if it is not compressed."""
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        gzip_file = gzip.GzipFile(fileobj=file)
        return iter(lambda: gzip_file.read(COPY_BYTES), b"")
    if magic.startswith(b"BZh"):
        bz2_file = bz2.BZ2File(file)
        return iter(lambda: bz2_file.read(COPY_BYTES), b"")
    return _xz_pieces(file) if magic == b"\xfd7zXZ\0" else None


def _xz_pieces(file: FilePart) -> Iterator[bytes]:
    """Yields the content of an xz file. Raises lzma.LZMAError, also where it needs more memory than MAX_XZ_BYTES."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_BYTES)
    while not decompressor.eof:
        data = file.read(COPY_BYTES) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            raise EOFError("it is cut short")
        yield decompressor.decompress(data, COPY_BYTES)


def _copy(pieces: Iterator[bytes], size: int, scratch: str | Path | None) -> FilePart:
    """Writes pieces to a temporary file without a name, which is deleted with its last part.

    Args:
      size: bytes of the compressed file, which bound those of the pieces.
    """
    limit = MAX_RATIO * size + MAX_EXTRA_BYTES
    with tempfile.TemporaryFile(dir=scratch) as target:
        for piece in pieces:
            if target.tell() + len(piece) > limit:
                raise ConvertError(f"decompresses to more than {MAX_RATIO} times its size; refused")
            target.write(piece)
        target.flush()
        return FilePart(OpenFile(os.dup(target.fileno())))


def _members(file: FilePart) -> dict[str, FilePart]:
    """Returns the regular members of a tar by name."""
    members: dict[str, FilePart] = {}
    file.seek(0)
    end = 0
    with tarfile.open(fileobj=HeaderPart(file), mode="r:") as tar:
        for count, info in enumerate(tar, start=1):
            if count > MAX_MEMBERS:
                raise ConvertError(f"has more than {MAX_MEMBERS} members")
            end = info.offset_data + -(-info.size // BLOCK) * BLOCK
            name = _member_name(info)
            if info.size < 0 or info.offset_data + info.size > file.size:
                raise ConvertError(f"is cut short in its member {short(name)}")
            if info.isdir() or name.rpartition("/")[2].startswith(LITTER):
                continue
            if name in members:
                raise ConvertError(f"has the member {short(name)} twice")
            members[name] = file.part(info.offset_data, info.size)
    # tarfile treats a damaged header as the end; the real end is two blocks of zeros
    file.seek(end)
    tail = file.read(2 * BLOCK)
    if len(tail) < 2 * BLOCK or any(tail):
        where = f"after its member {short(name)}" if members else "at its start"
        raise ConvertError(f"is damaged or cut short {where}")
    if not members:
        raise ConvertError("has no members")
    return members


def _settings_folder(members: dict[str, FilePart]) -> dict[str, FilePart]:
    """Returns the members of the one folder that holds the settings, by their names in it, if they are in a folder."""
    folders = [name.removesuffix(SETTINGS) for name in members if name.endswith(f"/{SETTINGS}")]
    if SETTINGS in members or len(folders) != 1:
        return members
    return {name.removeprefix(folders[0]): part for name, part in members.items() if name.startswith(folders[0])}


def _member_name(info: tarfile.TarInfo) -> str:
    """Returns a member's name without "./". Raises ConvertError unless it is a plain file or directory."""
    if not (info.isreg() or info.isdir()) or info.issparse():
        kind = "a link" if info.islnk() or info.issym() else "neither a file nor a directory"
        raise ConvertError(f"has the member {short(info.name)}, which is {kind}; refused")
    parts = info.name.split("/")
    if info.name.startswith("/") or ".." in parts or "\\" in info.name or "\0" in info.name:
        raise ConvertError(f"has the member {short(info.name)}, a path that leads out of the archive; refused")
    return "/".join(part for part in parts if part not in ("", "."))
