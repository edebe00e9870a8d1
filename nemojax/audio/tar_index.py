"""The members of a tar file by name: the byte that each begins at, and its size. Nothing is unpacked.

`tarfile` parses each header, but its reader is not used: it keeps all headers in memory, takes a damaged one for the
end of the file, and has no limit on the long names and numbers of a hostile file.
"""

import os
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE  # bytes
# A tar file may have MAX_HEADERS headers, and another one for each BYTES_PER_HEADER bytes of its size.
MAX_HEADERS, BYTES_PER_HEADER = 100_000, 2048
MAX_EXTENSION_BYTES = 2**17  # of one long name, or of one member's pax records
MAX_EXTENSIONS = 8  # extended headers before a member; tar writes four at most
MAX_RECORDS = 200  # pax records of one member
MAX_DIGITS = 20  # of a pax number; 2^64 has as many
EXTENDED_SPARSE_BYTE = 482  # of an old sparse header: is a further block of its map next?
FURTHER_SPARSE_BYTE = 504  # the same, in such a block
PAX_TYPES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
EXTENSION_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, *PAX_TYPES, tarfile.XGLTYPE)
LINKS_AND_DEVICES = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)  # no bytes follow their headers, whatever size they give


class Member(NamedTuple):
    """The place of a member's bytes in the tar file."""

    first_byte: int
    size_bytes: int


class TarIndex:
    """The regular members of a tar file.

    Attributes:
      members: by name, without "./" before it.
      error: why the file could not be read to its end; empty if it could.
    """

    def __init__(self, path: Path):
        self.path, self.error = path, ""
        self.members: dict[str, Member] = {}
        self._stems: dict[str, Member | None] | None = None
        try:
            with path.open("rb") as file:
                _read_headers(file, self.members)
        except OSError as error:
            self.error = error.strerror or str(error)
        except (_DamagedError, tarfile.HeaderError) as error:
            self.error = str(error)

    def find(self, name: str) -> Member | None:
        """Returns the member that NeMo reads for a name in a manifest; None if there is none.

        It has the name itself, or the name without `-subK` (part number K of the same recording), or the same name with
        another extension (recordings that were encoded when the tar was made), or the name with an extension.
        """
        name = _without_directory_prefix(name)
        stem, extension = os.path.splitext(name)
        whole, sub, number = stem.rpartition("-sub")
        stems = [stem, whole, name] if sub and whole and number.isdecimal() else [stem, name]
        found = self.members.get(name) or self.members.get(stems[-2] + extension)
        return found or next((member for stem in stems if (member := self._by_stem(stem)) is not None), None)

    def _by_stem(self, stem: str) -> Member | None:
        if self._stems is None:
            self._stems = {}
            for name, member in self.members.items():
                key, extension = os.path.splitext(name)
                if extension != ".json":  # beside the audio in Lhotse's tars, with what the manifest has too
                    self._stems[key] = None if key in self._stems else member  # None: several have this name
        return self._stems.get(stem)


class _DamagedError(Exception):
    """Reports a tar file that can't be read further."""


class _Extension(NamedTuple):
    """What extended headers say of the member after them."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False


def _read_headers(file: BinaryIO, members: dict[str, Member]) -> None:
    """Adds the regular members of a tar file. Raises _DamagedError or tarfile.HeaderError."""
    position, in_a_row, headers = 0, 0, 0
    max_headers = MAX_HEADERS + file.seek(0, os.SEEK_END) // BYTES_PER_HEADER
    extension = _Extension()
    while True:
        block = _read(file, position, BLOCK)
        if not any(block):
            return  # the mark of the end
        if not headers and block.startswith(b"\x1f\x8b"):
            raise _DamagedError("it is compressed with gzip; decompress it first")
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        position, headers = position + BLOCK, headers + 1
        if headers > max_headers:
            raise _DamagedError(f"it has more than {max_headers} headers, too many for its size")
        if header.size < 0:
            raise _DamagedError("a member has a negative size")
        if header.type in EXTENSION_TYPES:
            in_a_row += 1
            if in_a_row > MAX_EXTENSIONS or header.size > MAX_EXTENSION_BYTES:
                raise _DamagedError(f"the extended headers before byte {position} are too many or too large")
            extension = _extended(extension, header.type, _read(file, position, header.size))
            position += _padded(header.size)
            continue
        if header.type == tarfile.GNUTYPE_SPARSE:
            position = _after_sparse_map(file, position, block[EXTENDED_SPARSE_BYTE])
        size = header.size if extension.size is None else extension.size
        if header.isreg() and header.type != tarfile.GNUTYPE_SPARSE and not extension.sparse:
            name = header.name if extension.name is None else extension.name
            members[_without_directory_prefix(name)] = Member(position, size)
        if header.type not in LINKS_AND_DEVICES:
            position += _padded(size)
        extension, in_a_row = _Extension(), 0


def _extended(extension: _Extension, kind: bytes, content: bytes) -> _Extension:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return extension._replace(name=_decoded(content.partition(b"\0")[0]))
    if kind not in PAX_TYPES:
        return extension  # the name of a link, or records for all members, which have no use here
    records = _pax_records(content)
    if (path := records.get(b"path")) is not None:
        extension = extension._replace(name=_decoded(path))
    if (size := records.get(b"size")) is not None:
        if not size.isdigit() or len(size) > MAX_DIGITS:
            raise _DamagedError("a member's size is not a number of bytes")
        extension = extension._replace(size=int(size))
    return extension._replace(sparse=extension.sparse or any(key.startswith(b"GNU.sparse.") for key in records))


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Returns the records of an extended header; each is its length in bytes, a space, "key=value", and a line break.

    Raises _DamagedError.
    """
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position]:
        length, _, _ = content[position : position + MAX_DIGITS].partition(b" ")
        begin, end = position + len(length) + 1, position + int(length) if length.isdigit() else 0
        key, equals, value = content[begin : end - 1].partition(b"=")
        if (
            not begin < end <= len(content)
            or not equals
            or content[end - 1] != ord("\n")
            or len(records) == MAX_RECORDS
        ):
            raise _DamagedError("the pax records of a member are damaged, or too many")
        records[key] = value
        position = end
    return records


def _after_sparse_map(file: BinaryIO, position: int, more: int) -> int:
    """Returns the position after the blocks of a sparse map."""
    while more:
        more = _read(file, position, BLOCK)[FURTHER_SPARSE_BYTE]
        position += BLOCK
    return position


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    try:
        file.seek(position)
    except (OSError, ValueError):  # beyond what a file can have
        raise _DamagedError(f"a member begins at byte {position}, which no file has") from None
    content = file.read(size)
    if len(content) < size:
        raise _DamagedError(f"it ends after {file.seek(0, os.SEEK_END)} bytes, without the mark of its end")
    return content


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _without_directory_prefix(name: str) -> str:
    return name.removeprefix("./")
