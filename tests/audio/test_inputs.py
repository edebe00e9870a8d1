import io

import numpy as np
import pytest

from nemojax.audio import inputs
from nemojax.audio.decoders import BLOCK_FRAMES
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.inputs import as_mono, checked_array, decode_array, is_rate_and_samples, unpacked
from tests.audio.test_decoders import samples_of
from tests.helpers.sounds import encoded, wave


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("channels", [None, 1, 2, 64])
def test_arrays(dtype, channels):
    count = 2 * BLOCK_FRAMES + 1
    samples = wave(count, channels)
    samples = (samples * 32767).astype(dtype) if dtype == np.int16 else samples.astype(dtype)
    expected = samples.astype(np.float32) / (32768 if dtype == np.int16 else 1)
    decoded = decode_array(samples, 8000)
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (8000, channels or 1, count)
    np.testing.assert_array_equal(samples_of(decoded), expected.reshape(count, -1))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "code,zero,scale", [("u1", 128, 128), ("i2", 0, 2**15), ("i4", 0, 2**31), ("f4", 0, 1), ("f8", 0, 1)]
)
def test_every_sample_type_in_any_order_of_bytes(order, code, zero, scale):
    expected = np.array([-1, -0.5, 0, 0.25, 0.5], np.float32)
    samples = (expected.astype(np.float64) * scale + zero).astype(order + code)
    np.testing.assert_array_equal(samples_of(decode_array(samples, 8000))[:, 0], expected)
    for shape in ((-1,), (1, -1), (-1, 1)):
        np.testing.assert_array_equal(as_mono(samples.reshape(shape)), expected)
    np.testing.assert_array_equal(samples_of(decode_array(samples[None], 8000))[:, 0], expected)


def test_an_array_of_more_samples_than_an_int32_counts():
    samples = np.broadcast_to(np.int16(16384), 2**31 + 10)  # takes no memory
    decoded = decode_array(samples, 16_000)
    assert decoded.frames == 2**31 + 10 and (next(decoded.blocks) == 0.5).all()


INT16_IN_INT32 = (wave(1000) * 32767).astype(np.int32)


@pytest.mark.parametrize(
    "source,message",
    [
        (
            np.zeros((2, 16_000)),
            "its shape is [2, 16000], [samples, channels]; transpose it if it is [channels, samples]",
        ),
        (np.zeros((2, 3, 4)), "its shape is [2, 3, 4]; it must be [samples] or [samples, channels]"),
        (np.zeros(()), "its shape is []; it must be [samples] or [samples, channels]"),
        (np.zeros(5, np.int64), "its values are int64; samples are floats in -1 to 1, int16, int32 or uint8"),
        (np.zeros(5, np.uint16), "its values are uint16; samples are floats in -1 to 1, int16, int32 or uint8"),
        (np.zeros(5, bool), "its values are bool; samples are floats in -1 to 1, int16, int32 or uint8"),
        (np.zeros(5, complex), "its values are complex128; samples are floats in -1 to 1, int16, int32 or uint8"),
        (
            np.array(["a"]),
            (
                "its values are <U1; samples are floats in -1 to 1, int16, int32 or uint8; to transcribe "
                "several recordings, pass a list"
            ),
        ),
        (
            np.array([None]),
            (
                "its values are object; samples are floats in -1 to 1, int16, int32 or uint8; to "
                "transcribe several recordings, pass a list"
            ),
        ),
        (None, "it is None, not audio"),
        ([0.1, 0.2], "a list of numbers can be samples or recordings; pass numpy.asarray(samples)"),
        ([[0.1], [0.1, 0.2]], "a list of numbers can be samples or recordings; pass numpy.asarray(samples)"),
        (
            INT16_IN_INT32,
            "its int32 values are at most 29326, and full scale is 2147483648; convert 16-bit samples to int16",
        ),
        (
            np.frombuffer(encoded(wave(99), 8000), np.uint8),
            "its values are the bytes of a wav file; pass them as bytes: array.tobytes()",
        ),
    ],
)
def test_arrays_that_are_not_audio(source, message):
    with pytest.raises(UnnamedAudioError) as caught:
        decode_array(source, 16_000)
    assert str(caught.value) == message


def test_pairs_and_dictionaries():
    samples = wave(10)
    for source in (
        (8000, samples),
        (samples, 8000),
        (np.int64(8000), samples),
        {"array": samples, "sampling_rate": 8000, "path": None},
        {"raw": samples.tolist(), "sampling_rate": 8000.0},
    ):
        unpacked_samples, rate_hz = unpacked(source)
        np.testing.assert_allclose(unpacked_samples, samples)
        assert rate_hz == 8000 and isinstance(rate_hz, int)
    assert unpacked({"bytes": b"RIFF", "path": "a.wav"}) == (b"RIFF", None)
    assert unpacked({"bytes": None, "path": "a.wav"}) == ("a.wav", None)
    assert unpacked("a.wav") == ("a.wav", None)
    for pair in (("a.wav", "b.wav"), (samples, samples), (8000, "a.wav"), [8000, samples], (8000, samples, 1)):
        assert not is_rate_and_samples(pair)


