import io

import pytest

from nemojax.audio.mp3 import (
    StretchedWindow,
    counted_bytes,
    frame_bytes,
    has_frame_count,
    has_frames,
    next_mp3,
    tag_bytes,
)
from nemojax.audio.window import Window
from tests.helpers.sounds import encoded, wave, without_frame_count


def whole(data: bytes) -> Window:
    return Window(io.BytesIO(data), 0, len(data))


def test_a_stretched_window_reports_a_hundred_times_its_size():
    window = StretchedWindow(Window(io.BytesIO(bytes(range(1, 101))), first=10, size=20))
    assert window.seek(0, io.SEEK_END) == 2000
    assert window.seek(-5, io.SEEK_CUR) == 1995 and window.read(5) == bytes(5)  # zeros beyond the real end
    assert window.seek(18) == 18 and window.read(10) == bytes([29, 30]) and window.read(10) == b""
    assert window.seek(0) == 0 and window.read() == bytes(range(11, 31))


def test_frame_counts():
    mp3 = encoded(wave(30_000), 16_000, "mp3")
    tag = b"ID3\x03\x00\x00\x00\x00\x10\x00" + bytes(2048)
    assert has_frame_count(whole(mp3)) and has_frame_count(whole(tag + mp3))
    bare = without_frame_count(mp3)
    assert not has_frame_count(whole(bare)) and not has_frame_count(whole(tag + bare))
    assert not has_frame_count(whole(b"")) and not has_frame_count(whole(b"ID3"))


HEADER = b"\xff\xfb\x90\0"  # of a frame of 417 bytes


def counting(name: bytes, flags: int, count: int) -> bytes:
    """A first frame that counts bytes: by LAME's layout, or by that of VBRI."""
    if name == b"VBRI":
        return HEADER + bytes(32) + name + bytes(6) + count.to_bytes(4, "big")
    return HEADER + bytes(32) + name + bytes([0, 0, 0, flags]) + bytes([0, 0, 0, 9]) + count.to_bytes(4, "big")


@pytest.mark.parametrize("name,flags,found", [(b"Xing", 3, 70_000), (b"Info", 15, 70_000), (b"VBRI", 0, 70_000)])
@pytest.mark.parametrize("tag", [0, 30])
def test_counted_bytes(name, flags, found, tag):
    data = (b"ID3\4\0\0\0\0\0" + bytes([tag - 10]) + bytes(tag - 10) if tag else b"") + counting(name, flags, found)
    assert counted_bytes(whole(data)) == tag + found
    assert counted_bytes(whole(data[:-1])) is None


def test_a_frame_that_does_not_count_its_bytes():
    for flags in (0, 1, 2, 12):
        assert counted_bytes(whole(counting(b"Xing", flags, 70_000))) is None
    assert counted_bytes(whole(HEADER + bytes(500))) is None


def test_tags_end_after_their_size_and_their_footer():
    tag = lambda size, flags: b"ID3\4\0" + bytes([flags]) + bytes([0, 0, size >> 7, size & 127]) + bytes(size)
    assert tag_bytes(whole(tag(200, 0) + bytes(99))) == 210
    assert tag_bytes(whole(tag(200, 0x10) + bytes(99))) == 220
    assert tag_bytes(whole(tag(3, 0) + tag(4, 0) + bytes(99))) == 27
    assert tag_bytes(whole(tag(200, 0)[:50])) == 50 and tag_bytes(whole(b"ID3\4\0")) == 0
    assert next_mp3(whole(b"xx" + tag(6, 0) + (HEADER + bytes(413)) * 2), 0) == 2
    assert next_mp3(whole(b"xx" + tag(6, 0)), 0) is None


def test_a_frame_needs_another_one_after_it():
    frame = HEADER + bytes(413)
    assert has_frames(frame * 2, frame_bytes) and has_frames(frame[:300], frame_bytes)
    assert has_frames(frame + HEADER + bytes(3), frame_bytes)  # too little to decide
    assert not has_frames(frame + bytes(8), frame_bytes) and not has_frames(bytes(8), frame_bytes)
