import io
from pathlib import Path

import numpy as np
import pytest
import soxr

from nemojax.audio.stream_input import StreamInput
from nemojax.errors import AudioError, ConfigError
from tests.helpers.sounds import encoded, wave

SAMPLES = wave(4000)


def taken(audio: StreamInput, *pieces) -> np.ndarray:
    return np.concatenate([*(audio.take(audio.check(piece)) for piece in pieces), audio.end()])


def test_what_a_stream_takes(tmp_path):
    pcm = np.round(SAMPLES * 32_767).astype(np.int16)
    expected = pcm / np.float32(32_768)
    file = encoded(pcm, 16_000, "wav")
    Path(tmp_path / "a.wav").write_bytes(file)
    for piece in (
        *(pcm, pcm.astype(">i2"), pcm[:, None], pcm[None], pcm.astype(np.int32) << 16, expected, expected.tolist()),
        *(expected.astype(np.float64), (16_000, pcm), (pcm, 16_000), {"array": expected, "sampling_rate": 16_000}),
        *(file, bytearray(file), io.BytesIO(file), tmp_path / "a.wav", str(tmp_path / "a.wav")),
    ):
        np.testing.assert_array_equal(taken(StreamInput(16_000), piece), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_what_is_taken_is_no_longer_the_callers(dtype):
    """A program that records may fill the same array again and again."""
    audio, given = StreamInput(16_000), np.full(100, 1, dtype)
    parts = audio.take(audio.check(given))
    expected = parts.copy()
    given[:] = 0
    np.testing.assert_array_equal(parts, expected)


@pytest.mark.parametrize("rate_hz", [8000, 44_100])
def test_pieces_at_any_rate(rate_hz):
    audio = StreamInput(16_000, rate_hz)
    parts = taken(audio, SAMPLES[:7], SAMPLES[:0], SAMPLES[7:1234], (rate_hz, SAMPLES[1234:]))
    np.testing.assert_array_equal(parts, soxr.resample(SAMPLES, rate_hz, 16_000))
    assert audio.duration_s == 4000 / rate_hz and audio.notes == (f"resampled from {rate_hz} Hz",)
    assert not len(audio.end())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_bytes_of_declared_samples(size):
    data = SAMPLES[:500].astype(">f4").tobytes() + b"\1\2\3"
    audio = StreamInput(16_000, raw="f32be,8000")
    parts = taken(audio, *(data[begin : begin + size] for begin in range(0, len(data), size)))
    np.testing.assert_array_equal(parts, soxr.resample(SAMPLES[:500], 8000, 16_000))
    assert audio.rate_hz == 8000 and audio.duration_s == 500 / 8000
    assert audio.notes == ("resampled from 8000 Hz", "3 bytes not used (a part of a sample)")


def test_a_sample_that_bytes_have_begun_waits_for_its_rest():
    pcm = np.arange(3, dtype=np.int16)
    file = io.BytesIO(encoded(pcm, 16_000, "wav"))
    for piece in (pcm, (pcm / 32_768).tolist(), (16_000, pcm), file):
        parts = taken(StreamInput(16_000, raw="s16le"), b"\7\0\x34", piece, b"\x12")
        np.testing.assert_array_equal(parts, np.array([7, 0, 1, 2, 0x1234], np.float32) / 32_768)


@pytest.mark.parametrize(
    "piece,message",
    [
        (np.zeros((10, 2)), "stream: a stream takes one channel of samples, [N]; these have the shape [10, 2]"),
        (np.array([0, np.nan]), "stream: sample 1 of those pushed is nan, not audio"),
        (
            np.array([0, 9.0]),
            "stream: sample 1 of those pushed is 9, and full scale is 1; divide 16-bit samples by 32768",
        ),
        (np.zeros(5, np.int64), "stream: its values are int64; samples are floats in -1 to 1, int16, int32 or uint8"),
        ((8000, np.zeros(5)), "stream: it takes 16000 Hz, and these are at 8000 Hz; open it with sample_rate_hz=8000"),
        (
            encoded(wave(99), 8000),
            "stream: it takes 16000 Hz, and these are at 8000 Hz; open it with sample_rate_hz=8000",
        ),
        (
            bytes(100),
            (
                "bytes: it is not audio, or is damaged, or is in a format that libsndfile does not read; "
                "if it holds samples without a header, declare them (--raw, in Python "
                "raw='s16le,16000,1')"
            ),
        ),
        ("nowhere.wav", "nowhere.wav: there is no such file"),
        (
            {"samples": []},
            "stream: a dictionary holds 'array' and 'sampling_rate', or 'bytes' or 'path'; its keys are 'samples'",
        ),
        (None, "stream: it is None, not audio"),
    ],
)
def test_a_piece_that_is_refused_changes_nothing(piece, message):
    audio = StreamInput(16_000)
    audio.take(audio.check(SAMPLES[:1000]))
    with pytest.raises(AudioError) as caught:
        audio.check(piece)
    assert str(caught.value) == message
    assert audio.duration_s == 1000 / 16_000
    np.testing.assert_array_equal(taken(audio, SAMPLES[1000:]), SAMPLES[1000:])


@pytest.mark.parametrize(
    "options,message",
    [
        ({"sample_rate_hz": 999}, "the sample rate of a stream is 1000 to 1000000 Hz, not 999"),
        ({"sample_rate_hz": 8000.5}, "stream: its sample rate is '8000.5'; it must be a whole number of Hz"),
        (
            {"raw": "mp3"},
            (
                "'mp3' is not an encoding of raw samples; these are: s8, u8, s16le, s16be, s24le, s24be, "
                "s32le, s32be, f32le, f32be, f64le, f64be, alaw, mulaw"
            ),
        ),
        ({"raw": "s16le,8000,2"}, "a stream takes one channel of samples; s16le,8000,2 declares 2"),
        ({"raw": "s16le,8000", "sample_rate_hz": 16_000}, "s16le,8000 declares 8000 Hz, and sample_rate_hz is 16000"),
    ],
)
def test_a_stream_that_can_not_be_opened(options, message):
    with pytest.raises(ConfigError) as caught:
        StreamInput(16_000, **options)
    assert str(caught.value) == message
