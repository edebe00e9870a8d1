import io

import pytest

from nemojax.audio import mp3
from nemojax.audio.mp3 import (
    StretchedWindow,
    adts_frame_bytes,
    counted_bytes,
    first_frame,
    frame_bytes,
    has_frame_count,
    has_frames,
    next_mp3,
    tag_bytes,
)
from nemojax.audio.raw import Report
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
    file = encoded(wave(30_000), 16_000, "mp3")
    tag = b"ID3\x03\x00\x00\x00\x00\x10\x00" + bytes(2048)
    assert has_frame_count(whole(file)) and has_frame_count(whole(tag + file))
    bare = without_frame_count(file)
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
    assert counted_bytes(whole(data)) == counted_bytes(whole(data + b"more")) == tag + found
    assert counted_bytes(whole(data[:-1])) is None


def test_a_frame_that_does_not_count_its_bytes():
    for flags in (0, 1, 2, 12):
        assert counted_bytes(whole(counting(b"Xing", flags, 70_000))) is None
    assert counted_bytes(whole(HEADER + bytes(500))) is None


def test_frames_are_counted_in_one_pass(monkeypatch):
    reads = []

    class Watched(Window):
        def bytes_at(self, position, size):
            reads.append(size)
            return super().bytes_at(position, size)

    monkeypatch.setattr(mp3, "READ_BYTES", 5000)
    frame = HEADER + bytes(413)
    data = counting(b"Xing", 1, 0).ljust(417, b"\0") + 99 * frame
    report = Report()
    mp3.repaired(Watched(io.BytesIO(data), 0, len(data)), report)
    assert report.notes == ["its header announces 9 MPEG frames, and it holds 99: all are used"]
    assert len(reads) < 20
    report = Report()  # of a file without counts
    assert mp3.repaired(whole(99 * frame), report).bytes_at(0, len(data)) == 99 * frame and not report.notes
    begin = data.index(b"Xing") + 8
    for count in (100, 1 << 24):  # the file is cut: it has fewer
        report, cut = Report(), data[:begin] + count.to_bytes(4, "big") + data[begin + 4 :]
        assert mp3.repaired(whole(cut), report).bytes_at(0, len(cut)) == cut and not report.notes


def test_tags_end_after_their_size_and_their_footer():
    tag = lambda size, flags: b"ID3\4\0" + bytes([flags]) + bytes([0, 0, size >> 7, size & 127]) + bytes(size)
    assert tag_bytes(whole(tag(200, 0) + bytes(99))) == 210
    assert tag_bytes(whole(tag(200, 0x10) + bytes(99))) == 220
    assert tag_bytes(whole(tag(3, 0) + tag(4, 0) + bytes(99))) == 27
    assert tag_bytes(whole(tag(200, 0)[:50])) == 50 and tag_bytes(whole(b"ID3\4\0")) == 0
    assert next_mp3(whole(b"xx" + tag(6, 0) + (HEADER + bytes(413)) * 2), 0) == 2
    assert next_mp3(whole(b"xx" + tag(6, 0)), 0) is None


def mpeg_header(version: int, layer: int, index: int, rate: int, padding: int = 0) -> bytes:
    """The 4 bytes of a frame: version 3 is MPEG-1, 2 MPEG-2, 0 MPEG-2.5."""
    return bytes([0xFF, 0xE1 | version << 3 | (4 - layer) << 1, index << 4 | rate << 2 | padding << 1, 0])


