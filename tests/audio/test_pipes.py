import io
import os
import sys
import threading
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from nemojax.audio import pipes
from nemojax.audio.decoders import DecodedAudio
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.pipes import decode_pipe
from nemojax.audio.raw import parse_raw
from nemojax.audio.source import open_audio, read_all
from nemojax.errors import AudioError
from tests.audio.test_decoders import from_file, samples_of
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wav_bytes, wave


class SlowPipe(io.RawIOBase):
    """A pipe that returns at most `max_bytes` at a time."""

    def __init__(self, data: bytes, max_bytes: int):
        self.data, self.max_bytes = io.BytesIO(data), max_bytes

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.data.read(min(self.max_bytes, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def from_pipe(data: bytes, max_bytes: int = 1000, raw: str | None = None) -> DecodedAudio:
    pipe = io.BufferedReader(SlowPipe(data, max_bytes))
    return decode_pipe(pipe, 16_000, ExitStack(), raw and parse_raw(raw))


@pytest.mark.parametrize("max_bytes", [1, 7, 1000, 100_000])
def test_raw_pcm_is_decoded_as_it_arrives(max_bytes):
    samples = (wave(3000) * 32767).astype("<i2")
    decoded = from_pipe(samples.tobytes(), max_bytes)
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (16_000, 1, None)
    blocks = list(decoded.blocks)
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], samples / np.float32(32768))
    assert max(map(len, blocks)) <= max(
        max_bytes // 2 + 1, 6
    )  # the first 12 bytes, read to recognize the format, are 6 samples


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavfloat", "rf64"])
def test_a_wav_on_a_pipe_is_decoded_as_it_arrives(kind):
    file = encoded(wave(3000, 2), 44_100, kind)
    decoded = from_pipe(file + b"LIST\4\0\0\0abcd", max_bytes=700)
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (44_100, 2, 3000)
    blocks = list(decoded.blocks)
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), samples_of(from_file(file)))
    endless = wav_bytes(bytes(2000), 0xFFFF_FFFF, 0xFFFF_FFFF)
    assert len(samples_of(from_pipe(endless))) == 1000 and from_pipe(endless).frames is None


@pytest.mark.parametrize("kind", ["wavulaw", "flac", "vorbis", "aiff", "w64", "au"])
def test_other_formats_are_recognized_on_a_pipe(kind):
    file = encoded(wave(3000, 2), 44_100, kind)
    np.testing.assert_array_equal(samples_of(from_pipe(file)), samples_of(from_file(file)))


@pytest.mark.parametrize("tag", [b"", b"ID3\3\0\0\0\0\0\x0a" + bytes(10)])
def test_mp3_on_a_pipe(tag):
    file = encoded(wave(3000), 16_000, "mp3")
    np.testing.assert_array_equal(samples_of(from_pipe(tag + file)), samples_of(from_file(file)))


@pytest.mark.parametrize("data", [b"\1\0", b"\1\0\2\0", bytes(12), bytes(14)])
def test_a_few_raw_samples(data):
    assert len(samples_of(from_pipe(data))) == len(data) // 2


def test_truncated_pipes():
    decoded = from_pipe(bytes(2001))
    assert (
        len(samples_of(decoded)) == 1000 and "1 byte not used (a part of a sample of 2 bytes)" in decoded.report.notes
    )
    decoded = from_pipe(wav_bytes(bytes(2000), 4000, 4036))
    assert len(samples_of(decoded)) == 1000 and decoded.report.incomplete
    assert decoded.report.notes == ["its header announces 4000 bytes of samples, and it ends after 2000"]
    with pytest.raises(UnnamedAudioError, match=whole("truncated: it ends after 20 bytes, inside its header")):
        from_pipe(wav_bytes(b"")[:20])
    with pytest.raises(UnnamedAudioError, match=whole("it is empty (0 bytes)")):
        from_pipe(b"")
    decoded = from_pipe(encoded(wave(50_000), 16_000, "flac")[:-10])
    assert samples_of(decoded).any() and decoded.report.incomplete


