import io

import pytest

from nemojax.audio import ogg
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.ogg import streams_of
from nemojax.audio.raw import Report
from nemojax.audio.window import PatchedWindow, Window
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
    assert streams(FIRST + page())[0] == [(0, 2 * size, False)]
    file = encoded(wave(60_000), 16_000, "vorbis")
    assert streams(file * 2) == ([(0, len(file), True), (len(file), 2 * len(file), True)], [], False)


def test_the_mark_of_the_end_is_set_with_its_checksum():
    file = encoded(wave(40_000), 16_000, "vorbis")
    stream = Window(io.BytesIO(file), 0, len(file))
    (found,) = streams_of(stream, Report())
    assert found.last_page == file.rindex(b"OggS")
    unmarked = PatchedWindow(stream, {found.last_page + 5: bytes([file[found.last_page + 5] & ~4])})
    assert ogg.with_end(unmarked, found.last_page).bytes_at(0, len(file)) == file


def test_bytes_of_no_page_are_notes():
    size = len(FIRST)
    cut = streams(FIRST + page() + LAST[:-2])
    assert cut == ([(0, 2 * size, False)], [f"{size - 2} bytes not used (a part of an Ogg page)"], True)
    assert streams(FIRST + b"junk" + LAST)[1:] == (["4 bytes not used (in no Ogg page)"], False)
    assert streams(FIRST + LAST + bytes(3_000_000))[1] == ["3000000 bytes not used (in no Ogg page)"]
    with pytest.raises(UnnamedAudioError, match="it ends after 20 bytes, inside its first Ogg page"):
        streams(FIRST[:20])


def test_pages_and_streams_are_bounded(monkeypatch):
    monkeypatch.setattr(ogg, "MAX_PAGES", 20)
    monkeypatch.setattr(ogg, "MAX_STREAMS", 5)
    with pytest.raises(UnnamedAudioError, match="it holds more than 20 Ogg pages"):
        streams(FIRST + page() * 30)
    with pytest.raises(UnnamedAudioError, match="it holds more than 5 Ogg streams"):
        streams((FIRST + LAST) * 8)
