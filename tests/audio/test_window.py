import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.audio.window import PatchedWindow, Window, read_whole
from tests.helpers.messages import whole

DATA = bytes(range(1, 101))


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
    with pytest.raises(OSError, match=whole("I/O operation on closed file.")):
        window.check()


def test_windows_of_one_file_do_not_disturb_each_other():
    file = io.BytesIO(bytes(range(100)))
    first, second = Window(file, 0, 50), Window(file, 50, 50)
    assert first.read(2) + second.read(2) + first.read(2) == bytes([0, 1, 50, 51, 2, 3])


@settings(max_examples=60, deadline=None)
@given(
    patches=st.dictionaries(st.sampled_from([0, 7, 8, 30, 77, 79]), st.binary(min_size=1, max_size=5), max_size=4),
    position=st.integers(0, 90),
    size=st.integers(0, 90),
    begin=st.sampled_from([0, 1, 9, 31, 78, 90]),
)
def test_replaced_bytes(patches, position, size, begin):
    expected = bytearray(DATA[10:90])
    for at, patch in patches.items():
        expected[at : at + len(patch)] = patch[: 80 - at]
    window = PatchedWindow(Window(io.BytesIO(DATA), 10, 80), patches)
    assert window.bytes_at(position, size) == expected[position : position + size] and window.size == 80
    window.seek(position)
    assert window.read(size) == expected[position : position + size]
    read = len(expected[position : position + size])
    assert window.furthest == position + read and window.tell() == position + read
    assert window.part(begin, 79).read() == expected[begin:79]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 90), st.none() | st.integers(0, 120))
def test_a_part_of_a_window(begin, end):
    part = Window(io.BytesIO(DATA), 10, 80).part(begin, end)
    expected = DATA[10:90][begin:end]
    assert part.read() == expected and part.size == len(expected) and part.readable() and part.seekable()


def test_reads_in_pieces():
    file = io.BytesIO(DATA)
    assert read_whole(lambda size: file.read(min(size, 7)), 50) == DATA[:50]
    assert read_whole(lambda size: file.read(min(size, 7)), 70) == DATA[50:] and read_whole(file.read, 5) == b""
    assert file.tell() == 100 and read_whole(lambda size: DATA[:size], 0) == b""