@pytest.mark.parametrize(
    "data,what",
    [
        (b"<!DOCTYPE html>\n<p>502</p>", "text"),
        ('{"error": "größe"}'.encode(), "text"),
        (b"a", "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a PNG image"),
        (b"PK\3\4" + bytes(100), "a zip archive"),
    ],
)
def test_pipes_of_something_else_are_named(data, what):
    with pytest.raises(UnnamedAudioError) as caught:
        from_pipe(data)
    assert str(caught.value) == (
        f"it is not audio, but {what}; if it does hold samples, declare raw samples: "
        "--raw ENCODING,RATE,CHANNELS, such as s16le,16000,1"
    )


def test_undeclared_samples_are_taken_with_a_note():
    decoded = from_pipe((wave(3000) * 32767).astype("<i2").tobytes())
    assert decoded.report.notes == [
        "it has no header: read as 16-bit samples at 16000 Hz with 1 channel; --raw declares another layout"
    ]


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(1).bytes(9000),
        (0.1 * wave(9000)).astype("<f4").tobytes(),
        (0.1 * wave(9000)).astype("<f8").tobytes(),
        np.random.default_rng(1).bytes(900),
        np.full(3000, 0x7F, np.uint8).tobytes(),  # silence in mu-law, as 16 bits a constant of 1
    ],
)
def test_undeclared_samples_of_another_layout_are_refused(data):
    with pytest.raises(
        UnnamedAudioError,
        match=whole(
            "it has no header, and its bytes are not 16-bit samples at 16000 Hz with 1 channel; "
            "declare raw samples: --raw ENCODING,RATE,CHANNELS, such as s16le,16000,1"
        ),
    ):
        samples_of(from_pipe(data))


@pytest.mark.parametrize("max_bytes", [1, 700])
def test_declared_samples_on_a_pipe(max_bytes):
    samples = wave(500, 2)
    decoded = from_pipe(samples.astype(">f8").tobytes() + bytes(3), max_bytes, raw="f64be,8000,2")
    assert (decoded.rate_hz, decoded.channels) == (8000, 2)
    np.testing.assert_array_equal(samples_of(decoded), samples)
    assert decoded.report.notes == ["3 bytes not used (a part of a sample of 16 bytes)"]
    assert len(samples_of(from_pipe(b"<html> and more", raw="u8"))) == 15  # declared, so not guessed
    with pytest.raises(
        UnnamedAudioError, match=whole("it was declared as raw samples, but is an Ogg file; leave the declaration out")
    ):
        from_pipe(b"OggS" + bytes(100), raw="s16le")


