"""MP3 files: their frames, and the counts of frames that they give or lack.

An mp3's first frame can count all frames (a Xing, Info or VBRI header). Without the count, libsndfile estimates the
length from the file's size and the bit rate of the first frame, and decodes no further. At a variable bit rate that
loses the end of the recording. Such a file is decoded through a `StretchedWindow`: its reported size makes the estimate
too long, and decoding ends with the data.

With a count, libsndfile decodes no further than the count. Files that are joined have the count of the first one: they
are decoded one by one. A count that is too small is replaced by the real one.
"""

from collections.abc import Callable

from nemojax.audio.raw import Report
from nemojax.audio.window import PatchedWindow, Window

STRETCH = 100  # times the real size
TAG_HEADER_BYTES = 10
FRAME_BYTES = 1024  # enough to reach the count in the first frame
MAX_TAGS = 16
SEARCH_BYTES = 65_536  # maximum distance to the next frame
COUNT_BYTES = 64  # of a frame, in which the name of its counts is
COUNTS = (b"Xing", b"Info", b"VBRI")
FRAMES_IN_A_ROW, ROW_BYTES = 4, 8192  # frames without an announcement: other data rarely look like four
READ_BYTES = 1 << 20
KBITS = {  # by (MPEG-1, layer): the bit rates in kbit/s from index 1 on
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = (44_100, 48_000, 32_000)


class StretchedWindow(Window):
    """A window whose reported size is STRETCH times the real one.

    A read that begins beyond the real end gets zeros: libsndfile looks for a tag at the reported end. A read from
    before the real end stops there, and the next read is the end of the file.
    """

    def __init__(self, window: Window):
        super().__init__(window._file, window._first, window.size)

    def _reported_size(self) -> int:
        return self.size * STRETCH

    def bytes_at(self, position: int, size: int) -> bytes:
        return bytes(size) if position > self.size else super().bytes_at(position, size)


def frame_bytes(header: bytes) -> int:
    """Returns the size of the MPEG audio frame with this header of 4 bytes; 0 if it is not one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)  # version 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    rate, index = header[2] >> 2 & 3, header[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or index in (0, 15):
        return 0
    rate_hz = RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits, padding = KBITS[version == 3, layer][index - 1] * 1000, header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // rate_hz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate_hz + padding


def adts_frame_bytes(header: bytes) -> int:
    """Returns the size of the AAC frame with this header of 6 bytes; 0 if it is not one."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or header[2] >> 2 & 15 > 12:
        return 0
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return size if size > 7 else 0


def has_frames(head: bytes, size: Callable[[bytes], int]) -> bool:
    """Returns whether data begin with a frame, and after it another one if `head` reaches there."""
    first = size(head[:8])
    return bool(first) and (len(head) < first + 8 or bool(size(head[first : first + 8])))


def tag_bytes(window: Window) -> int:
    """Returns the size of the ID3 tags at the beginning."""
    position = 0
    for _ in range(MAX_TAGS):
        tag = window.bytes_at(position, TAG_HEADER_BYTES)
        if tag[:3] != b"ID3" or len(tag) < TAG_HEADER_BYTES:
            break
        size = sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))  # 4 x 7 bits
        position += TAG_HEADER_BYTES + size + TAG_HEADER_BYTES * (tag[5] >> 4 & 1)  # with its footer
    return min(position, window.size)


def first_frame(window: Window) -> int | None:
    """Returns where the frames begin: after the ID3 tags, or where the size of a tag is wrong, after its header.

    None if there are no frames.
    """
    begin = tag_bytes(window)
    if has_frames(window.bytes_at(begin, ROW_BYTES), frame_bytes):
        return begin
    found = find_frames(window.bytes_at(TAG_HEADER_BYTES, SEARCH_BYTES + ROW_BYTES))
    return None if found is None else TAG_HEADER_BYTES + found


def find_frames(data: bytes) -> int | None:
    """Returns where the first of several frames in a row begins; None if there are none."""
    at = data.find(b"\xff")
    while at >= 0:
        position = at
        for _ in range(FRAMES_IN_A_ROW):
            size = frame_bytes(data[position : position + 4])
            position += size
            if not size:
                break
        else:
            return at
        at = data.find(b"\xff", at + 1)
    return None


def repaired(window: Window, report: Report) -> Window:
    """Returns an mp3 that begins with a frame, with the counts in that frame that it really has.

    The count of frames is replaced if it is too small. One that is too large is kept: the file is cut.
    """
    frame = window.bytes_at(0, FRAME_BYTES)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = frame[at + 7] if 0 <= at <= len(frame) - 16 else 0
    if not flags & 1:  # it has no count of frames, or is of another layout
        return window
    frames, end = _walk(window)
    frames -= 1  # the first one has no audio
    if (following := next_mp3(window, end)) is not None:
        begin = window.bytes_at(following, COUNT_BYTES)
        if begin[:3] != b"ID3" and not any(name in begin for name in COUNTS):
            return window  # damaged at `end`, and not joined there
    announced = int.from_bytes(frame[at + 8 : at + 12], "big")
    patches = {at + 12: end.to_bytes(4, "big")} if flags & 2 and end < 1 << 32 else {}
    if frames > announced:
        report.note(f"its header announces {announced} MPEG frames, and it holds {frames}: all are used")
        patches[at + 8] = frames.to_bytes(4, "big")
    return PatchedWindow(window, patches)


def _walk(window: Window) -> tuple[int, int]:
    """Returns the number of frames in a row from the beginning, up to another file, and where they end.

    A part of a frame at the end of the data is no frame; the end is then that of the data.
    """
    frames = position = begin = 0
    buffer = b""
    while position < window.size:
        offset = position - begin
        if offset + COUNT_BYTES > len(buffer):
            buffer, begin, offset = window.bytes_at(position, READ_BYTES), position, 0
        start = buffer[offset : offset + COUNT_BYTES]
        size = frame_bytes(start)
        if not size or (frames and any(name in start[:size] for name in COUNTS)):
            break
        frames += position + size <= window.size
        position += size
    return frames, min(position, window.size)


def has_frame_count(window: Window) -> bool:
    """Returns whether the first frame of an mp3 counts all frames."""
    frame = window.bytes_at(tag_bytes(window), FRAME_BYTES)
    return any(name in frame for name in COUNTS)


def counted_bytes(window: Window) -> int | None:
    """Returns where the frames end by the count of bytes in the first frame; None if it has none."""
    begin = tag_bytes(window)
    frame = window.bytes_at(begin, FRAME_BYTES)
    for name in (b"Xing", b"Info"):
        at = frame.find(name)
        if at >= 0 and len(frame) >= at + 16 and frame[at + 7] & 3 == 3:  # it has the counts of frames and of bytes
            return begin + int.from_bytes(frame[at + 12 : at + 16], "big")
    at = frame.find(b"VBRI")
    return begin + int.from_bytes(frame[at + 10 : at + 14], "big") if 0 <= at <= len(frame) - 14 else None


def next_mp3(window: Window, position: int) -> int | None:
    """Returns where another mp3 begins at or soon after `position`, with its tag if it has one; None if none does."""
    data = window.bytes_at(position, SEARCH_BYTES)
    for at in range(len(data) - 3):
        if data[at] == 0xFF and has_frames(data[at : at + FRAME_BYTES * 3], frame_bytes):
            return position + at
        if data[at : at + 3] == b"ID3" and at + TAG_HEADER_BYTES <= len(data):
            rest = window.part(position + at)
            frame = rest.bytes_at(tag_bytes(rest), FRAME_BYTES * 3)
            if has_frames(frame, frame_bytes):
                return position + at
    return None
