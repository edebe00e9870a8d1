"""MP3 files that do not give their length.

An mp3's first frame can count all frames (a Xing, Info or VBRI header). Without the count, libsndfile estimates the
length from the file's size and the bit rate of the first frame, and decodes no further. At a variable bit rate that
loses the end of the recording. Such a file is decoded through a `StretchedWindow`: its reported size makes the estimate
too long, and decoding ends with the data.
"""

from nemojax.audio.window import Window

STRETCH = 100  # times the real size
TAG_HEADER_BYTES = 10
FRAME_BYTES = 1024  # enough to reach the count in the first frame


class StretchedWindow(Window):
    """A window whose reported size is STRETCH times the real one.

    A read that begins beyond the real end gets zeros: libsndfile looks for a tag at the reported end. A read from
    before the real end stops there, and the next read is the end of the file.
    """

    def __init__(self, window: Window):
        super().__init__(window._file, window._first, window.size)

    def _reported_size(self) -> int:
        return self.size * STRETCH

    def _bytes_at(self, position: int, size: int) -> bytes:
        return bytes(size) if position > self.size else super()._bytes_at(position, size)


def has_frame_count(window: Window) -> bool:
    """Returns whether the first frame of an mp3 counts all frames."""
    window.seek(0)
    tag = window.read(TAG_HEADER_BYTES) or b""
    size = sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))  # ID3: 4 x 7 bits
    window.seek(TAG_HEADER_BYTES + size if tag[:3] == b"ID3" else 0)
    frame = window.read(FRAME_BYTES) or b""
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))
