import io
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile

from nemojax.audio import decoders
from nemojax.audio.decoders import DecodedAudio, decode_array, decode_file, decode_pipe
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.window import Window
from tests.helpers.sounds import encoded, wav_bytes, wave, without_frame_count


def from_file(data: bytes, begin_s: float = 0.0) -> DecodedAudio:
    return decode_file(Window(io.BytesIO(data), 0, len(data)), begin_s, ExitStack())


def samples_of(decoded: DecodedAudio) -> np.ndarray:
    blocks = list(decoded.blocks)
    assert all(block.dtype == np.float32 and 0 < len(block) <= decoders.BLOCK_FRAMES for block in blocks)
    return np.concatenate(blocks) if blocks else np.zeros((0, decoded.channels), np.float32)


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavulaw", "aiff", "au", "w64", "flac", "vorbis", "opus", "mp3"])
def test_blocks_are_what_one_read_decodes(kind, monkeypatch):
    monkeypatch.setattr(decoders, "BLOCK_FRAMES", 997)
    file = encoded(wave(20_000, 2), 48_000, kind)
    decoded = from_file(file)
    expected, rate_hz = soundfile.read(io.BytesIO(file), dtype="float32")
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (rate_hz, 2, len(expected))
    np.testing.assert_allclose(samples_of(decoded), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3"])
@pytest.mark.parametrize("begin_s", [0.001, 0.3, 0.41, 9.0])
def test_seeks_are_exact(kind, begin_s):
    file = encoded(wave(20_000), 48_000, kind)
    decoded, whole = from_file(file, begin_s), samples_of(from_file(file))
    assert decoded.first_frame == (0 if kind in ("vorbis", "opus", "mp3") else min(round(begin_s * 48_000), 20_000))
    np.testing.assert_array_equal(samples_of(decoded), whole[decoded.first_frame :])


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_without_a_frame_count_is_decoded_to_its_end(mode):
    # loud, then quiet: guessed from its first frame, the length of a variable bit rate would be far too short
    samples = wave(50_000) * (np.arange(50_000) < 10_000)
    bare = without_frame_count(encoded(samples, 16_000, "mp3", bitrate_mode=mode, compression_level=0.5))
    decoded = from_file(bare)
    assert decoded.frames is None
    assert 50_000 <= len(samples_of(decoded)) <= 52_000


def test_flac_without_a_length():
    file = bytearray(encoded(wave(40_000), 16_000, "flac"))
    file[21] &= 0xF0  # the 36 bits of STREAMINFO's number of samples
    file[22:26] = bytes(4)
    decoded = from_file(bytes(file))
    assert decoded.frames is None and len(samples_of(decoded)) == 40_000
    with pytest.raises(UnnamedAudioError, match=r"truncated or damaged: it can't be decoded beyond \d\.\d+ s"):
        samples_of(from_file(bytes(file[: len(file) // 2])))


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_truncation_that_only_decoding_finds(kind):
    file = encoded(wave(160_000), 16_000, kind)
    for cut, at_least, at_most in ((len(file) - 1, 8.9, 10), (len(file) // 2, 3.9, 5.2), (6000, 0.0, 1.5)):
        with pytest.raises(UnnamedAudioError, match="truncated") as error:
            samples_of(from_file(file[:cut]))
        seconds = [float(word) for word in str(error.value).split() if word.replace(".", "").isdigit()]
        assert at_least <= seconds[0] <= at_most, error.value


def test_a_part_beyond_the_end_of_a_truncated_file():
    file = encoded(wave(160_000), 16_000, "flac")
    with pytest.raises(UnnamedAudioError, match=r"can't be decoded beyond 9\.900 s"):
        from_file(file[: len(file) // 2], begin_s=9.9)


def test_a_wav_without_a_size_is_decoded_to_its_end():
    data = (wave(1000) * 32767).astype("<i2").tobytes()
    for sizes in ((0, 0), (0, 36), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7FFF_F000, 0x7FFF_F024)):
        decoded = from_file(wav_bytes(data, *sizes))
        assert decoded.frames == 1000 and len(samples_of(decoded)) == 1000
    with pytest.raises(UnnamedAudioError, match=r"its encoding \(number 7\) needs one"):
        from_file(wav_bytes(data, 0, 0, coding=7, bits=8))


@pytest.mark.parametrize("kind", ["wav", "wavfloat", "vorbis", "aiff"])
def test_a_file_without_samples_is_valid(kind):
    assert len(samples_of(from_file(encoded(wave(0), 16_000, kind)))) == 0


JUNK = {
    "text": b"not audio at all\n" * 100,
    "png": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(1).bytes(2000),
    "random": np.random.default_rng(2).bytes(5000),
    "zeros": bytes(5000),
    "short": b"a",
    "riff": b"RIFF\x24\0\0\0WEBPVP8 ",
    "mp3": b"\xff\xfb\x90\0" + np.random.default_rng(3).bytes(2000),
}


@pytest.mark.parametrize("name", JUNK)
def test_files_that_are_not_audio(name):
    with pytest.raises(
        UnnamedAudioError, match="it is not audio, or is damaged, or is in a format that libsndfile does not read"
    ):
        from_file(JUNK[name])
    with pytest.raises(UnnamedAudioError, match=r"it is empty \(0 bytes\)"):
        from_file(b"")


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


def from_pipe(data: bytes, max_bytes: int = 1000) -> DecodedAudio:
    return decode_pipe(io.BufferedReader(SlowPipe(data, max_bytes)), 16_000, ExitStack())


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


def test_mp3_on_a_pipe_needs_its_tag():
    file = encoded(wave(3000), 16_000, "mp3")
    np.testing.assert_array_equal(
        samples_of(from_pipe(b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + file)), samples_of(from_file(file))
    )


@pytest.mark.parametrize("data", [b"\1\0", b"\1\0\2\0", bytes(12), bytes(14)])
def test_a_few_raw_samples(data):
    assert len(samples_of(from_pipe(data))) == len(data) // 2


def test_truncated_pipes():
    with pytest.raises(UnnamedAudioError, match="it ends after 2001 bytes, inside a sample, which takes 2 bytes"):
        samples_of(from_pipe(bytes(2001)))
    with pytest.raises(UnnamedAudioError, match="it ends after 1 bytes, inside a sample"):
        samples_of(from_pipe(b"a"))
    with pytest.raises(UnnamedAudioError, match=r"truncated: it ends after 0\.062 s of the 0\.125 s announced"):
        samples_of(from_pipe(wav_bytes(bytes(2000), 4000, 4036)))
    with pytest.raises(UnnamedAudioError, match="truncated: it ends after 20 bytes, inside its header"):
        from_pipe(wav_bytes(b"")[:20])
    with pytest.raises(UnnamedAudioError, match=r"it is empty \(0 bytes\)"):
        from_pipe(b"")
    with pytest.raises(UnnamedAudioError, match="truncated"):
        samples_of(from_pipe(encoded(wave(50_000), 16_000, "flac")[:-10]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("channels", [None, 1, 2, 64])
def test_arrays(dtype, channels):
    samples = wave(40_000, channels)
    samples = (samples * 32767).astype(dtype) if dtype == np.int16 else samples.astype(dtype)
    expected = samples.astype(np.float32) / (32768 if dtype == np.int16 else 1)
    decoded = decode_array(samples, 8000)
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (8000, channels or 1, 40_000)
    np.testing.assert_array_equal(samples_of(decoded), expected.reshape(40_000, -1))


@pytest.mark.parametrize(
    "source,message",
    [
        (np.zeros((2, 16_000)), r"its shape is \[2, 16000\].*transpose"),
        (np.zeros((2, 3, 4)), r"its shape is \[2, 3, 4\]"),
        (np.zeros(()), r"its shape is \[\]"),
        (np.zeros(5, np.int32), "its values are int32; samples are floats in -1 to 1, or int16"),
        (np.zeros(5, np.uint8), "its values are uint8"),
        (np.zeros(5, bool), "its values are bool"),
        (np.zeros(5, complex), "its values are complex128"),
        (np.array(["a"]), "its values are <U1"),
        (np.array([None]), "its values are object"),
        (None, "its values are object"),
        ([[0.1], [0.1, 0.2]], "it can't be made an array"),
    ],
)
def test_arrays_that_are_not_audio(source, message):
    with pytest.raises(UnnamedAudioError, match=message):
        decode_array(source, 16_000)
