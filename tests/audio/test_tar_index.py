"""Tar files as tar, Python, NeMo and webdataset write them, and damaged or hostile ones."""

import io
import re
import tarfile

import pytest

from nemojax.audio import tar_index
from nemojax.audio.tar_index import BLOCK, TarIndex

NAMES = ["a.wav", "./sub/b.wav", "é日本.flac", "x" * 150 + ".wav", "d/" * 60 + "c.wav", "M\udce4dchen.wav"]


def header(name="a.wav", size=0, kind=tarfile.REGTYPE, **options) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape", **options)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def pax(**records) -> bytes:
    """An extended header with records of any kind."""
    content = b""
    for key, value in records.items():
        record = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(record) + 1
        while len(str(length)) + len(record) != length:
            length += 1
        content += f"{length}".encode() + record
    return header("x", len(content), tarfile.XHDTYPE) + padded(content)


def index_of(tmp_path, content: bytes) -> TarIndex:
    (tmp_path / "made.tar").write_bytes(content)
    return TarIndex(tmp_path / "made.tar")


def with_end(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(2 * BLOCK)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(tmp_path, form):
    path = tmp_path / "made.tar"
    names = NAMES if form != tarfile.USTAR_FORMAT else NAMES[:2] + ["d/" * 60 + "c.wav"]
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 700 * number, 1.25  # a time of its own makes a pax header
            archive.addfile(member, io.BytesIO(bytes([number]) * member.size))
            folder, link = tarfile.TarInfo(f"folder{number}"), tarfile.TarInfo(f"link{number}")
            folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "y" * 120 if number else "y"
            for other in (folder, link) if form != tarfile.USTAR_FORMAT else ():
                archive.addfile(other)
    index, data = TarIndex(path), path.read_bytes()
    assert index.error == "" and list(index.members) == [name.removeprefix("./") for name in names]
    for number, name in enumerate(names):
        first, size = index.find(name)
        assert data[first : first + size] == bytes([number]) * 700 * number
    assert index.find("folder0") is None is index.find("link1")


def test_names_that_nemo_finds(tmp_path):
    names = ["a.wav", "b-sub2.wav", "c-sub.wav", "d.opus", "e-sub1.x.flac", "twice.wav", "twice.ogg", "f.wav", "f.json"]
    index = index_of(tmp_path, with_end(*(header(name) for name in names)))
    at = {name: (BLOCK * (1 + position), 0) for position, name in enumerate(names)}
    expected = {
        "a.wav": "a.wav",
        "./a.wav": "a.wav",
        "a-sub1.wav": "a.wav",
        "a-sub12.wav": "a.wav",
        "b-sub2.wav": "b-sub2.wav",  # a name of its own
        "c-sub.wav": "c-sub.wav",
        "d.wav": "d.opus",  # encoded when the tar was made
        "d-sub3.wav": "d.opus",
        "e-sub1.x.flac": "e-sub1.x.flac",
        "f": "f.wav",  # Lhotse's: the name of a cut, without an extension
        "twice.wav": "twice.wav",
    }
    for name, member in expected.items():
        assert index.find(name) == at[member], name
    for name in ("twice.flac", "a-sub.wav", "a-subx.wav", "-sub1.wav", "b.wav", "", "a.wav/"):
        assert index.find(name) is None, name


def test_the_last_of_two_members_with_one_name_counts(tmp_path):
    assert index_of(tmp_path, with_end(header("a", 5), bytes(BLOCK), header("a", 9))).find("a") == (3 * BLOCK, 9)


def test_sparse_members_are_passed_over(tmp_path):
    old = bytearray(header("old", 512, tarfile.GNUTYPE_SPARSE))
    old[482] = 1  # a further block of the map follows
    old[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(old))[0]
    further = bytes(504) + b"\1" + bytes(7) + bytes(BLOCK)
    new = pax(GNU__sparse__major=1, GNU__sparse__minor=0) + header("new", 512) + bytes(512)
    index = index_of(tmp_path, with_end(bytes(old), further, b"\1" * 512, new, header("a", 3)))
    assert index.error == "" and list(index.members) == ["a"]
    for cut in (BLOCK, BLOCK + 100, 2 * BLOCK):
        assert "ends after" in index_of(tmp_path, (bytes(old) + further)[:cut]).error


def test_pax_records_give_name_and_size(tmp_path):
    first = pax(path="näme.wav", size=1000, mtime="1.5", comment="path=no") + header("short", 0) + bytes(1024)
    index = index_of(tmp_path, with_end(first, header("b")))
    assert index.members == {"näme.wav": (3 * BLOCK, 1000), "b": (6 * BLOCK, 0)}


LONG = header("n", 6, tarfile.GNUTYPE_LONGNAME) + padded(b"name\0\0")


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "it ends after 0 bytes"),
        (b"junk" * 1000, "bad checksum|invalid header"),
        (b"\x1f\x8b" + bytes(600), "it is compressed with gzip"),
        (header("a", 5), "it ends after 512 bytes, without the mark"),
        (header("a", 5) + b"12345", "it ends after 517 bytes, without the mark"),
        (header("a", 5) + bytes(BLOCK) + b"\1" * BLOCK, "bad checksum|invalid header"),
        (with_end(pax(size="9" * 4000), header()), "size is not a number"),
        (with_end(pax(size="-1"), header()), "size is not a number"),
        (with_end(pax(size="9" * 20), header(), header("b")), "which no file has|ends after"),
        (with_end(header("a", 2**85), header("b")), "which no file has|ends after"),
        (with_end(*[LONG] * 9, header()), "too many or too large"),
        (with_end(header("n", 10**9, tarfile.GNUTYPE_LONGNAME)), "too many or too large"),
        (with_end(header("x", 10**9, tarfile.XHDTYPE)), "too many or too large"),
        (with_end(header("x", 9, tarfile.XHDTYPE), padded(b"9" * 9)), "pax records"),
        (with_end(header("x", 9, tarfile.XHDTYPE), padded(b"0 a=bcde\n")), "pax records"),
        (with_end(header("x", 9, tarfile.XHDTYPE), padded(b"9 abcdef\n")), "pax records"),
        (with_end(header("x", 9, tarfile.XHDTYPE), padded(b"8 a=bcde\n")), "pax records"),
        (with_end(header("x", 9, tarfile.XHDTYPE), padded(b"99 a=bcd\n")), "pax records"),
        (with_end(pax(**{f"k{number}": 1 for number in range(300)}), header()), "pax records"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, message):
    """The members before the damage are found."""
    index = index_of(tmp_path, content)
    assert re.search(message, index.error) and "\n" not in index.error and len(index.error) < 200
    index = index_of(tmp_path, header("good", 3) + padded(b"abc") + content)
    assert index.find("good") == (BLOCK, 3) and index.error


