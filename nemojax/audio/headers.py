"""The header of a wav: the layout of its samples, and where they end, whatever sizes it gives."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import Literal

from nemojax.audio.raw import (
    CHECKED_SAMPLES,
    Report,
    SampleFormat,
    decode_samples,
    is_unlike_speech,
    missing,
)
from nemojax.audio.window import PatchedWindow, Window

# The header of a wav that is written to a pipe can't give its size. Programs write 0, or a size from here on
# (2 GiB - 4 KiB).
UNKNOWN_BYTES = 0x7FFF_F000
UNKNOWN_W64_BYTES = 2**62
W64_MAGIC = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"  # Sony's wav with 64-bit sizes
LONG_MAGICS = (b"RF64", b"BW64")  # wavs with 64-bit sizes in a chunk of their own
EXTENSIBLE = 0xFFFE  # this encoding refers to the subformat in the same chunk
HEADER_ITSELF_BYTES = 44  # of a wav without other chunks; some programs count them among the samples
AU_HEADER_BYTES = 24  # without a text
AU_ORDERS: dict[bytes, Literal["big", "little"]] = {b".snd": "big", b"dns.": "little"}  # of bytes, by the first ones
MAX_CHUNKS = 10_000
MAX_FORMAT_BYTES = 4096
SKIP_BYTES = 1 << 20
MIN_CONTINUATION_S = 0.1  # shorter data after the samples are not taken for samples
SEVERAL_CHUNKS = "its samples are in several chunks: all are used"
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICS")


class UnnamedAudioError(ValueError):
    """Reports audio that can't be read. `source.py` raises it again as an AudioError that names the recording."""


def is_wav(head: bytes) -> bool:
    """Returns whether the first 12 bytes of a file are those of a wav."""
    return head[:4] in (b"RIFF", b"RIFX", *LONG_MAGICS) and head[8:12] == b"WAVE"


def read_wav_header(
    head: bytes, read: Callable[[int], bytes], pass_over: Callable[[int], int] | None = None
) -> SampleFormat:
    """Reads the header of a wav up to its first sample.

    Args:
      head: the first 12 bytes.
      read: reads the bytes after them; it returns fewer than requested only at the end.
      pass_over: skips a number of bytes, and returns how many there were; by default they are read and dropped.

    Raises:
      UnnamedAudioError: the header is truncated, or has no format.
    """
    big_endian = head[:4] == b"RIFX"
    order, position, format_chunk, long_bytes = ">" if big_endian else "<", len(head), b"", None
    for _ in range(MAX_CHUNKS):
        chunk = read(8)
        position += len(chunk)
        name, size = struct.unpack(order + "4sI", chunk) if len(chunk) == 8 else (b"", 0)
        if name == b"data":
            break
        body = read(min(size, MAX_FORMAT_BYTES))
        rest = size + size % 2 - len(body)
        skipped = skip(read, rest) if pass_over is None else pass_over(rest)
        position += len(body) + skipped
        if not name or len(body) + skipped < size:
            raise UnnamedAudioError(f"truncated: it ends after {position} bytes, inside its header")
        if name == b"fmt ":
            format_chunk = body
        if name == b"ds64":
            long_bytes = int.from_bytes(body[8:16], "little")
    else:
        raise UnnamedAudioError(f"its header has more than {MAX_CHUNKS} chunks before the samples")
    if len(format_chunk) < 16:
        raise UnnamedAudioError("its header does not give the sample format (no complete 'fmt ' chunk)")
    encoding, channels, rate_hz, _, frame_bytes, bits = struct.unpack(order + "HHIIHH", format_chunk[:16])
    if encoding == EXTENSIBLE and len(format_chunk) >= 26:
        (encoding,) = struct.unpack(order + "H", format_chunk[24:26])
    if frame_bytes == 0:
        frame_bytes = channels * bits // 8
    (riff_bytes,) = struct.unpack(order + "I", head[4:8])
    more_chunks = position < riff_bytes + 8 < UNKNOWN_BYTES
    unknown = size >= UNKNOWN_BYTES or (size == 0 and not more_chunks)
    data_bytes = long_bytes if head[:4] in LONG_MAGICS and long_bytes else None if unknown else size
    return SampleFormat(rate_hz, channels, encoding, bits, big_endian, frame_bytes, data_bytes, position)


