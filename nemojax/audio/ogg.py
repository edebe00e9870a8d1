"""The pages of an Ogg file: where its streams begin and end."""

import zlib
from typing import NamedTuple

from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.raw import Report
from nemojax.audio.window import PatchedWindow, Window

HEADER_BYTES = 27
READ_BYTES = 1 << 20
SEARCH_BYTES = 64 << 20  # maximum distance to the next page
MAX_PAGES = 3_000_000  # 16 hours of pages of 20 ms
MAX_STREAMS = 10_000
FLAGS_BYTE, CHECKSUM_BYTE = 5, 22  # in the header of a page
FIRST_PAGE, LAST_PAGE = 2, 4  # flags of a page
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggStream(NamedTuple):
    """One of the streams that follow each other in a file; streams side by side count as one."""

    begin: int  # bytes
    end: int
    ended: bool  # it has the mark of its end
    last_page: int  # where its last page begins


def streams_of(window: Window, report: Report) -> list[OggStream]:
    """Returns the streams of a file, of whole pages. Bytes that belong to no page are notes.

    Raises:
      UnnamedAudioError: it has no whole page, or more than MAX_PAGES.
    """
    streams: list[OggStream] = []
    begin = position = last_page = skipped = 0
    header_pages = ended = False
    buffer, buffer_begin = b"", 0
    for _ in range(MAX_PAGES):
        offset = position - buffer_begin
        if not 0 <= offset <= len(buffer) - HEADER_BYTES - 255:
            buffer, buffer_begin, offset = window.bytes_at(position, READ_BYTES), position, 0
        if buffer[offset : offset + 4] != b"OggS":
            found = _next_page(window, position)
            skipped += (window.size if found is None else found) - position
            if found is None:
                break
            position = found
            continue
        size = HEADER_BYTES + (buffer[offset + 26] if len(buffer) > offset + 26 else 0)
        size += sum(buffer[offset + HEADER_BYTES : offset + size])
        if position + size > window.size:
            report.unused(window.size - position, "a part of an Ogg page", incomplete=True)
            break
        flags = buffer[offset + 5]
        if flags & FIRST_PAGE and not header_pages and position > begin:
            streams.append(OggStream(begin, position, ended, last_page))
            begin, ended = position, False
            if len(streams) == MAX_STREAMS:
                raise UnnamedAudioError(f"it holds more than {MAX_STREAMS} Ogg streams")
        header_pages, ended = bool(flags & FIRST_PAGE), bool(flags & LAST_PAGE) or ended
        last_page = position
        position += size
    else:
        raise UnnamedAudioError(f"it holds more than {MAX_PAGES} Ogg pages")
    if position > begin:
        streams.append(OggStream(begin, position, ended, last_page))
    if not streams:
        raise UnnamedAudioError(f"truncated: it ends after {window.size} bytes, inside its first Ogg page")
    if skipped:
        report.unused(skipped, "in no Ogg page")
    return streams


def with_end(stream: Window, last_page: int) -> Window:
    """Returns a stream whose last page, which begins at byte `last_page`, has the mark of the end.

    Without the mark, libsndfile gives up before the last samples.
    """
    page = bytearray(stream.bytes_at(last_page, stream.size - last_page))
    page[FLAGS_BYTE] |= LAST_PAGE
    page[CHECKSUM_BYTE : CHECKSUM_BYTE + 4] = bytes(4)
    page[CHECKSUM_BYTE : CHECKSUM_BYTE + 4] = checksum(bytes(page)).to_bytes(4, "little")
    return PatchedWindow(stream, {last_page: bytes(page[:HEADER_BYTES])})


def checksum(page: bytes) -> int:
    """Returns the checksum of a page: a CRC of zlib's polynomial that takes the bits in the opposite order."""
    reflected = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _next_page(window: Window, position: int) -> int | None:
    end = min(window.size, position + SEARCH_BYTES)
    while position < end:
        found = window.bytes_at(position, READ_BYTES).find(b"OggS")
        if found >= 0:
            return position + found
        position += READ_BYTES - 3
    return None
