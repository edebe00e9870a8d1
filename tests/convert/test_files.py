import os

import pytest

from convert.errors import ConvertError
from convert.files import FilePart, LimitedPart, open_file
from tests.convert.samples import file_of
from tests.helpers.messages import whole as whole_message


def test_a_window_reads_like_a_file():
    whole = file_of(bytes(range(100)))
    part = whole.part(10, 50)
    assert part.read(3) == bytes([10, 11, 12]) and part.tell() == 3
    assert part.seek(-2, os.SEEK_END) == 48 and part.read() == bytes([58, 59]) and part.read() == b""
    assert part.seek(60) == 60 and part.read(5) == b""
    with pytest.raises(ValueError, match=whole_message("negative position -1")):
        part.seek(-61, os.SEEK_CUR)
    assert whole.part(90, 5).part(1, 2).read() == bytes([91, 92])
    assert whole.tell() == 0 and whole.read(2) == bytes([0, 1])
    assert part.seek(5) == 5 and part.seek(-5, os.SEEK_CUR) == 0 and part.seek(7, os.SEEK_CUR) == 7
    rest = FilePart(whole.file, 90)
    assert (rest.size, rest.read()) == (10, bytes(range(90, 100))) and rest.readable() and rest.seekable()


def test_the_descriptor_is_closed_with_the_last_window():
    whole = file_of(b"abc")
    part, descriptor = whole.part(0, 3), whole.file.descriptor
    del whole
    assert part.read() == b"abc"
    del part
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_files_that_can_not_be_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in {
        tmp_path: "is a directory",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "none": "can't be read: No such file or directory",
    }.items():
        with pytest.raises(ConvertError, match=f"{path} {message}"):
            open_file(path)


@pytest.mark.parametrize("name", ["a\0b", "two\nlines", "x" * 5000, "\udcff"])  # NUL, newline, too long, not UTF-8
def test_names_are_shown_on_one_line(tmp_path, name):
    with pytest.raises(ConvertError, match="can't be read: ") as caught:
        open_file(tmp_path / name)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 2000


def test_a_limited_window():
    limited = LimitedPart(file_of(bytes(range(100))), 3 << 20)
    limited.left -= (3 << 20) - 10
    assert limited.read(4) == bytes([0, 1, 2, 3])
    limited.seek(98)
    assert limited.read(50) == bytes([98, 99])  # counts what there is
    with pytest.raises(ConvertError, match=r"^has more than 3 MB of headers; refused$"):
        limited.seek(0)
        assert limited.read(4) == bytes([0, 1, 2, 3])  # all that was left
        limited.read(1)
    limited.release()
    assert limited.seek(0) == 0 and len(limited.read(100)) == 100
