import io
from contextlib import ExitStack

import numpy as np
import pytest
import soundfile

from nemojax.audio import decoders as tracks
from nemojax.audio.decoders import array_track, file_track, pipe_track
from nemojax.audio.headers import Fault, Window
from tests.helpers.sounds import encoded, wav_bytes, wave, without_frame_count


def opened(data: bytes, begin_s: float = 0.0):
    return file_track(Window(io.BytesIO(data), 0, len(data)), begin_s, ExitStack())


def heard(track) -> np.ndarray:
    blocks = list(track.blocks)
    assert all(block.dtype == np.float32 and 0 < len(block) <= tracks.BLOCK_FRAMES for block in blocks)
    return np.concatenate(blocks) if blocks else np.zeros((0, track.channels), np.float32)


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavulaw", "aiff", "au", "w64", "flac", "vorbis", "opus", "mp3"])
def test_blocks_are_what_one_read_decodes(kind, monkeypatch):
    monkeypatch.setattr(tracks, "BLOCK_FRAMES", 997)
    file = encoded(wave(20_000, 2), 48_000, kind)
    track = opened(file)
    expected, rate_hz = soundfile.read(io.BytesIO(file), dtype="float32")
    assert (track.rate_hz, track.channels, track.frames) == (rate_hz, 2, len(expected))
    np.testing.assert_allclose(heard(track), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3"])
@pytest.mark.parametrize("begin_s", [0.001, 0.3, 0.41, 9.0])
def test_where_a_decoder_can_go_it_goes_exactly(kind, begin_s):
    file = encoded(wave(20_000), 48_000, kind)
    track, whole = opened(file, begin_s), heard(opened(file))
    assert track.first == (0 if kind in ("vorbis", "opus", "mp3") else min(round(begin_s * 48_000), 20_000))
    np.testing.assert_array_equal(heard(track), whole[track.first :])


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_without_a_frame_count_is_decoded_to_its_end(mode):
    # loud, then quiet: guessed from its first frame, the length of a variable bit rate would be far too short
    samples = wave(50_000) * (np.arange(50_000) < 10_000)
    bare = without_frame_count(encoded(samples, 16_000, "mp3", bitrate_mode=mode, compression_level=0.5))
    track = opened(bare)
    assert track.frames is None
    assert 50_000 <= len(heard(track)) <= 52_000


def test_flac_without_a_length():
    file = bytearray(encoded(wave(40_000), 16_000, "flac"))
    file[21] &= 0xF0  # the 36 bits of STREAMINFO's number of samples
    file[22:26] = bytes(4)
    track = opened(bytes(file))
    assert track.frames is None and len(heard(track)) == 40_000
    with pytest.raises(Fault, match=r"truncated or damaged: it can't be decoded beyond \d\.\d+ s"):
        heard(opened(bytes(file[: len(file) // 2])))


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_cut_files_that_only_decoding_finds(kind):
    file = encoded(wave(160_000), 16_000, kind)
    for cut, at_least, at_most in ((len(file) - 1, 8.9, 10), (len(file) // 2, 3.9, 5.2), (6000, 0.0, 1.5)):
        with pytest.raises(Fault, match="truncated") as fault:
            heard(opened(file[:cut]))
        seconds = [float(word) for word in str(fault.value).split() if word.replace(".", "").isdigit()]
        assert at_least <= seconds[0] <= at_most, fault.value


def test_a_part_where_a_cut_file_has_none():
    file = encoded(wave(160_000), 16_000, "flac")
    with pytest.raises(Fault, match=r"can't be decoded beyond 9\.900 s"):
        opened(file[: len(file) // 2], begin_s=9.9)


def test_a_wav_of_no_length_goes_to_the_end():
    data = (wave(1000) * 32767).astype("<i2").tobytes()
    for sizes in ((0, 0), (0, 36), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7FFF_F000, 0x7FFF_F024)):
        track = opened(wav_bytes(data, *sizes))
        assert track.frames == 1000 and len(heard(track)) == 1000
    with pytest.raises(Fault, match=r"a coding \(number 7\) that needs one"):
        opened(wav_bytes(data, 0, 0, coding=7, bits=8))


@pytest.mark.parametrize("kind", ["wav", "wavfloat", "vorbis", "aiff"])
def test_no_samples_are_no_fault(kind):
    assert len(heard(opened(encoded(wave(0), 16_000, kind)))) == 0


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
def test_what_is_not_audio(name):
    with pytest.raises(Fault, match="it is not audio, or is damaged, or is in a format that libsndfile does not read"):
        opened(JUNK[name])
    with pytest.raises(Fault, match=r"it is empty \(0 bytes\)"):
        opened(b"")


class Slow(io.RawIOBase):
    """A pipe that brings at most so many bytes at a time."""

    def __init__(self, data: bytes, most: int):
        self.data, self.most = io.BytesIO(data), most

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.data.read(min(self.most, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def piped(data: bytes, most: int = 1000):
    return pipe_track(io.BufferedReader(Slow(data, most)), 16_000, ExitStack())


@pytest.mark.parametrize("most", [1, 7, 1000, 100_000])
def test_raw_pcm_comes_in_blocks_as_it_arrives(most):
    samples = (wave(3000) * 32767).astype("<i2")
    track = piped(samples.tobytes(), most)
    assert (track.rate_hz, track.channels, track.frames) == (16_000, 1, None)
    blocks = list(track.blocks)
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], samples / np.float32(32768))
    assert max(map(len, blocks)) <= max(most // 2 + 1, 6)  # 6: the first 12 bytes, which tell what it is


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavfloat", "rf64"])
def test_a_wav_comes_in_blocks_as_it_arrives(kind):
    file = encoded(wave(3000, 2), 44_100, kind)
    track = piped(file + b"LIST\4\0\0\0abcd", most=700)
    assert (track.rate_hz, track.channels, track.frames) == (44_100, 2, 3000)
    blocks = list(track.blocks)
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), heard(opened(file)))
    endless = wav_bytes(bytes(2000), 0xFFFF_FFFF, 0xFFFF_FFFF)
    assert len(heard(piped(endless))) == 1000 and piped(endless).frames is None


@pytest.mark.parametrize("kind", ["wavulaw", "flac", "vorbis", "aiff", "w64", "au"])
def test_other_formats_are_recognised_on_a_pipe(kind):
    file = encoded(wave(3000, 2), 44_100, kind)
    np.testing.assert_array_equal(heard(piped(file)), heard(opened(file)))


def test_mp3_on_a_pipe_needs_its_tag():
    file = encoded(wave(3000), 16_000, "mp3")
    np.testing.assert_array_equal(heard(piped(b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + file)), heard(opened(file)))


@pytest.mark.parametrize("data", [b"\1\0", b"\1\0\2\0", bytes(12), bytes(14)])
def test_a_few_raw_samples(data):
    assert len(heard(piped(data))) == len(data) // 2


def test_cut_pipes():
    with pytest.raises(Fault, match="it ends after 2001 bytes, inside a sample, which takes 2 bytes"):
        heard(piped(bytes(2001)))
    with pytest.raises(Fault, match="it ends after 1 bytes, inside a sample"):
        heard(piped(b"a"))
    with pytest.raises(Fault, match=r"truncated: it ends after 0\.062 s of the 0\.125 s announced"):
        heard(piped(wav_bytes(bytes(2000), 4000, 4036)))
    with pytest.raises(Fault, match="truncated: it ends after 20 bytes, inside its header"):
        piped(wav_bytes(b"")[:20])
    with pytest.raises(Fault, match=r"it is empty \(0 bytes\)"):
        piped(b"")
    with pytest.raises(Fault, match="truncated"):
        heard(piped(encoded(wave(50_000), 16_000, "flac")[:-10]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("channels", [None, 1, 2, 64])
def test_arrays(dtype, channels):
    samples = wave(40_000, channels)
    samples = (samples * 32767).astype(dtype) if dtype == np.int16 else samples.astype(dtype)
    expected = samples.astype(np.float32) / (32768 if dtype == np.int16 else 1)
    track = array_track(samples, 8000)
    assert (track.rate_hz, track.channels, track.frames) == (8000, channels or 1, 40_000)
    np.testing.assert_array_equal(heard(track), expected.reshape(40_000, -1))


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
def test_arrays_that_are_not_sound(source, message):
    with pytest.raises(Fault, match=message):
        array_track(source, 16_000)
