import numpy as np
import pytest

from nemojax.audio.formats import HEAD_BYTES, identify, is_text
from tests.helpers.sounds import KINDS, encoded, wave

READ = {"wav": "a wav file", "rf64": "a wav file", "w64": "a w64 file", "aiff": "an AIFF file", "au": "an au file"}
READ |= {"caf": "a caf file", "flac": "a flac file", "vorbis": "an Ogg file", "opus": "an Ogg file", "mp3": "an mp3"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_formats_that_libsndfile_reads(kind):
    form = identify(encoded(wave(3000), 16_000, kind)[:HEAD_BYTES])
    assert form.sndfile and form.is_audio and form.name == READ.get(kind, "a wav file")


@pytest.mark.parametrize(
    "head,name",
    [
        (b"RIFX\0\0\0\0WAVE", "a wav file"),
        (b"RF64\0\0\0\0WAVE", "a wav file"),
        (b"FORM\0\0\0\0AIFC", "an AIFF file"),
        (b"FORM\0\0\0\0AIFF", "an AIFF file"),
    ],
)
def test_other_forms_of_the_formats_that_libsndfile_reads(head, name):
    form = identify(head + bytes(8))
    assert form.name == name and form.sndfile and form.is_audio


ADTS = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)  # a frame of 16 bytes


@pytest.mark.parametrize(
    "head,demuxer",
    [
        (b"\0\0\0\x1cftypM4A ", "mov"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81", "matroska"),
        (ADTS * 2, "aac"),
        (b"#!AMR\n", "amr"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        ((b"G" + bytes(187)) * 3, "mpegts"),
        (b"\0\0\0\x08moov", "mov"),
        (b"\0\0\0\x08mdat", "mov"),
        (b"FLV\x01", "flv"),
        (b"wvpk", "wv"),
        (b"MAC \x96\x0f", "ape"),
    ],
)
def test_the_formats_that_only_ffmpeg_reads(head, demuxer):
    form = identify(head)
    assert form.demuxer == demuxer and form.is_audio and not form.sndfile
    assert identify(b"x" + head) is not form  # at the beginning only


def test_formats_that_libsndfile_and_ffmpeg_read():
    """A wav, an Ogg and a caf file can have encodings that only ffmpeg decodes."""
    found = {kind: identify(encoded(wave(3000), 16_000, kind)[:HEAD_BYTES]).demuxer for kind in KINDS}
    assert {kind: demuxer for kind, demuxer in found.items() if demuxer} == {
        **dict.fromkeys(("wav", "wav24", "wavfloat", "wavulaw", "wavima", "rf64"), "wav"),
        **dict.fromkeys(("vorbis", "opus"), "ogg"),
        "caf": "caf",
    }
    for head in (b"NIST_1A\n   1024\n", b"ID3\x02", b"ID3\x04"):
        assert identify(head).sndfile and not identify(head).demuxer
    assert identify(b"ID3\x05\0") is None and identify(b"ID3\x01\0") is None


@pytest.mark.parametrize(
    "head,name",
    [
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"PK\3\4", "a zip archive"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"GIF89a", "a GIF image"),
        (b"RIFF\0\0\0\0WEBP", "a WebP image"),
        (b"\x1f\x8b\x08", "data compressed by gzip"),
        (b"%PDF-1.7", "a PDF document"),
        (bytes(257) + b"ustar", "a tar archive"),
        (b"BZh91AY&SY", "data compressed by bzip2"),
        (b"\xfd7zXZ\0", "data compressed by xz"),
        (b"\x28\xb5\x2f\xfd", "data compressed by zstd"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\7", "a rar archive"),
        (b"\x93NUMPY\1", "a NumPy array; load it in Python"),
        (b"\x7fELF\2", "a program"),
        (b"MThd\0\0\0\6", "a MIDI file"),
        (b"SQLite format 3\0", "a database"),
        (b"<html>", "text"),
        (b'{"error": 1}', "text"),
        ("größer".encode(), "text"),
        ("größer".encode()[:3], "text"),  # cut within a letter
    ],
)
def test_what_is_not_audio_has_a_name(head, name):
    form = identify(head)
    assert form.name == name and not form.is_audio


def test_samples_have_no_format():
    rng = np.random.default_rng(0)
    quiet = rng.integers(-3, 4, 3000).astype("<i2").tobytes()
    for samples in (bytes(4096), b"\xff" * 4096, quiet, (wave(3000) * 32_767).astype("<i2").tobytes()):
        assert identify(samples[:12]) is None and identify(samples) is None
    one_frame = encoded(wave(3000), 16_000, "mp3")[:4]
    assert identify(one_frame + bytes(4092)) is None  # a frame needs another one after it


def test_text():
    assert is_text("\ufeffa\f".encode()) and not is_text(b"\xc3\xa9\xc3" + b"a") and not is_text(b"a\x1b")
    assert is_text(b"a\tb\r\n") and not is_text(b"") and not is_text(b"a\0b") and not is_text(b"\xff\xfe")