# bit rates in kbit/s of index 1 to 14, from the standard (ISO 11172-3, 13818-3)
HALVES = [8 * i for i in range(1, 9)] + [16 * i for i in range(5, 11)]
BIT_RATES = {
    (3, 1): [32 * i for i in range(1, 15)],
    (3, 2): [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    (3, 3): [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    (2, 1): [32, *range(48, 65, 8), *range(80, 193, 16), 224, 256],
    (2, 2): HALVES,
    (2, 3): HALVES,
}


def test_sizes_of_mpeg_frames():
    """A frame has 384 samples in layer 1, 576 in layer 3 of MPEG-2 and 2.5, else 1152."""
    for version, divisor in ((3, 1), (2, 2), (0, 4)):
        for layer in (1, 2, 3):
            samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
            slot = 4 if layer == 1 else 1  # bytes
            for rate, rate_hz in enumerate((44_100, 48_000, 32_000)):
                for index, kbits in enumerate(BIT_RATES[version or 2, layer], start=1):
                    slots = samples * kbits * 1000 // (8 * slot * (rate_hz // divisor))
                    for padding in (0, 1):
                        header = mpeg_header(version, layer, index, rate, padding)
                        assert frame_bytes(header) == (slots + padding) * slot, (version, layer, rate, index)
    assert frame_bytes(HEADER) == 417
    for header in (
        mpeg_header(1, 3, 9, 0),  # no version
        mpeg_header(3, 4, 9, 0),  # no layer
        mpeg_header(3, 3, 0, 0),  # a free bit rate
        mpeg_header(3, 3, 15, 0),
        mpeg_header(3, 3, 9, 3),  # no sample rate
        HEADER[:3],
        b"\xfe" + HEADER[1:],
        b"\xff\xdb" + HEADER[2:],
    ):
        assert frame_bytes(header) == 0


def aac_header(size: int, rate: int = 4, sync: int = 0xFFF1) -> bytes:
    return sync.to_bytes(2, "big") + bytes([1 << 6 | rate << 2, 0x80 | size >> 11, size >> 3 & 255, (size & 7) << 5])


def test_sizes_of_aac_frames():
    for size in (8, 9, 255, 2048, 8191):
        for sync in (0xFFF1, 0xFFF0, 0xFFF9):  # with a checksum or without, MPEG-4 or MPEG-2
            assert adts_frame_bytes(aac_header(size, sync=sync)) == size
    assert adts_frame_bytes(aac_header(500, rate=12)) == 500
    for header in (
        aac_header(500, rate=13),  # no sample rate
        aac_header(7),  # smaller than a header
        aac_header(500, sync=0xFFF3),  # a layer, as in an mp3
        aac_header(500, sync=0xFFE1),
        aac_header(500, sync=0xFEF1),
        aac_header(500)[:5],
    ):
        assert adts_frame_bytes(header) == 0


def test_large_and_many_tags():
    """Sizes have 4 times 7 bits; no more than 16 tags are passed over."""
    for shift in (0, 7, 14, 21):
        size = bytes(1 if shift == place else 0 for place in (21, 14, 7, 0))
        data = b"ID3\4\0\0" + size + bytes((1 << shift) + 5)
        assert tag_bytes(whole(data)) == 10 + (1 << shift)
    tag = b"ID3\4\0\0\0\0\0\1x"
    assert tag_bytes(whole(tag * 20)) == 16 * 11 and tag_bytes(whole(b"ID4" + tag)) == 0


def test_the_next_mp3_is_at_a_frame_or_its_tag():
    frames = (HEADER + bytes(413)) * 3
    for before in (0, 1, 500):
        assert next_mp3(whole(b"x" * 10 + bytes(before) + frames), 10) == 10 + before
        assert next_mp3(whole(b"x" * 10 + bytes(before) + b"ID3\4\0\0\0\0\0\6" + bytes(6) + frames), 3) == 10 + before
    assert next_mp3(whole(frames), 1) == 417 and next_mp3(whole(bytes(70_000) + frames), 0) is None
    assert next_mp3(whole(HEADER), 0) == 0 and next_mp3(whole(HEADER[:3]), 0) is None


def test_one_frame_after_a_tag_is_not_enough():
    frame, tag = HEADER + bytes(413), b"ID3\4\0\0\0\0\0\0"
    assert first_frame(whole(tag + frame + b"x" * 20 + frame * 9)) == 10 + 417 + 20
    assert first_frame(whole(tag + frame * 9)) == 10 and first_frame(whole(tag + frame)) == 10


def test_a_frame_needs_another_one_after_it():
    frame = HEADER + bytes(413)
    assert has_frames(frame * 2, frame_bytes) and has_frames(frame[:300], frame_bytes)
    for following in (HEADER + bytes(3), bytes(7)):  # too little to decide
        assert has_frames(frame + following, frame_bytes)
    assert not has_frames(frame + bytes(8), frame_bytes) and not has_frames(bytes(8), frame_bytes)
