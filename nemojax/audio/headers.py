"""What the bytes of an audio file say about it before a decoder does: a wav's sample format, whether all is there.

libsndfile, which decodes, takes a cut wav or ogg file for a shorter one, and an mp3 for as long as a guess.
"""

import io
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # the largest
# A wav written to a pipe can't know its length; programs write sizes from here on (2 GiB - 4 KiB) instead, or 0.
UNKNOWN_BYTES = 0x7FFF_F000


class Fault(ValueError):
    """What is wrong with some audio, and where; the message does not yet name it."""


class Window(io.RawIOBase):
    """`size` bytes of an open file from `first` on, as a file of their own: a member of a tar, say.

    With `stretch` it claims to be so many times as long, and is zero past its end except to one who reads
    up to there.
    """

    def __init__(self, file: Any, first: int, size: int, stretch: int = 1):
        self.size = size
        self._file, self._first, self._stretch, self._at = file, first, stretch, 0

    def stretched(self) -> "Window":
        return Window(self._file, self._first, self.size, stretch=100)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size * self._stretch}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at > self.size and self._stretch > 1:
            data = bytes(len(buffer))
        else:
            self._file.seek(self._first + self._at)
            data = self._file.read(max(min(len(buffer), self.size - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class SampleFormat(NamedTuple):
    """How samples are laid out in bytes, and how many bytes of them there are."""

    rate_hz: int
    channels: int = 1
    encoding: int = 1  # 1 is PCM, 3 is float; others are left to libsndfile
    bits: int = 16
    order: str = "<"
    frame_bytes: int = 2  # one sample of every channel
    data_bytes: int | None = None  # None: to the end
    header_bytes: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether `samples` decodes it."""
        whole = self.channels > 0 and self.frame_bytes * 8 == self.channels * self.bits
        return whole and (self.encoding, self.bits) in {(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)}

    def samples(self, data: bytes) -> np.ndarray:
        """Whole frames of bytes as float32 [n, channels]; integers are scaled to -1 to 1."""
        values: np.ndarray
        kind, scale = ("f", 1.0) if self.encoding == 3 else ("i", 2.0 ** (self.bits - 1))
        if self.bits == 8:
            values = np.frombuffer(data, np.uint8) - np.float32(128)  # the one unsigned kind
        elif self.bits == 24:
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, slice(1, 4) if self.order == "<" else slice(0, 3)] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            values = wide.view(f"{self.order}i4")[:, 0] >> 8
        else:
            values = np.frombuffer(data, f"{self.order}{kind}{self.bits // 8}")
        with np.errstate(over="ignore"):
            return (values / scale).astype(np.float32).reshape(-1, self.channels)


def is_wav(head: bytes) -> bool:
    return head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE"


def read_wav_header(head: bytes, read: Callable[[int], bytes]) -> SampleFormat:
    """Reads a wav's header up to its first sample.

    Args:
      head: the first 12 bytes.
      read: gives the bytes after them, fewer than asked for only at the end.

    Raises:
      Fault: it ends before the samples, or has no format.
    """
    order, at, format_chunk, long_bytes = ">" if head[:4] == b"RIFX" else "<", len(head), b"", None
    while True:
        chunk = read(8)
        at += len(chunk)
        name, size = struct.unpack(order + "4sI", chunk) if len(chunk) == 8 else (b"", 0)
        if name == b"data":
            break
        body = read(size + size % 2)
        at += len(body)
        if not name or len(body) < size:
            raise Fault(f"truncated: it ends after {at} bytes, inside its header")
        if name == b"fmt ":
            format_chunk = body
        if name == b"ds64":
            long_bytes = int.from_bytes(body[8:16], "little")
    if len(format_chunk) < 16:
        raise Fault("its header does not say how samples are stored (no whole 'fmt ' chunk)")
    encoding, channels, rate_hz, _, frame_bytes, bits = struct.unpack(order + "HHIIHH", format_chunk[:16])
    if encoding == 0xFFFE and len(format_chunk) >= 26:  # "extensible": the encoding proper comes later
        (encoding,) = struct.unpack(order + "H", format_chunk[24:26])
    (riff_bytes,) = struct.unpack(order + "I", head[4:8])
    more_chunks = at < riff_bytes + 8 < UNKNOWN_BYTES
    unknown = size >= UNKNOWN_BYTES or (size == 0 and not more_chunks)
    data_bytes = long_bytes if head[:4] == b"RF64" and long_bytes else None if unknown else size
    return SampleFormat(rate_hz, channels, encoding, bits, order, frame_bytes, data_bytes, at)


def check_whole(window: Window) -> SampleFormat | None:
    """Checks that a file is all there, as far as its container tells. Returns a wav's format, None for others.

    Raises:
      Fault: it is cut off, or holds more than one stream.
    """
    window.seek(0)
    head = window.read(28) or b""
    window.seek(12)
    wav = read_wav_header(head[:12], lambda n: window.read(n) or b"") if is_wav(head) else None
    if wav is not None and wav.data_bytes is not None:
        _check_size(wav.header_bytes + wav.data_bytes, window.size)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        _check_size(8 + int.from_bytes(head[4:8], "big"), window.size)
    elif head[:12] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb":  # Sony's 64-bit wav
        _check_size(int.from_bytes(head[16:24], "little"), window.size)
    elif head[:4] == b".snd" and head[8:12] != b"\xff\xff\xff\xff":
        _check_size(int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big"), window.size)
    elif head[:4] == b"OggS":
        _check_ogg(window, serial=head[14:18])
    return wav


def _check_size(announced: int, size: int) -> None:
    if announced > size:
        raise Fault(f"truncated: it ends after {size} of the {announced} bytes that its header announces")


def _check_ogg(window: Window, serial: bytes) -> None:
    window.seek(max(window.size - OGG_PAGE_BYTES, 0))
    tail = window.read(OGG_PAGE_BYTES) or b""
    page = tail[tail.rfind(b"OggS") :]
    body = 27 + page[26] if len(page) > 26 else 27
    if len(page) < body or len(page) < body + sum(page[27:body]):
        raise Fault(f"truncated: it ends after {window.size} bytes, inside an Ogg page")
    if not page[5] & 4:
        raise Fault(f"truncated: it ends after {window.size} bytes without the mark of an Ogg stream's end")
    if page[14:18] != serial:
        raise Fault("it holds several Ogg streams, of which only the first can be decoded; make it one")


def mp3_counts_frames(window: Window) -> bool:
    """Whether an mp3's first frame says how many there are (a Xing, Info or VBRI header)."""
    window.seek(0)
    tag = window.read(10) or b""
    size = 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
    window.seek(size if tag[:3] == b"ID3" else 0)
    first = window.read(1024) or b""
    return any(name in first for name in (b"Xing", b"Info", b"VBRI"))
