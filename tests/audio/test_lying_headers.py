"""Files whose headers, tags and counts contradict their bytes: the bytes count, and the difference is a note."""

import io
import struct
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.audio.decoders import decode_file
from nemojax.audio.pipes import decode_pipe
from nemojax.audio.window import Window
from tests.helpers.sounds import encoded, wave

FRAMES = 40_000


def decoded(data: bytes) -> tuple[np.ndarray, list[str]]:
    found = decode_file(Window(io.BytesIO(data), 0, len(data)), 0.0, ExitStack())
    samples = np.concatenate(list(found.blocks))
    return samples[:, 0], found.report.notes


def mp3() -> bytes:
    return encoded(wave(FRAMES), 16_000, "mp3")


def tag(size: int, content: bytes) -> bytes:
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + content


@pytest.mark.parametrize(
    "before",
    [tag(1 << 27, b"TIT2abc"), tag(5000, b"TIT2abc"), tag(10, bytes(500)), tag(3, b"abc") + tag(900, b"T")],
)
def test_a_tag_of_another_size_than_it_says(before, capfd):
    expected, _ = decoded(mp3())
    samples, notes = decoded(before + mp3())
    assert notes == ["the size of its ID3 tag is wrong"]
    np.testing.assert_array_equal(samples, expected)
    assert capfd.readouterr().err == ""  # libmpg123 would print a warning


def test_a_tag_of_which_libmpg123_would_print_a_warning(capfd):
    frame_too_large = b"APIC" + struct.pack(">I", 1 << 20) + bytes(2) + bytes(100)
    samples, notes = decoded(tag(len(frame_too_large), frame_too_large) + mp3())
    assert len(samples) == FRAMES and notes == [] and capfd.readouterr().err == ""


@pytest.mark.parametrize("frames", [0, 1, 20])
def test_a_count_of_frames_that_is_too_small(frames):
    data = mp3()
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    held = int.from_bytes(data[at : at + 4], "big")
    expected, _ = decoded(data)
    samples, notes = decoded(data[:at] + frames.to_bytes(4, "big") + data[at + 4 :])
    assert notes == [f"its header announces {frames} MPEG frames, and it holds {held}: all are used"]
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("size", [0, 3000, 1 << 31])
def test_a_count_of_bytes_that_is_wrong(size, capfd):
    data = mp3()
    at = max(data.find(b"Xing"), data.find(b"Info")) + 12
    samples, notes = decoded(data[:at] + size.to_bytes(4, "big") + data[at + 4 :])
    assert len(samples) == FRAMES and notes == [] and capfd.readouterr().err == ""


def test_an_mp3_that_is_cut_prints_nothing(capfd):
    samples, notes = decoded(mp3()[:-1000])
    assert 0.8 * FRAMES < len(samples) < FRAMES and "and it ends after" in notes[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3", "caf"])
def test_audio_that_begins_after_other_data(kind):
    data = encoded(wave(FRAMES), 16_000 if kind != "opus" else 48_000, kind)
    expected, _ = decoded(data)
    for before in (b"HTTP/1.1 200 OK\r\n\r\n", b"\0\xff\xfb" * 300):
        samples, notes = decoded(before + data)
        assert notes == [f"{len(before)} bytes not used (before the audio)"]
        np.testing.assert_array_equal(samples, expected)


def test_joined_caf_files():
    first = encoded(wave(3000), 16_000, "caf")
    samples, notes = decoded(first + first)
    assert len(samples) == 6000 and notes == ["several recordings are joined in it: all are used"]


@pytest.mark.parametrize("endian", ["BIG", "LITTLE"])
def test_au_files_of_both_orders_of_bytes(endian):
    data = encoded(wave(3000), 16_000, "au", endian=endian)
    expected, notes = decoded(data)
    assert len(expected) == 3000 and notes == []
    for changed in (data[:4] + bytes(4) + data[8:], data[:8] + bytes(4) + data[12:]):  # no header, and no samples
        found, notes = decoded(changed)
        np.testing.assert_array_equal(found, expected)
        assert notes == []
    half = (3000).to_bytes(4, endian.lower())
    assert len(decoded(data[:8] + half + data[12:])[0]) == 3000
    piped = decode_pipe(SimpleNamespace(read1=io.BytesIO(data).read1), 16_000, ExitStack())
    np.testing.assert_array_equal(np.concatenate(list(piped.blocks))[:, 0], expected)


@pytest.mark.parametrize("kind", ["wav", "wavulaw", "wavima"])
def test_a_wav_with_further_chunks_of_samples(kind):
    first = encoded(wave(3000), 16_000, kind)
    at = first.index(b"data") + 8
    samples, chunk = first[at : at + 500], b"data" + struct.pack("<I", 500)
    data = first + bytes(len(first) % 2) + chunk + samples + b"LIST\1\0\0\0a\0" + chunk + samples
    found, notes = decoded(data)
    if kind == "wavima":  # whose blocks only libsndfile decodes
        assert notes == ["500 bytes not used (in further chunks of samples)"]
        return
    expected, _ = decoded(first)
    again = expected[: 250 if kind == "wav" else 500]
    np.testing.assert_array_equal(found, np.concatenate([expected, again, again]))
    assert notes == ["its samples are in several chunks: all are used"]
    stack, pipe = ExitStack(), SimpleNamespace(read1=io.BytesIO(data).read1)
    piped = decode_pipe(pipe, 16_000, stack)
    np.testing.assert_array_equal(np.concatenate(list(piped.blocks))[:, 0], found)
    assert piped.report.notes == notes


def test_a_wav_of_64_bit_sizes_by_its_other_name():
    data = encoded(wave(3000), 16_000, "rf64")
    np.testing.assert_array_equal(decoded(b"BW64" + data[4:])[0], decoded(data)[0])
