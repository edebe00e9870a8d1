"""Checks of a file's header before it is decoded: the sample format of a wav, and whether the file is complete.

libsndfile decodes a truncated wav or ogg file as a shorter one, without an error.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from nemojax.audio.window import Window

MAX_OGG_PAGE_BYTES = 27 + 255 + 255 * 255
# The header of a wav that is written to a pipe can't give its size. Programs write 0, or a size from here on
# (2 GiB - 4 KiB).
UNKNOWN_BYTES = 0x7FFF_F000
EXTENSIBLE = 0xFFFE  # this encoding refers to the subformat in the same chunk
W64_MAGIC = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"  # Sony's wav with 64-bit sizes

# libsndfile's names of the encodings that it decodes without a header, by the wav encoding (1: PCM, 3: float) and bits
SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
}


class UnnamedAudioError(ValueError):
    """Reports audio that can't be read. `source.py` raises it again as an AudioError that names the recording."""


class SampleFormat(NamedTuple):
    """The layout of samples in bytes, and the number of those bytes."""

    rate_hz: int
    channels: int = 1
    encoding: int = 1  # wav's number: 1 is PCM, 3 is float
    bits: int = 16
    big_endian: bool = False
    frame_bytes: int = 2  # one sample of every channel
    data_bytes: int | None = None  # None: up to the end of the file
    header_bytes: int = 0

    @property
    def subtype(self) -> str | None:
        """libsndfile's name of the encoding; None if it can't be decoded block by block without the header."""
        consistent = self.channels > 0 and self.frame_bytes * 8 == self.channels * self.bits
        return SUBTYPES.get((self.encoding, self.bits)) if consistent else None


def is_wav(head: bytes) -> bool:
    """Returns whether the first 12 bytes of a file are those of a wav."""
    return head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"


def read_wav_header(head: bytes, read: Callable[[int], bytes]) -> SampleFormat:
    """Reads the header of a wav up to its first sample.

    Args:
      head: the first 12 bytes.
      read: reads the bytes after them; it returns fewer than requested only at the end.

    Raises:
      UnnamedAudioError: the header is truncated, or has no format.
    """
    big_endian = head[:4] == b"RIFX"
    order, position, format_chunk, long_bytes = ">" if big_endian else "<", len(head), b"", None
    while True:
        chunk = read(8)
        position += len(chunk)
        name, size = struct.unpack(order + "4sI", chunk) if len(chunk) == 8 else (b"", 0)
        if name == b"data":
            break
        body = read(size + size % 2)
        position += len(body)
        if not name or len(body) < size:
            raise UnnamedAudioError(f"truncated: it ends after {position} bytes, inside its header")
        if name == b"fmt ":
            format_chunk = body
        if name == b"ds64":
            long_bytes = int.from_bytes(body[8:16], "little")
    if len(format_chunk) < 16:
        raise UnnamedAudioError("its header does not give the sample format (no complete 'fmt ' chunk)")
    encoding, channels, rate_hz, _, frame_bytes, bits = struct.unpack(order + "HHIIHH", format_chunk[:16])
    if encoding == EXTENSIBLE and len(format_chunk) >= 26:
        (encoding,) = struct.unpack(order + "H", format_chunk[24:26])
    (riff_bytes,) = struct.unpack(order + "I", head[4:8])
    more_chunks = position < riff_bytes + 8 < UNKNOWN_BYTES
    unknown = size >= UNKNOWN_BYTES or (size == 0 and not more_chunks)
    data_bytes = long_bytes if head[:4] == b"RF64" and long_bytes else None if unknown else size
    return SampleFormat(rate_hz, channels, encoding, bits, big_endian, frame_bytes, data_bytes, position)


def check_complete(window: Window) -> SampleFormat | None:
    """Checks that a file is complete, as far as its container shows. Returns the format of a wav, None for others.

    Raises:
      UnnamedAudioError: the file is truncated, or holds more than one stream.
    """
    window.seek(0)
    head = window.read(28) or b""
    window.seek(12)
    wav = read_wav_header(head[:12], lambda n: window.read(n) or b"") if is_wav(head) else None
    if wav is not None and wav.data_bytes is not None:
        _check_size(wav.header_bytes + wav.data_bytes, window.size)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        _check_size(8 + int.from_bytes(head[4:8], "big"), window.size)
    elif head[:12] == W64_MAGIC:
        _check_size(int.from_bytes(head[16:24], "little"), window.size)
    elif head[:4] == b".snd" and head[8:12] != b"\xff\xff\xff\xff":
        _check_size(int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big"), window.size)
    elif head[:4] == b"OggS":
        _check_ogg(window, serial=head[14:18])
    return wav


def _check_size(announced: int, size: int) -> None:
    if announced > size:
        raise UnnamedAudioError(f"truncated: it ends after {size} of the {announced} bytes that its header announces")


def _check_ogg(window: Window, serial: bytes) -> None:
    """Checks that the last page is complete, ends its stream, and belongs to the stream that the file begins with."""
    window.seek(max(window.size - MAX_OGG_PAGE_BYTES, 0))
    tail = window.read(MAX_OGG_PAGE_BYTES) or b""
    page = tail[tail.rfind(b"OggS") :]
    body = 27 + page[26] if len(page) > 26 else 27
    if len(page) < body or len(page) < body + sum(page[27:body]):
        raise UnnamedAudioError(f"truncated: it ends after {window.size} bytes, inside an Ogg page")
    if not page[5] & 4:
        raise UnnamedAudioError(f"truncated: it ends after {window.size} bytes without the end of its Ogg stream")
    if page[14:18] != serial:
        raise UnnamedAudioError(
            "it holds several Ogg streams, and only the first can be decoded; convert it to a file with one stream"
        )
