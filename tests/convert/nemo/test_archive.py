import bz2
import gzip
import io
import lzma
import os
import tarfile
import zlib

import pytest

from convert.errors import ConvertError
from convert.nemo import archive
from convert.nemo.archive import open_nemo
from tests.convert.samples import file_of, header, tar
from tests.helpers.messages import ending

MEMBERS = {"./model_config.yaml": b"a: 1\n", "./model_weights.ckpt": b"w" * 1500, "x_tokenizer.model": b"t" * 512}
COMPRESSED = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@pytest.fixture
def file(tmp_path):
    def write(data: bytes):
        path = tmp_path / "model.nemo"
        path.write_bytes(data)
        return path

    return write


def contents(path) -> dict[str, bytes]:
    return {name: member.read() for name, member in open_nemo(path).items()}


@pytest.mark.parametrize("piece_bytes", [1 << 20, 100])
@pytest.mark.parametrize("compress", [lambda data: data, *COMPRESSED.values()], ids=["tar", *COMPRESSED])
def test_members_by_name(file, compress, piece_bytes, monkeypatch):
    monkeypatch.setattr(archive, "COPY_BYTES", piece_bytes)
    directory = (header(".", type=tarfile.DIRTYPE), b"")
    data = tar([directory, *((header(name, data), data) for name, data in MEMBERS.items())])
    expected = {name.removeprefix("./"): data for name, data in MEMBERS.items()}
    assert contents(file(compress(data))) == expected