def test_a_chain_of_long_names_that_tar_writes(tmp_path):
    link = header("n", 6, tarfile.GNUTYPE_LONGLINK) + padded(b"link\0\0")
    everything = header("g", 0, tarfile.XGLTYPE) + link + pax(comment="x") + LONG + header("short", 3) + padded(b"abc")
    assert index_of(tmp_path, with_end(everything)).members == {"name": (len(everything) - BLOCK, 3)}


def test_the_number_of_headers_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_index, "MAX_HEADERS", 4)
    assert index_of(tmp_path, with_end(*[header(f"{n}") for n in range(5)])).error == ""  # of 3.5 KiB
    index = index_of(tmp_path, with_end(*[header(f"{n}") for n in range(9)]))  # of 5.5 KiB
    assert index.error == "it has more than 6 headers, too many for its size" and len(index.members) == 6
    assert index_of(tmp_path, with_end(*[header(f"{n}", 2048) + bytes(2048) for n in range(99)])).error == ""


def test_limits_of_extended_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_index, "MAX_EXTENSION_BYTES", 600)
    monkeypatch.setattr(tar_index, "MAX_RECORDS", 3)
    long = lambda size: header("n", size, tarfile.GNUTYPE_LONGNAME) + padded(b"x" * size)
    assert list(index_of(tmp_path, with_end(long(600), header())).members) == ["x" * 600]
    assert index_of(tmp_path, with_end(long(601), header())).error == (
        "the extended headers before byte 512 are too many or too large"
    )
    eight = with_end(*[LONG] * 8, header(), *[LONG] * 8, header("b"))  # the count begins anew
    assert index_of(tmp_path, eight).error == "" and index_of(tmp_path, eight).find("name") is not None
    assert index_of(tmp_path, with_end(pax(a=1, b=2, path="c"), header())).find("c") is not None
    assert "pax records" in index_of(tmp_path, with_end(pax(a=1, b=2, c=3, path="d"), header())).error
    size = "0" * 17 + "123"  # 20 digits
    assert index_of(tmp_path, with_end(pax(size=size), header(), bytes(BLOCK))).find("a.wav") == (
        3 * BLOCK - BLOCK * 0,
        123,
    )
    assert "not a number of bytes" in index_of(tmp_path, with_end(pax(size="0" + size), header())).error


def test_what_an_extended_header_says_is_of_one_member(tmp_path):
    parts = pax(path="first", size=5), header("x"), padded(b"12345"), header("second", 3), padded(b"abc")
    index = index_of(tmp_path, with_end(*parts))
    assert index.members == {"first": (3 * BLOCK, 5), "second": (5 * BLOCK, 3)} and index.error == ""
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        index = index_of(tmp_path, with_end(header("no bytes", 9, kind), header("a", 1), padded(b"x")))
        assert index.members == {"a": (2 * BLOCK, 1)}, kind
    index = index_of(tmp_path, with_end(header("of another kind", 9, b"V"), bytes(BLOCK), header("a", 1), padded(b"x")))
    assert index.members["a"] == (3 * BLOCK, 1)


def test_a_missing_file(tmp_path):
    assert TarIndex(tmp_path / "none.tar").error == "No such file or directory"