@pytest.mark.parametrize(
    "source,message",
    [
        ({"array": wave(5)}, "it has 'array', but no 'sampling_rate'"),
        (
            {"audio": wave(5)},
            "a dictionary holds 'array' and 'sampling_rate', or 'bytes' or 'path'; its keys are 'audio'",
        ),
        ((8000.5, wave(5)), "its sample rate is '8000.5'; it must be a whole number of Hz"),
        ((True, wave(5)), "its sample rate is 'True'; it must be a whole number of Hz"),
        ((float("nan"), wave(5)), "its sample rate is 'nan'; it must be a whole number of Hz"),
        ({"array": wave(5), "sampling_rate": "8000"}, "its sample rate is '8000'; it must be a whole number of Hz"),
    ],
)
def test_pairs_and_dictionaries_that_are_not_audio(source, message):
    with pytest.raises(UnnamedAudioError) as caught:
        unpacked(source)
    assert str(caught.value) == message


def test_readable_objects():
    assert inputs.as_file(bytearray(b"abc")).read() == b"abc" and inputs.as_file(memoryview(b"abc")).read() == b"abc"
    file = io.BytesIO(b"12345")
    file.seek(2)
    assert inputs.as_file(file) is file and inputs.seekable_size(file) == (2, 5) and file.tell() == 2
    assert inputs.as_file(wave(5)) is None and inputs.as_file("a.wav") is None
    assert inputs.seekable_size(object()) is None


def test_one_channel_of_samples():
    samples = wave(100)
    np.testing.assert_array_equal(as_mono(samples.astype(np.float64)), samples)
    assert as_mono([0.5, 1]).dtype == np.float32 and as_mono(np.zeros(0)).shape == as_mono([]).shape == (0,)
    for bad, message in [
        (np.zeros((2, 3)), r"one channel of samples, \[N\]; these have the shape \[2, 3\]"),
        (np.zeros((2, 1, 3)), r"one channel of samples, \[N\]; these have the shape \[2, 1, 3\]"),
        (np.zeros(3, np.int64), "its values are int64; samples are floats"),
        (np.array([0, 1, np.nan, np.inf]), "sample 2 of those pushed is nan, not audio"),
        (np.array([0, 1e300]), "sample 1 of those pushed is inf, not audio"),
        (np.array([0, 0, -1e11]), r"sample 2 of those pushed is -1e\+11, not audio"),
        (np.array([0, 7.9, 8]), "sample 2 of those pushed is 8, and full scale is 1; divide 16-bit samples by 32768"),
        (INT16_IN_INT32, "convert 16-bit samples to int16"),
    ]:
        with pytest.raises(UnnamedAudioError, match=message):
            as_mono(bad)
    assert len(as_mono(np.array([300, -1000], np.int32))) == 2  # near silence, not 16-bit samples


def test_limits_of_samples():
    """int32 samples with peaks of 16 bits are refused; floats up to 8 times full scale are not."""
    for peak, refused in ((1024, False), (1025, True), (-1025, True), (32_768, True), (-32_768, True), (32_769, False)):
        for dtype in (np.int32, ">i4"):
            samples = np.array([0, peak], dtype)
            if refused:
                with pytest.raises(UnnamedAudioError) as caught:
                    as_mono(samples)
                assert str(caught.value) == (
                    f"its int32 values are at most {abs(peak)}, and full scale is 2147483648; "
                    "convert 16-bit samples to int16"
                )
            else:
                assert len(as_mono(samples)) == 2
    assert len(as_mono(np.array([7.99, -7.99]))) == 2
    for value in (8.0, -8.0):
        with pytest.raises(UnnamedAudioError, match=f"^sample 1 of those pushed is {value:g}, and full scale is 1"):
            as_mono(np.array([0, value]))
    assert inputs.out_of_range(9e9) == "9e+09, and full scale is 1; divide 16-bit samples by 32768"
    assert inputs.out_of_range(-1e10) == "-1e+10, not audio"


def test_rates():
    for rate_hz in (8000, 8000.0, np.int16(8000), np.float32(8000)):
        assert inputs.check_rate(rate_hz) == 8000 and type(inputs.check_rate(rate_hz)) is int
    for rate_hz in (True, np.bool_(True), "8000", None, 0.5, float("inf"), 1 + 2j, "x" * 99):
        with pytest.raises(UnnamedAudioError) as caught:
            inputs.check_rate(rate_hz)
        assert str(caught.value) == f"its sample rate is {str(rate_hz)[:60]!r}; it must be a whole number of Hz"


class Tensor:
    """Like a tensor of torch, which refuses some conversions with errors of its own."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


@pytest.mark.parametrize(
    "source,message",
    [
        (Tensor(), r"can't be made an array of samples \(.*Use tensor\.detach\(\)"),
        ({"array": Tensor(), "sampling_rate": 16_000}, r"can't be made an array of samples \(.*detach"),
        ({"array": [[1.0], [2.0, 3.0]], "sampling_rate": 16_000}, "can't be made an array of samples"),
        (None, "it is None, not audio"),
        ({}, "its keys are none"),
    ],
)
def test_what_is_not_an_array_is_an_error_of_the_audio(source, message):
    with pytest.raises(UnnamedAudioError, match=message):
        checked_array(unpacked(source).source)
