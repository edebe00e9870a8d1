import io

from nemojax.audio.mp3 import StretchedWindow, has_frame_count
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
