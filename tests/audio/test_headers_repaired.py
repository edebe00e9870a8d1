"""Headers with wrong sizes, and files that are joined."""

import io
import struct

import pytest
import soundfile

from nemojax.audio import headers
from nemojax.audio.headers import repaired
from nemojax.audio.raw import Report
from nemojax.audio.window import Window
from tests.audio.test_headers import SAMPLES, header, whole
from tests.helpers.sounds import encoded, wav_bytes, wave


@pytest.mark.parametrize("kind", ["aiff", "au", "caf"])
@pytest.mark.parametrize("size", [0, 1000, 2**31, 2**32 - 1])
def test_sizes_in_other_headers(kind, size):
    samples = wave(4000)
    file = encoded(samples, 16_000, kind)
    place, width = {"aiff": (file.find(b"SSND") + 4, 4), "au": (8, 4), "caf": (file.find(b"data") + 4, 8)}[kind]
    file = file[:place] + size.to_bytes(width, "big") + file[place + width :]
    report = Report()
    sound = soundfile.SoundFile(repaired(whole(file), report))
    assert len(sound.read()) in (4000, 4002)  # the chunk's own fields may count as samples
    assert bool(report.notes) == (size not in (0, 2**32 - 1 if kind != "caf" else 0))
    assert report.incomplete == (size == 2**31 or (kind, size) == ("caf", 2**32 - 1))


def test_a_truncated_w64():
    file = encoded(wave(4000), 16_000, "w64")
    for cut, incomplete in ((len(file), False), (len(file) - 2, True)):
        report = Report()
        repaired(whole(file[:cut]), report)
        assert report.incomplete == incomplete


CHUNK = b"LIST\3\0\0\0abc\0"


@pytest.mark.parametrize(
    "data,found",
    [
        (b"", True),
        (CHUNK * 2, True),
        (CHUNK + b"x", True),  # a byte that pads the samples
        (CHUNK + b"xy", False),
        (CHUNK + bytes(7), True),
        (CHUNK[:-2], False),
        (CHUNK + wav_bytes(bytes(10)), True),
        (b"LI\1T" + CHUNK[4:], False),
        (CHUNK * 5, True),  # more chunks than are looked at
    ],
)
def test_chunks_to_the_end(data, found, monkeypatch):
    monkeypatch.setattr(headers, "MAX_CHUNKS", 4)
    window = Window(io.BytesIO(data), 0, len(data))
    assert headers._are_chunks(window, 0, "<4sI") is found


@pytest.mark.parametrize("kind", ["aiff", "au", "w64"])
def test_the_announced_end_of_a_file(kind):
    file = encoded(wave(1001), 16_000, kind)
    assert headers.announced_end(whole(file + bytes(9))) == len(file)
    if kind == "au":
        reversed_order = encoded(wave(1001), 16_000, kind, endian="LITTLE")
        assert headers.announced_end(whole(reversed_order + bytes(9))) == len(file)
    for other in (b"FORM\0\0\1\0ILBM", b"FOR\0\0\0\1\0AIFF", b"riff" + bytes(20), b"RIFF" + bytes(20), b""):
        assert headers.announced_end(whole(other)) is None
    assert headers.announced_end(whole(b"FORM\0\0\1\0AIFC")) == 264


def test_where_a_joined_file_begins():
    aiff = encoded(wave(100), 16_000, "aiff")
    odd = aiff[:4] + (len(aiff) - 7).to_bytes(4, "big") + aiff[8:] + b"x"
    assert headers.joined_file(whole(odd + aiff)).size == len(aiff)
    assert headers.joined_file(whole(odd + b"\0" + aiff)).size == len(aiff)  # the size is odd, and padded
    assert headers.joined_file(whole(odd + b"\0\0" + aiff)) is None and headers.joined_file(whole(aiff)) is None
    assert headers.joined_file(whole(b".snd" + bytes(20))) is None  # of no size: it does not follow itself
    zero = aiff[:4] + b"\xff\xff\xff\xf8" + aiff[8:]  # its end is beyond the file
    assert headers.joined_file(whole(zero + aiff)) is None


@pytest.mark.parametrize("order", "<>")
def test_where_a_joined_wav_begins(order, monkeypatch):
    monkeypatch.setattr(headers, "MAX_CHUNKS", 3)
    wav = wav_bytes(bytes(10), order=order)
    chunk = lambda size: b"LIST" + struct.pack(f"{order}I", size) + bytes(size + size % 2)
    odd = wav_bytes(bytes(9), order=order)
    for first, between, joins in (
        (wav, b"", True),
        (wav, chunk(4) + chunk(3), True),
        (odd, b"", True),  # without padding
        (odd, b"\0", True),
        (odd, b"\0" + chunk(5), True),
        (wav, chunk(4) * 3, False),  # more chunks than are looked at
        (wav, b"LI\1T\0\0\0\0", False),
        (wav, b"LIST\0\0", False),
    ):
        found = headers.joined_wav(whole(first + between + wav), len(first))
        assert (found is not None and found.size == len(wav)) == joins, (between, joins)
    assert headers.joined_wav(whole(wav + chunk(4)), len(wav)) is None


@pytest.mark.parametrize("order", "<>")
def test_a_header_with_other_sizes(order):
    file = wav_bytes(SAMPLES, 0, 0, order=order)
    sized = headers.with_sizes(whole(file + b"abcd"), header(file), 8000)
    assert sized.bytes_at(0, len(file) + 4) == wav_bytes(SAMPLES, 8000, 36 + 8004 - 4 + 4, order=order) + b"abcd"
    large = headers.with_sizes(whole(file), header(file), 2**32)
    assert large.bytes_at(0, len(file)) == wav_bytes(SAMPLES, 0xFFFF_FFFF, 36 + 8000, order=order)


def test_repairs_of_chunks_with_odd_sizes():
    """In AIFF a chunk is padded to an even size; in caf it is not."""
    for head, form, data in ((b"FORM\0\0\0\0AIFF", ">4sI", b"SSND"), (b"caff\0\1\0\0", ">4sQ", b"data")):
        chunk = lambda name, size, form=form: struct.pack(form, name, size)
        pad = b"\0" if head[:4] == b"FORM" else b""
        for announced, there, note in (
            (6, 6, ""),
            (7, 6, "its header announces 7 bytes of samples, and it ends after 6"),
            (3, 6, "its header announces 3 bytes of samples, and it holds 6: all are used"),
        ):
            report = Report()
            begin = head + chunk(b"misc", 3) + b"abc" + pad
            file = begin + chunk(data, announced) + b"\1" * there
            found = repaired(whole(file), report)
            if note:
                assert report.notes == [note] and report.incomplete == (announced > there)
                assert found.bytes_at(0, 99) == begin + chunk(data, there) + b"\1" * there
            else:
                assert report.notes == [] and found.bytes_at(0, 99) == file
        for more in (b"", struct.pack(form, b"last", 2) + b"ab"):  # chunks after samples of an odd size
            report = Report()
            file = head + chunk(data, 5) + bytes(5) + b"\0" + more
            assert repaired(whole(file), report).bytes_at(0, 99) == file and report.notes == []
        assert repaired(whole(head + chunk(b"misc", 3)), Report()).size == len(head + chunk(b"misc", 3))


def test_a_joined_file_has_the_same_format():
    first = encoded(wave(100), 16_000, "aiff")
    window = lambda data: Window(io.BytesIO(data), 0, len(data))
    assert headers.joined_file(window(first + first)).size == len(first)
    assert headers.joined_file(window(first + bytes(len(first)))) is None