def skip(read: Callable[[int], bytes], size: int) -> int:
    """Reads and drops `size` bytes. Returns how many there were."""
    left = size
    while left > 0 and (data := read(min(left, SKIP_BYTES))):
        left -= len(data)
    return size - left


def read_file_header(window: Window) -> SampleFormat:
    """Reads the header of a wav file. Raises what `read_wav_header` does."""

    def pass_over(size: int) -> int:
        skipped = max(min(size, window.size - window.tell()), 0)
        window.seek(skipped, io.SEEK_CUR)
        return skipped

    window.seek(12)
    try:
        return read_wav_header(window.bytes_at(0, 12), window.read, pass_over)
    finally:
        window.check()  # rather than an error about the bytes that were not read


def sample_bytes(window: Window, wav: SampleFormat, report: Report) -> int:
    """Returns the number of bytes of samples that a wav file really holds; what its header says wrongly is a note."""
    available = max(window.size - wav.header_bytes, 0)
    announced = wav.data_bytes
    if announced is None:
        return available
    if announced > available:
        if available < wav.frame_bytes:
            raise UnnamedAudioError(f"truncated: it holds none of the {announced} bytes of samples that it announces")
        by_itself = announced - available <= HEADER_ITSELF_BYTES + wav.frame_bytes
        report.note(missing(announced, available), incomplete=not by_itself)
        return available
    end = wav.header_bytes + announced
    kind = following(window, end, wav)
    if kind == "samples":
        report.note(f"its header announces {announced} bytes of samples, and it holds {available}: all are used")
        return available
    if kind == "unknown":
        report.unused(available - announced, "after the samples")
    return announced


