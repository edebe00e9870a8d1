"""Damaged and invented files: every one is decoded or refused by one sentence, within stated bounds."""

import io
import struct
import tracemalloc
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemojax.audio.source import open_audio
from nemojax.errors import AudioError
from tests.helpers.sounds import encoded, wav_bytes, wave

KINDS = ["wav", "wav24", "wavfloat", "wavulaw", "wavima", "rf64", "aiff", "au", "w64", "caf", "flac", "vorbis", "mp3"]
FILES = {kind: encoded(0.5 * wave(9000, 2), 16_000, kind) for kind in KINDS}
MAX_MEMORY_BYTES = 200_000_000
SIZES = (0, 1, 2, 7, 44, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)
fuzzed = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def check(data: bytes, **options) -> None:
    """Reads a file from memory and from a pipe: samples and notes, or one sentence."""
    for source in (data, Unseekable(data)):
        try:
            with closing(open_audio(source, **options)) as audio:
                while len(block := audio.read(65_536)):
                    assert block.dtype == np.float32 and np.abs(block).max() < 16  # a resampler overshoots
                assert all("\n" not in note and len(note) < 500 for note in audio.notes)
        except AudioError as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < 700


class Unseekable(io.BytesIO):
    def seekable(self):
        return False


def header_chunks():
    size = st.one_of(st.sampled_from(SIZES), st.integers(0, 100))
    name = st.sampled_from([b"fmt ", b"data", b"LIST", b"ds64", b"fact", b"RIFF", b"WAVE", b"\0\0\0\0", b"junk"])
    body = st.one_of(
        st.binary(max_size=60),
        st.builds(
            lambda *fields: struct.pack("<HHIIHH", *fields),
            *(st.sampled_from([0, 1, 2, 3, 6, 7, 17, 49, 85, 0xFFFE]), st.sampled_from([0, 1, 2, 64, 65, 65_535])),
            *(st.sampled_from([0, 1, 8000, 16_000, 2**32 - 1]), st.just(0)),
            *(st.sampled_from([0, 1, 2, 4, 6, 65_535]), st.sampled_from([0, 1, 8, 16, 24, 32, 64, 65_535])),
        ),
    )
    chunk = st.builds(
        lambda name, body, size: name + struct.pack("<I", len(body) if size is None else size) + body,
        *(name, body, st.one_of(st.none(), st.none(), size)),
    )
    return st.builds(
        lambda magic, size, chunks: magic + struct.pack("<I", size) + b"WAVE" + b"".join(chunks),
        *(st.sampled_from([b"RIFF", b"RIFX", b"RF64"]), size, st.lists(chunk, max_size=8)),
    )


@pytest.mark.slow
@fuzzed
@given(header_chunks(), st.sampled_from([b"", bytes(3001), FILES["wav"]]))
def test_invented_wavs(header, rest):
    check(header + rest)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@fuzzed
@given(st.data())
def test_damaged_files(kind, data):
    """Bytes are changed, mostly in the header; a piece is cut out, or put in twice; the end is cut off."""
    file = bytearray(FILES[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.one_of(st.integers(0, 100), st.integers(0, len(file) - 1)))
        new = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(SIZES).map(pack)))
        file[place : place + len(new)] = new
    begin, end = sorted(data.draw(st.tuples(st.integers(0, len(file)), st.integers(0, len(file)))))
    change = data.draw(st.sampled_from(["none", "cut", "twice", "end", "joined"]))
    changed = {
        "none": file,
        "cut": file[:begin] + file[end:],
        "twice": file[:end] + file[begin:],
        "end": file[:end],
        "joined": file + FILES[data.draw(st.sampled_from(KINDS))],
    }
    check(bytes(changed[change]), channel=data.draw(st.sampled_from([None, 0, "average"])))


def pack(size: int) -> bytes:
    return struct.pack("<I", size)


@pytest.mark.slow
@fuzzed
@given(st.binary(max_size=5000), st.sampled_from([None, "s16le", "f64be,8000,3", "mulaw,8000"]))
def test_any_bytes(data, raw):
    check(data, raw=raw)


HOSTILE = {
    "many chunks": wav_bytes(b"")[:12] + b"junk\0\0\0\0" * 2_000_000,
    "many chunks after the samples": wav_bytes(bytes(100)) + b"junk\0\0\0\0" * 200_000,
    "a chunk of 4 GiB": wav_bytes(b"")[:12] + b"junk\xff\xff\xff\xff" + bytes(100),
    "a tag of 256 MB": b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(1000),
    "many joined wavs": wav_bytes(b"ab") * 300,
    "many Ogg pages": (b"OggS\0\2" + bytes(21)) * 50_000,
    "many flac headers": b"fLaC\0\0\0\x22" * 300_000,
    "frames without an end": b"\xff\xfb\x90\0" * 5_000,
    "bytes of 255": b"\xff" * 4_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_is_bounded(name):
    tracemalloc.start()
    check(HOSTILE[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES
