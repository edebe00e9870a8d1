"""Damaged and hostile manifests and tar files: every line gives a recording or an error of one line, within bounds.

The bounds of any refusal are 10 s and 1 GB. Time is not measured here: it is bounded by the limits on headers and bytes
that `test_tar_index.py` and `test_manifest.py` check.
"""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemojax.audio.manifest import MAX_LINE_BYTES, numbered_entries
from nemojax.audio.source import Recording, open_audio
from nemojax.audio.tar_index import BLOCK, TarIndex
from nemojax.errors import AudioError
from tests.convert.test_hostile import JSON, damage
from tests.helpers.sounds import encoded, wave

fuzzed = settings(
    max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def check(path) -> None:
    """Reads a manifest and opens its audio; the only error may be an AudioError of one line."""
    for line in numbered_entries(path):
        error = line.recording
        if isinstance(error, Recording):
            try:
                open_audio(error).close()
                continue
            except AudioError as found:
                error = found
        # names in messages are escaped; the name of a recording itself is as it stands in the manifest
        shown = str(error).removeprefix(line.recording.name) if isinstance(line.recording, Recording) else str(error)
        assert str(error) and "\n" not in shown and len(shown) < 5000


@cache
def archive() -> bytes:
    """A tar file with all kinds of headers."""
    parts, sound = [], encoded(wave(400), 16_000)
    for form, begin in ((tarfile.GNU_FORMAT, "g"), (tarfile.PAX_FORMAT, "p")):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w", format=form) as archive:
            for name in ("a.wav", "é" + "x" * 120 + ".wav"):
                member = tarfile.TarInfo(begin + name)
                member.size, member.mtime = len(sound), 1.5
                archive.addfile(member, io.BytesIO(sound))
            end = archive.offset
        parts.append(made.getvalue()[:end])
    return b"".join(parts) + bytes(2 * BLOCK)


NAMES = ["ga.wav", "gé" + "x" * 120 + ".wav", "pa-sub1.wav", "pé" + "x" * 120 + ".flac", "none.wav"]


@cache
def manifest() -> bytes:
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    cut = {"id": "c", "start": 0, "duration": 0.01, "channel": 0, "recording": {"sources": [source]}, "type": "MonoCut"}
    nemo = [{"audio_filepath": name, "offset": 0.0, "duration": 0.01, "text": "é", "shard_id": 0} for name in NAMES]
    return "".join(json.dumps(line) + "\n" for line in [*nemo, cut]).encode()


def test_the_files_without_damage(tmp_path):
    (tmp_path / "tarred_audio_manifest.json").write_bytes(manifest())
    (tmp_path / "audio_0.tar").write_bytes(archive())
    lines = [line.recording for line in numbered_entries(tmp_path / "tarred_audio_manifest.json")]
    assert all(isinstance(line, Recording) for line in lines[:4]) and isinstance(lines[4], AudioError)
    check(tmp_path / "tarred_audio_manifest.json")


@pytest.mark.slow
@fuzzed
@given(st.data())
def test_damaged_tar_files(tmp_path, data):
    (tmp_path / "tarred_audio_manifest.json").write_bytes(manifest())
    (tmp_path / "audio_0.tar").write_bytes(data.draw(damage(archive())))
    check(tmp_path / "tarred_audio_manifest.json")


def with_kind(header: bytes, kind: bytes, size: bytes) -> bytes:
    """Returns a header of another kind and size field, with the checksum that belongs to it."""
    block = bytearray(header)
    block[156:157], block[124:136] = kind, size
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    assert len(block) == BLOCK
    return bytes(block)


KINDS = st.sampled_from([b"0", b"\0", b"1", b"2", b"5", b"7", b"L", b"K", b"x", b"X", b"g", b"S", b"V", b"?"])


@st.composite
def headers(draw) -> bytes:
    """Draws a header of any kind and size with a right checksum, and bytes after it."""
    block = tarfile.TarInfo(draw(st.text(max_size=80))).tobuf(tarfile.GNU_FORMAT, "utf-8", "replace")
    if draw(st.booleans()):
        block = block[:482] + draw(st.binary(min_size=13, max_size=13)) + block[495:]
    octal = st.integers(0, 3000).map(lambda size: b"%011o\0" % size)
    size = draw(octal | st.binary(min_size=12, max_size=12) | st.just(b"\x80" + b"\x7f" * 11))
    return with_kind(block, draw(KINDS), size) + draw(PAX | st.binary(max_size=40)).ljust(
        draw(st.sampled_from([0, BLOCK, 2 * BLOCK])), b"\0"
    )


KEYS = st.sampled_from([b"path", b"size", b"GNU.sparse.major", b"mtime", b"a"])
RECORDS = st.tuples(st.integers(0, 60) | st.just("9" * 4000), KEYS, st.binary(max_size=30) | st.just(b"9" * 4000))
PAX = st.lists(RECORDS.map(lambda parts: f"{parts[0]} ".encode() + parts[1] + b"=" + parts[2] + b"\n"), max_size=4).map(
    b"".join
)


@pytest.mark.slow
@fuzzed
@given(st.lists(headers(), max_size=6), st.booleans())
def test_tar_files_of_any_headers(tmp_path, parts, ended):
    path = tmp_path / "made.tar"
    path.write_bytes(b"".join(parts) + bytes(2 * BLOCK * ended))
    index = TarIndex(path)
    assert "\n" not in index.error and len(index.error) < 300
    for member in index.members.values():
        assert member.first_byte <= path.stat().st_size and member.size_bytes >= 0


@pytest.mark.slow
@fuzzed
@given(st.data(), st.booleans())
def test_damaged_manifests(tmp_path, data, packed):
    (tmp_path / "audio_0.tar").write_bytes(archive())
    content = gzip.compress(manifest()) if packed else manifest()
    (tmp_path / "m.jsonl").write_bytes(data.draw(damage(content)))
    check(tmp_path / "m.jsonl")


FIELDS = [
    *("audio_filepath", "audio_filename", "offset", "duration", "text", "text_filepath", "normalized_text"),
    *("shard_id", "_skipme", "type", "recording", "supervisions", "channel", "start", "id", "custom"),
]
VALUES = JSON | st.sampled_from(["ga.wav", "a\0b\n", "\ud800", "x" * 5000, ".", "/dev/zero", 10**400, 1e308, "MonoCut"])
SOURCES = st.fixed_dictionaries({}, optional={"type": VALUES, "channels": VALUES, "source": VALUES, "transforms": JSON})
RECORDINGS = VALUES | st.fixed_dictionaries({"sources": VALUES | st.lists(SOURCES, max_size=2)})
LINES = st.dictionaries(st.sampled_from(FIELDS), VALUES | RECORDINGS | st.lists(SOURCES, max_size=2), max_size=6)


@pytest.mark.slow
@fuzzed
@given(st.lists(LINES, min_size=1, max_size=4))
def test_lines_with_any_values(tmp_path, lines):
    (tmp_path / "audio_0.tar").write_bytes(archive())
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(tmp_path / "m.jsonl")


MEASURE = """
import resource, sys
from nemojax.audio.manifest import numbered_entries
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lines = numbered_entries(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, lines[0].recording)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zeros", "line breaks", "arrays", "one line", "headers", "long name"])
def test_memory_of_hostile_files(tmp_path, kind):
    """Small files that would take gigabytes, and large ones of nothing else than headers."""
    path, tar, header = tmp_path / "m.jsonl", tmp_path / "m.tar", tarfile.TarInfo("x").tobuf()
    path.write_text('{"audio_filepath": "a.wav"}\n')
    match kind:
        case "zeros":
            path.write_bytes(gzip.compress(bytes(2**30), 1))
        case "line breaks":
            path.write_bytes(gzip.compress(b"\n" * 2**30, 1))
        case "arrays":
            path.write_bytes(b'{"a": [' + b"[]," * (MAX_LINE_BYTES // 3 - 10) + b"1]}\n")
        case "one line":
            os.truncate(path, 2**33)  # sparse: it takes no room
        case "headers":
            tar.write_bytes(header * 300_000)
        case "long name":
            tar.write_bytes(with_kind(header, b"L", b"%011o\0" % (2**33 - 1)))
            os.truncate(tar, 2**33 + 2**20)
    command = [sys.executable, "-c", MEASURE, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kib, _, error = output.partition(" ")
    assert int(kib) < 2**20 and str(path) in error, error  # 1 GiB
