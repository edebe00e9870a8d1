import io

import numpy as np
import pytest

from nemojax.audio import ogg
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.ogg import streams_of
from nemojax.audio.raw import Report
from nemojax.audio.window import PatchedWindow, Window
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wave


def page(flags: int = 0, body: bytes = b"sound") -> bytes:
    """A page; neither numbers nor checksums are read here."""
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([1, len(body)]) + body


FIRST, LAST = page(2), page(4)


def streams(data: bytes):
    report = Report()
    found = streams_of(Window(io.BytesIO(data), 0, len(data)), report)
    return [(stream.begin, stream.end, stream.ended) for stream in found], report.notes, report.incomplete


def test_streams_that_follow_each_other():
    size = len(FIRST)
    assert streams(FIRST + page() + LAST) == ([(0, 3 * size, True)], [], False)
    assert streams((FIRST + page() + LAST) * 2) == ([(0, 3 * size, True), (3 * size, 6 * size, True)], [], False)
    assert streams(FIRST + FIRST + page() + LAST)[0] == [(0, 4 * size, True)]  # side by side
    assert streams(FIRST + FIRST + LAST + page())[0] == [(0, 4 * size, True)]  # one of them ends before the other
    assert streams(FIRST + page())[0] == [(0, 2 * size, False)]
    assert streams(FIRST + page() + FIRST + LAST)[0] == [(0, 2 * size, False), (2 * size, 4 * size, True)]
    assert streams(FIRST + LAST + FIRST + page())[0] == [(0, 2 * size, True), (2 * size, 4 * size, False)]
    file = encoded(wave(60_000), 16_000, "vorbis")
    assert streams(file * 2) == ([(0, len(file), True), (len(file), 2 * len(file), True)], [], False)


def test_the_mark_of_the_end_is_set_with_its_checksum():
    file = encoded(wave(40_000), 16_000, "vorbis")
    stream = Window(io.BytesIO(file), 0, len(file))
    (found,) = streams_of(stream, Report())
    assert found.last_page == file.rindex(b"OggS")
    unmarked = PatchedWindow(stream, {found.last_page + 5: bytes([file[found.last_page + 5] & ~4])})
    assert ogg.with_end(unmarked, found.last_page).bytes_at(0, len(file)) == file


def plain_checksum(page: bytes) -> int:
    """The remainder of a division by 0x04C11DB7, bit by bit (RFC 3533)."""
    remainder = 0
    for byte in page:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C1_1DB7 if remainder & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return remainder


def test_checksums():
    for data in (b"", b"\0", b"\1", b"OggS" + bytes(range(256))):
        assert ogg.checksum(data) == plain_checksum(data)


@pytest.mark.parametrize("read_bytes", [290, 300, 1000])
def test_pages_are_found_however_a_file_is_read(monkeypatch, read_bytes):
    """Pages of any size, and the beginning of one at the end of what was read."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(0, 255, 60)
    pages = [page(2 * (i % 20 == 0) + 4 * (i % 20 == 19), rng.bytes(size)) for i, size in enumerate(sizes)]
    begins = np.cumsum([0, *map(len, pages)]).tolist()
    expected = [(begins[i], begins[i + 20], True) for i in (0, 20, 40)]
    monkeypatch.setattr(ogg, "READ_BYTES", read_bytes)
    assert streams(b"".join(pages)) == (expected, [], False)
    window = Window(io.BytesIO(b"".join(pages)), 0, begins[-1])
    assert [stream.last_page for stream in streams_of(window, Report())] == [begins[i] for i in (19, 39, 59)]
    for junk in range(280, 300):
        found = streams(FIRST + b"x" * junk + LAST)
        assert found == ([(0, 2 * len(FIRST) + junk, True)], [f"{junk} bytes not used (in no Ogg page)"], False)


def test_a_page_that_has_a_cut_header():
    for cut in (26, 27):  # before the number of its segments, and before their sizes
        found = streams(FIRST + LAST[:cut])
        assert found == ([(0, len(FIRST), False)], [f"{cut} bytes not used (a part of an Ogg page)"], True)


def test_bytes_of_no_page_are_notes():
    size = len(FIRST)
    cut = streams(FIRST + page() + LAST[:-2])
    assert cut == ([(0, 2 * size, False)], [f"{size - 2} bytes not used (a part of an Ogg page)"], True)
    assert streams(FIRST + b"junk" + LAST)[1:] == (["4 bytes not used (in no Ogg page)"], False)
    assert streams(FIRST + LAST + bytes(3_000_000))[1] == ["3000000 bytes not used (in no Ogg page)"]
    with pytest.raises(UnnamedAudioError, match=whole("truncated: it ends after 20 bytes, inside its first Ogg page")):
        streams(FIRST[:20])


def test_the_next_page_is_sought_only_so_far(monkeypatch):
    monkeypatch.setattr(ogg, "READ_BYTES", 600)
    monkeypatch.setattr(ogg, "SEARCH_BYTES", 1000)
    assert streams(FIRST + b"x" * 900 + LAST)[0] == [(0, 2 * len(FIRST) + 900, True)]
    found, notes, _ = streams(FIRST + b"x" * 2000 + LAST)
    assert found == [(0, len(FIRST), False)] and notes == [f"{2000 + len(LAST)} bytes not used (in no Ogg page)"]


def test_pages_and_streams_are_bounded(monkeypatch):
    monkeypatch.setattr(ogg, "MAX_PAGES", 20)
    monkeypatch.setattr(ogg, "MAX_STREAMS", 5)
    with pytest.raises(UnnamedAudioError, match=whole("it holds more than 20 Ogg pages")):
        streams(FIRST + page() * 30)
    with pytest.raises(UnnamedAudioError, match=whole("it holds more than 5 Ogg streams")):
        streams((FIRST + LAST) * 8)