def following(window: Window, end: int, wav: SampleFormat) -> str:
    """Returns what follows the announced samples: "nothing", "chunks" or tags, a "wav", "samples", or "unknown"."""
    rest = window.size - end
    if rest <= 1:
        return "nothing"
    form = ">4sI" if wav.big_endian else "<4sI"
    for begin in (end, end + end % 2):
        head = window.bytes_at(begin, 12)
        if is_wav(head):
            return "wav"
        if head.startswith(TAGS) or _are_chunks(window, begin, form):
            return "chunks"
    data = window.bytes_at(end, CHECKED_SAMPLES * max(wav.frame_bytes, 1))
    if not wav.subtype:  # compressed samples look like any other data
        return "samples" if rest >= max(wav.frame_bytes, 1) else "unknown"
    data = data[: len(data) // wav.frame_bytes * wav.frame_bytes]
    long_enough = rest >= MIN_CONTINUATION_S * wav.rate_hz * wav.frame_bytes
    return "samples" if long_enough and not is_unlike_speech(decode_samples(data, wav)) else "unknown"


def further_samples(window: Window, position: int, wav: SampleFormat) -> Iterator[SampleFormat]:
    """Yields the layout of each chunk of samples after the first one, which ends at byte `position`."""
    form = ">4sI" if wav.big_endian else "<4sI"
    for _ in range(MAX_CHUNKS):
        position += position % 2
        head = window.bytes_at(position, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(form, head)
        if not is_name(name) or is_wav(window.bytes_at(position, 12)):
            return
        if name == b"data":
            there = max(window.size - position - 8, 0)
            yield wav._replace(header_bytes=position + 8, data_bytes=min(size, there))
        position += 8 + size


def announced_end(window: Window) -> int | None:
    """Returns the end of an AIFF, au, caf or w64 file as its header has it; None for other files."""
    head = window.bytes_at(0, 24)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return 8 + int.from_bytes(head[4:8], "big")
    if head[:4] in AU_ORDERS:
        order = AU_ORDERS[head[:4]]
        return int.from_bytes(head[4:8], order) + int.from_bytes(head[8:12], order)
    if head[:4] == b"caff":
        position = 8
        for _ in range(MAX_CHUNKS):
            chunk = window.bytes_at(position, 12)
            if len(chunk) < 12 or chunk[:4] == b"caff":
                return position
            position += 12 + int.from_bytes(chunk[4:], "big")
    return int.from_bytes(head[16:24], "little") if head[:12] == W64_MAGIC else None


def joined_file(window: Window) -> Window | None:
    """Returns the file of the same format that follows an AIFF, au, caf or w64 file."""
    end = announced_end(window)
    magic = window.bytes_at(0, 4)
    for begin in () if end is None else (end, end + end % 2):
        if 0 < begin < window.size and window.bytes_at(begin, 4) == magic:
            return window.part(begin)
    return None


def joined_wav(window: Window, end: int) -> Window | None:
    """Returns the wav that follows the samples, which end at byte `end`, and the chunks after them."""
    form = ">4sI" if window.bytes_at(0, 4) == b"RIFX" else "<4sI"
    for _ in range(MAX_CHUNKS):
        for begin in (end, end + end % 2):
            if is_wav(window.bytes_at(begin, 12)):
                return window.part(begin)
        head = window.bytes_at(end + end % 2, 8)
        if len(head) < 8:
            return None
        name, size = struct.unpack(form, head)
        if not is_name(name):
            return None
        end += end % 2 + 8 + size
    return None


def is_name(name: bytes) -> bool:
    """Returns whether four bytes can be the name of a chunk."""
    return all(32 <= letter < 127 for letter in name)


def _are_chunks(window: Window, position: int, form: str) -> bool:
    """Returns whether the bytes from `position` to the end are chunks: a name in letters, a size, and a body.

    `form` is the layout of a name and a size for `struct`.
    """
    for _ in range(MAX_CHUNKS):
        head = window.bytes_at(position, struct.calcsize(form))
        if len(head) < struct.calcsize(form):
            return len(head) <= 1 or not any(head)
        name, size = struct.unpack(form, head)
        begin = position + len(head)
        if is_wav(window.bytes_at(position, 12)):
            return True
        if not is_name(name) or begin + size > window.size:
            return False
        position = begin + size + size % 2
    return True


def with_sizes(window: Window, wav: SampleFormat, data_bytes: int) -> Window:
    """Returns a wav file whose header gives the size `data_bytes` of its samples, for libsndfile."""
    form = ">I" if wav.big_endian else "<I"
    riff_size, data_size = (struct.pack(form, min(size, 0xFFFF_FFFF)) for size in (window.size - 8, data_bytes))
    return PatchedWindow(window, {4: riff_size, wav.header_bytes - 4: data_size})


def repaired(window: Window, report: Report) -> Window:
    """Returns an AIFF, caf or au file with the sizes that it really has in its header; other files as they are.

    libsndfile itself decodes a w64 to its end.
    """
    head = window.bytes_at(0, 24)
    if head[:12] == W64_MAGIC and (announced := int.from_bytes(head[16:24], "little")) < UNKNOWN_W64_BYTES:
        _compare(announced, window.size, report, unknown=(0,))
        return window
    if head[:4] in AU_ORDERS:
        order = AU_ORDERS[head[:4]]
        announced, begin = int.from_bytes(head[8:12], order), max(int.from_bytes(head[4:8], order), AU_HEADER_BYTES)
        _compare(announced, window.size - begin, report, unknown=(0xFFFF_FFFF, 0))
        return PatchedWindow(window, {4: begin.to_bytes(4, order), 8: b"\xff\xff\xff\xff"})
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _with_data_size(window, 12, ">4sI", b"SSND", report)
    if head[:4] == b"caff":
        return _with_data_size(window, 8, ">4sQ", b"data", report)
    return window


def _with_data_size(window: Window, position: int, form: str, data: bytes, report: Report) -> Window:
    """Repairs the size of the `data` chunk, in a file of chunks from `position` on; `form` is as in `_are_chunks`."""
    head_bytes = struct.calcsize(form)
    unknown = 2 ** (8 * (head_bytes - 4)) - 1
    for _ in range(MAX_CHUNKS):
        head = window.bytes_at(position, head_bytes)
        if len(head) < head_bytes:
            return window
        name, size = struct.unpack(form, head)
        begin = position + head_bytes
        there = window.size - begin
        if name == data:
            if 0 < size <= there and _are_chunks(window, begin + size + size % 2, form):
                return window
            _compare(size, there, report, unknown=(unknown, 0))
            return PatchedWindow(window, {position + 4: struct.pack(form, name, there)[4:]})
        position = begin + size + (size % 2 if head_bytes == 8 else 0)
    return window


def _compare(announced: int, there: int, report: Report, unknown: tuple[int, ...]) -> None:
    """Notes the difference of the announced bytes of samples and those that are there."""
    if announced in unknown or announced == there:
        return
    if announced > there:
        report.note(missing(announced, max(there, 0)), incomplete=True)
    else:
        report.note(f"its header announces {announced} bytes of samples, and it holds {there}: all are used")