@pytest.mark.parametrize(
    "info,message",
    [
        (header("/etc/passwd"), "'/etc/passwd', a path that leads out of the archive; refused"),
        (header("../up"), r"'\.\./up', a path that leads out of the archive; refused"),
        (header("a/../../up"), "a path that leads out of the archive"),
        (header("..\\up"), "a path that leads out of the archive"),
        (header("/abs", type=tarfile.DIRTYPE), "a path that leads out of the archive"),
        (header("soft", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'soft', which is a link; refused"),
        (header("hard", type=tarfile.LNKTYPE, linkname="model_config.yaml"), "'hard', which is a link; refused"),
        (header("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), "'null', which is neither a file nor a dir"),
        (header("disk", type=tarfile.BLKTYPE), "neither a file nor a directory"),
        (header("pipe", type=tarfile.FIFOTYPE), "neither a file nor a directory"),
        (header("model_config.yaml"), "'model_config.yaml' twice"),
        (header(".//./model_config.yaml"), "'model_config.yaml' twice"),
    ],
)
def test_members_that_are_refused(file, info, message):
    members = [(header(name, data), data) for name, data in MEMBERS.items()]
    for order in ([*members, (info, b"")], [members[0], (info, b""), *members[1:]]):
        with pytest.raises(ConvertError, match=message):
            open_nemo(file(tar(order)))


def test_sparse_members_are_refused(file, tmp_path):
    members = [(header(name, data), data) for name, data in MEMBERS.items()]
    sparse = header("GNUSparseFile/x", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    sparse.pax_headers |= {"GNU.sparse.name": "x", "GNU.sparse.realsize": "1000000000000"}
    target = tmp_path / "sparse.nemo"
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as made:
        sparse.size = 512
        for info, data in [*members, (sparse, b"1\n0\n0\n".ljust(512, b"\0"))]:
            made.addfile(info, io.BytesIO(data))
    with pytest.raises(
        ConvertError, match=ending(": has the member 'x', which is neither a file nor a directory; refused")
    ):
        open_nemo(target)


def extended(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    """Returns a header that extends the next one, with its body; it may claim another size."""
    info = header("extended", body, type=kind)
    info.size = len(body) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


@pytest.mark.parametrize(
    "headers,message",
    [
        (extended(tarfile.GNUTYPE_LONGNAME, b"name\0") * 2000, "has headers of headers without end; refused"),
        (extended(tarfile.XHDTYPE, b"8 a=bc\n") * 2000, "has headers of headers without end; refused"),
        (extended(tarfile.GNUTYPE_LONGNAME, bytes(5 << 20)), "has more than 4 MB of headers; refused"),
        (extended(tarfile.XHDTYPE, bytes(5 << 20)), "has more than 4 MB of headers; refused"),
        (extended(tarfile.XHDTYPE, b"9" * 100_000 + b" a=b\n"), "a number of a hundred digits"),
        (
            extended(tarfile.XHDTYPE, b"4015 size=" + b"9" * 4000 + b"\n"),
            "a number of a hundred digits",
        ),
        (extended(tarfile.XHDTYPE, b"11 size=-5\n"), "is cut short in its member|is damaged"),
        (extended(tarfile.XHDTYPE, b"21 GNU.sparse.map=x\n"), "not a complete"),
        (header("s", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT), "neither a file nor a directory"),
    ],
    ids=range(9),
)
def test_headers_are_bounded(file, headers, message):
    with pytest.raises(ConvertError, match=message):
        open_nemo(file(headers + tar(MEMBERS)))


def test_an_old_sparse_map_that_is_cut_short(file):
    block = bytearray(header("s", type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[482] = 1  # more of the map follows
    block[148:156] = b"%06o\0 " % sum(block[:148] + b" " * 8 + block[156:])
    for rest in (b"", b"\1" * 300, b"\1" * 5120):
        with pytest.raises(ConvertError, match=r"not a complete \.nemo archive"):
            open_nemo(file(bytes(block) + rest))


def test_files_that_macos_adds_are_ignored(file):
    litter = {"./._model_config.yaml": b"\0\5\x16\7", "./._model_weights.ckpt": b"x", ".DS_Store": b"x"}
    names = {name.removeprefix("./") for name in MEMBERS}
    assert set(contents(file(tar(MEMBERS | litter)))) == names
    in_a_folder = {f"model/{name}": data for name, data in (MEMBERS | litter).items()}
    assert set(contents(file(tar(in_a_folder)))) == names


def test_members_in_a_folder(file):
    inside = {f"model/{name.removeprefix('./')}": data for name, data in MEMBERS.items()}
    assert contents(file(tar(inside))) == {name.removeprefix("./"): data for name, data in MEMBERS.items()}
    assert "a/model_config.yaml" in contents(file(tar(inside | {"a/model_config.yaml": b""})))  # which of the two?


def test_too_many_members(file, monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 20)
    assert len(contents(file(tar({f"m{i}": b"" for i in range(20)})))) == 20
    with pytest.raises(ConvertError, match=ending(": has more than 20 members")):
        open_nemo(file(tar({f"m{i}": b"" for i in range(21)})))


def test_truncated_anywhere(file):
    """A tar ends with two blocks of zeros; further zeros are padding and may be missing."""
    data = tar(MEMBERS)
    end = 3 * 512 + 512 + 1536 + 512 + 1024
    for cut in [*range(0, end, 97), end - 1, *range(512, end, 512)]:
        with pytest.raises(ConvertError):
            open_nemo(file(data[:cut]))
    assert len(contents(file(data[:end]))) == 3


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED)
def test_truncated_anywhere_in_compressed_data(file, compress):
    data = compress(tar(MEMBERS))
    for cut in range(1, len(data)):
        with pytest.raises(ConvertError):
            open_nemo(file(data[:cut]))


def test_a_damaged_header_is_not_the_end(file):
    data = bytearray(tar(MEMBERS))
    data[1024 + 5] ^= 1  # in the name of the second member
    with pytest.raises(ConvertError, match=ending(": is damaged or cut short after its member 'model_config.yaml'")):
        open_nemo(file(bytes(data)))


def test_a_member_that_claims_to_be_larger_than_the_file(file):
    info = header("model_weights.ckpt")
    info.size = 1 << 45
    data = info.tobuf(tarfile.GNU_FORMAT) + b"w" * 1024
    with pytest.raises(ConvertError, match=ending(": is cut short in its member 'model_weights.ckpt'")):
        open_nemo(file(data))


@pytest.mark.parametrize("compress", COMPRESSED.values(), ids=COMPRESSED)
def test_bombs_stop_at_a_limit(file, monkeypatch, compress):
    monkeypatch.setattr(archive, "MAX_EXTRA_BYTES", 1 << 20)
    bomb = compress(bytes(16 << 20))
    with pytest.raises(ConvertError, match="decompresses to more than 20 times its size"):
        open_nemo(file(bomb))
    data = tar(MEMBERS)
    compressed = compress(data)
    monkeypatch.setattr(archive, "MAX_RATIO", 2)
    monkeypatch.setattr(archive, "MAX_EXTRA_BYTES", len(data) - 2 * len(compressed))
    assert len(contents(file(compressed))) == 3
    monkeypatch.setattr(archive, "MAX_EXTRA_BYTES", len(data) - 2 * len(compressed) - 1)
    with pytest.raises(ConvertError, match=r"model\.nemo: decompresses to more than 2 times its size; refused$"):
        open_nemo(file(compressed))


def test_the_memory_of_decompression_has_a_limit(file, monkeypatch):
    monkeypatch.setattr(archive, "MAX_XZ_BYTES", 1 << 10)
    with pytest.raises(
        ConvertError,
        match=ending(" is not a complete .nemo archive (a tar, or a compressed one): Memory usage limit exceeded"),
    ):
        open_nemo(file(lzma.compress(tar(MEMBERS))))


def test_a_machine_out_of_memory_is_not_a_damaged_file(file, monkeypatch):
    monkeypatch.setattr(archive, "_members", lambda source: [bytearray(1 << 60)])
    with pytest.raises(MemoryError):
        open_nemo(file(tar(MEMBERS)))


def test_numbers_in_headers_have_fewer_than_a_hundred_digits():
    assert archive.HeaderPart(file_of(b"9" * 99 + b"x" + b"9" * 99)).read(199) == b"9" * 99 + b"x" + b"9" * 99
    with pytest.raises(ConvertError, match=r"^has a number of a hundred digits in a header; refused$"):
        archive.HeaderPart(file_of(b"9" * 100)).read(100)


def test_files_that_are_not_archives(file, tmp_path):
    for data, message in [
        (b"", "is empty"),
        (b"\0" * 10, r"not a complete \.nemo archive"),
        (b"\0" * 10240, "has no members"),
        (b"text, not a tar\n" * 100, r"not a complete \.nemo archive"),
        (b"PK\3\4zip", "a zip file, not a .nemo archive"),
        (b"\x1f\x8bgarbage" * 10, r"not a complete \.nemo archive"),
        (gzip.compress(b"not a tar"), r"not a complete \.nemo archive"),
        (b"BZh9garbage" * 10, r"not a complete \.nemo archive"),
        (b"\xfd7zXZ\0garbage" * 10, r"not a complete \.nemo archive"),
        (b"\x28\xb5\x2f\xfdgarbage", "is compressed with zstd; run unzstd on it first"),
        (zlib.compress(tar(MEMBERS)), r"not a complete \.nemo archive"),
        (gzip.compress(gzip.compress(tar(MEMBERS))), r"not a complete \.nemo archive"),
    ]:
        with pytest.raises(ConvertError, match=message):
            open_nemo(file(data))
    with pytest.raises(ConvertError, match=ending(" is a directory")):
        open_nemo(tmp_path)
    with pytest.raises(ConvertError, match=ending(" can't be read: No such file or directory")):
        open_nemo(tmp_path / "none.nemo")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConvertError, match=ending(" is not a regular file")):
        open_nemo(tmp_path / "pipe")


def test_temporary_files_and_descriptors_are_released(file, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(ConvertError, match=ending(" can't be read: No such file or directory")):
        open_nemo(file(gzip.compress(tar(MEMBERS))), tmp_path / "none")
    members = open_nemo(file(gzip.compress(tar(MEMBERS))), scratch)
    assert list(scratch.iterdir()) == []
    assert members["model_weights.ckpt"].read() == b"w" * 1500
    descriptor = members["model_weights.ckpt"].file.descriptor
    del members
    with pytest.raises(OSError):
        os.fstat(descriptor)