SAMPLES = (wave(8000) * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("size", [100, 8000, 15_998])
def test_a_wav_on_a_pipe_that_goes_on_after_its_size(size):
    decoded = from_pipe(wav_bytes(SAMPLES, size))
    used = 8000 if size < 15_998 else size // 2
    assert len(samples_of(decoded)) == used
    note = "more follow: all are used" if size < 15_998 else "2 bytes not used (after the samples)"
    assert note in decoded.report.notes[0]


@pytest.mark.parametrize("following", [b"", b"\0", b"LIST\x40\x1f\0\0" + bytes(8000)])
def test_a_wav_on_a_pipe_with_chunks_after_the_samples(following):
    decoded = from_pipe(wav_bytes(SAMPLES) + following)
    assert len(samples_of(decoded)) == 8000 and not decoded.report.notes
    cut = following[:-1]
    decoded = from_pipe(wav_bytes(SAMPLES) + cut)
    notes = [f"{len(cut)} bytes not used (after the samples)"] if cut else []
    assert len(samples_of(decoded)) == 8000 and decoded.report.notes == notes


@pytest.mark.parametrize("between", [b"", b"LIST\3\0\0\0abc\0", b"id3 \4\0\0\0abcdLIST\2\0\0\0ab"])
def test_wavs_that_are_joined_on_a_pipe(between):
    decoded = from_pipe((wav_bytes(SAMPLES) + between) * 3)
    assert len(samples_of(decoded)) == 24_000
    assert decoded.report.notes == ["several recordings are joined in it: all are used"]
    other = wav_bytes(SAMPLES, rate_hz=8000)
    decoded = from_pipe(wav_bytes(SAMPLES) + between + other)
    assert len(samples_of(decoded)) == 8000 and decoded.report.incomplete
    assert decoded.report.notes == [f"{len(other)} bytes not used (another recording, at 8000 Hz, channels: 1)"]


def test_what_is_kept_of_a_pipe_is_bounded(monkeypatch):
    monkeypatch.setattr(pipes, "MAX_COPY_BYTES", 1 << 16)
    with pytest.raises(UnnamedAudioError, match=whole("it has more than 0 GiB; write it to a file, and name that")):
        from_pipe(encoded(wave(100_000), 16_000, "flac"))
    monkeypatch.setattr(pipes, "MAX_HEADER_BYTES", 1 << 16)
    with pytest.raises(UnnamedAudioError, match=whole("its header has more than 0 MiB")):
        from_pipe(wav_bytes(b"")[:12] + b"junk\0\0\x10\0" + bytes(1 << 20))


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_objects_that_can_only_read(kind):
    class Response:
        def __init__(self, data):
            self.file = io.BytesIO(data)

        def read(self, size):
            return self.file.read(size)

    file = encoded(wave(3000), 16_000, kind)
    decoded = decode_pipe(Response(file), 16_000, ExitStack())
    np.testing.assert_array_equal(samples_of(decoded), samples_of(from_file(file)))
    with pytest.raises(UnnamedAudioError, match=whole("reading it gives str, not bytes; open it in binary mode")):
        decode_pipe(io.StringIO("text"), 16_000, ExitStack())


@pytest.fixture
def standard_input(monkeypatch):
    """A function that puts bytes, or a pipe, on standard input."""

    def put(content: bytes | int):
        file = os.fdopen(content, "rb") if isinstance(content, int) else io.BufferedReader(io.BytesIO(content))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file))

    return put


def test_standard_input(standard_input):
    samples = (wave(20_000) * 32767).astype("<i2")
    for content in (samples.tobytes(), wav_bytes(samples.tobytes()), encoded(samples, 16_000, "flac")):
        standard_input(content)
        audio = open_audio("-")
        assert audio.name == "standard input"
        np.testing.assert_array_equal(audio.read(10**6), samples / np.float32(32768))
    standard_input(b"")
    with pytest.raises(AudioError, match=whole("standard input: it is empty (0 bytes)")):
        open_audio("-")
    standard_input(bytes(2001))
    audio = open_audio("-", raw="s16le,8000,1")
    assert len(audio.read(10**6)) == 2000
    assert audio.notes == ("resampled from 8000 Hz", "1 byte not used (a part of a sample of 2 bytes)")


@pytest.mark.parametrize("header", [b"", wav_bytes(b"", 0xFFFF_FFFF, 0xFFFF_FFFF)])
def test_a_live_pipe(standard_input, header):
    reader, writer = os.pipe()
    standard_input(reader)
    samples = (wave(30_000) * 32767).astype("<i2")
    expected = samples / np.float32(32768)
    os.write(writer, header + samples[:100].tobytes() + b"\x01")  # and half a sample
    audio = open_audio("-")
    assert audio.duration_s is None
    first = audio.read_available(16_000)
    while len(first) < 100:
        first = np.concatenate([first, audio.read_available(16_000)])
    np.testing.assert_array_equal(first, expected[:100])  # without waiting for more
    os.write(writer, b"\x00" + samples[100:].tobytes()[:200])
    assert len(audio.read_available(30)) == 30
    later = threading.Timer(0.05, lambda: (os.write(writer, samples[:20_000].tobytes()), os.close(writer)))
    later.start()
    assert len(audio.read(15_000)) == 15_000  # after waiting for them
    while len(audio.read_available(1000)):
        pass
    later.join()


def test_a_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    data = wav_bytes((wave(5000) * 32767).astype("<i2").tobytes())
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(data))
    writer.start()
    assert len(read_all(tmp_path / "pipe")) == 5000
    writer.join()
