"""Opens a .nemo archive: a tar, or a tar.gz from older versions of NeMo.

Nothing is extracted to a named path: members are read where they lie. A tar.gz is first inflated to a file
without a name. Whatever a well-meant archive has no need of (absolute paths, "..", links, devices, a name
twice) is refused, though reading in place could not be misled by it.
"""

import gzip
import os
import tarfile
import tempfile
import zlib
from pathlib import Path

from convert.errors import ConvertError, reason, short
from convert.files import Window, _File, open_file

BLOCK = tarfile.BLOCKSIZE
MEMBERS = 1000  # at most; NeMo writes about five
# Weights hardly shrink (floats: by less than a tenth), settings and vocabularies do.
INFLATED_RATIO, INFLATED_SPARE = 20, 64 << 20
COPY_BYTES = 1 << 20


def open_nemo(path: str | Path, scratch: str | Path | None = None) -> dict[str, Window]:
    """The regular members of a .nemo archive by name, without a leading "./".

    Args:
      scratch: where a tar.gz is inflated, to a file without a name; by default the system's place for
        temporary files.

    Raises:
      ConvertError: not a tar or tar.gz, damaged, cut short, or with a member that has no place in it.
    """
    window = open_file(path)
    magic = window.read(4)
    if not magic:
        raise ConvertError(f"{path} is empty")
    if magic[:2] == b"PK":
        raise ConvertError(f"{path} is a zip file, not a .nemo archive (a tar); bare torch checkpoints are not read")
    try:
        if magic[:2] == b"\x1f\x8b":
            window = _inflate(window, scratch)
        return _members(window)
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise ConvertError(f"{path} is not a whole .nemo archive (tar or tar.gz): {reason(error)}") from None
    except OSError as error:
        raise ConvertError(f"{path} can't be read: {error.strerror or error}") from None


def _inflate(window: Window, scratch: str | Path | None) -> Window:
    limit = INFLATED_RATIO * window.size + INFLATED_SPARE
    window.seek(0)
    with tempfile.TemporaryFile(dir=scratch) as target:
        source = gzip.GzipFile(fileobj=window)
        while piece := source.read(COPY_BYTES):
            if target.tell() + len(piece) > limit:
                raise ConvertError(f"inflates to more than {INFLATED_RATIO} times its size, as weights do not")
            target.write(piece)
        target.flush()
        return Window(_File(os.dup(target.fileno())))


def _members(window: Window) -> dict[str, Window]:
    members: dict[str, Window] = {}
    window.seek(0)
    end = 0
    with tarfile.open(fileobj=window, mode="r:") as tar:
        for count, info in enumerate(tar, start=1):
            if count > MEMBERS:
                raise ConvertError(f"has more than {MEMBERS} members")
            end = info.offset_data + -(-info.size // BLOCK) * BLOCK
            name = _member_name(info)
            if info.size < 0 or info.offset_data + info.size > window.size:
                raise ConvertError(f"is cut short in its member {short(name)}")
            if info.isdir():
                continue
            if name in members:
                raise ConvertError(f"has the member {short(name)} twice")
            members[name] = window.part(info.offset_data, info.size)
    # tarfile takes a damaged header for the end; the true end is two blocks of zeros
    window.seek(end)
    tail = window.read(2 * BLOCK)
    if len(tail) < 2 * BLOCK or any(tail):
        last = f"after its member {short(name)}" if members else "at its start"
        raise ConvertError(f"is damaged or cut short {last}")
    if not members:
        raise ConvertError("has no members")
    return members


def _member_name(info: tarfile.TarInfo) -> str:
    """The member's name without "./". Raises ConvertError for what is not a plain file or directory."""
    if not (info.isreg() or info.isdir()) or info.issparse():
        kind = "a link" if info.islnk() or info.issym() else "neither a file nor a directory"
        raise ConvertError(f"has the member {short(info.name)}, which is {kind}; refused")
    parts = info.name.split("/")
    if info.name.startswith("/") or ".." in parts or "\\" in info.name or "\0" in info.name:
        raise ConvertError(f"has the member {short(info.name)}, a path that leads elsewhere; refused")
    return "/".join(part for part in parts if part not in ("", "."))
