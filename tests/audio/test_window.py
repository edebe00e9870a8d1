import io

import pytest

from nemojax.audio.window import Window


def test_a_window_is_a_file():
    window = Window(io.BytesIO(bytes(range(100))), first=10, size=20)
    assert window.read() == bytes(range(10, 30)) and window.read(5) == b""
    assert window.seek(-3, io.SEEK_END) == 17 and window.read(10) == bytes(range(27, 30))
    assert window.seek(4) == 4 and window.seek(2, io.SEEK_CUR) == window.tell() == 6 and window.read(1) == b"\x10"
    assert window.seek(50) == 50 and window.read(3) == b""
    assert window.seek(-50) == 0 and window.read(2) == bytes([10, 11])


def test_a_read_that_fails_ends_the_data_and_is_kept():
    file = io.BytesIO(bytes(100))
    window = Window(file, 0, 100)
    window.check()
    file.close()
    assert window.read(10) == b""
    with pytest.raises(OSError, match="closed file"):
        window.check()


def test_windows_of_one_file_do_not_disturb_each_other():
    file = io.BytesIO(bytes(range(100)))
    first, second = Window(file, 0, 50), Window(file, 50, 50)
    assert first.read(2) + second.read(2) + first.read(2) == bytes([0, 1, 50, 51, 2, 3])
