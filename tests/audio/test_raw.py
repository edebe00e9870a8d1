import io
import warnings

import numpy as np
import pytest

from nemojax.audio.raw import (
    RAW_ENCODINGS,
    Report,
    SampleFormat,
    decode_samples,
    is_unlike_speech,
    parse_raw,
    raw_blocks,
)
from nemojax.errors import ConfigError
from tests.helpers.sounds import wave


def test_declarations():
    assert parse_raw("s16le") == SampleFormat(16_000)
    assert parse_raw("s24be,8000") == SampleFormat(8000, 1, 1, 24, True, 3)
    assert parse_raw(" F32LE , 44100 , 2 ") == SampleFormat(44_100, 2, 3, 32, False, 8)
    assert parse_raw("ulaw,8000,1") == parse_raw("mulaw,8000") == SampleFormat(8000, 1, 7, 8, False, 1)
    assert parse_raw(SampleFormat(8000)) == SampleFormat(8000)
    names = [
        name + order for name, (_, bits) in RAW_ENCODINGS.items() for order in (["le", "be"] if bits > 8 else [""])
    ]
    assert len(names) == 14 and all(parse_raw(name).subtype for name in names)


FORM = "ENCODING,RATE,CHANNELS, such as s16le,16000,1"


@pytest.mark.parametrize("text", ["s16", "u8le", "mp3", "", "x" * 5000, "s16le2"])
def test_encodings_that_there_are_not(text):
    with pytest.raises(ConfigError) as caught:
        parse_raw(text)
    assert str(caught.value) == (
        f"{text[:40]!r} is not an encoding of raw samples; these are: s8, u8, s16le, s16be, s24le, s24be, s32le, "
        "s32be, f32le, f32be, f64le, f64be, alaw, mulaw"
    )


@pytest.mark.parametrize(
    "rest,message",
    [
        *(
            (rest, f"raw samples are declared as {FORM}; not as 's16le,{rest[:54]}'")
            for rest in ("16 kHz", "8000,1,1", "-8000", "99999999", "\u0663", "x" * 60)
        ),
        *(
            (rest, f"raw samples need a rate and at least one channel: {FORM}; not 's16le,{rest}'")
            for rest in ("0", "8000,0")
        ),
    ],
)
def test_rates_and_channels_that_are_refused(rest, message):
    with pytest.raises(ConfigError) as caught:
        parse_raw(f"s16le,{rest}")
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["s8", "u8", "s16le", "s16be", "s32le", "s32be", "f32le", "f32be", "f64le", "f64be"])
def test_encodings_are_numpys(name):
    code = {"s": "i", "u": "u", "f": "f"}[name[0]]
    bits = int("".join(filter(str.isdigit, name)))
    expected = np.array([[-1, -0.5], [0.25, 0.75]], np.float32)
    values = expected * (1 if code == "f" else 2.0 ** (bits - 1)) + (128 if code == "u" else 0)
    data = values.astype(("<" if name.endswith("le") else ">") + code + str(bits // 8)).tobytes()
    np.testing.assert_array_equal(decode_samples(data, parse_raw(f"{name},8000,2")), expected)


def test_companded_encodings():
    """The values of G.711 at its ends and at its middle."""
    mulaw = decode_samples(bytes([0x00, 0x80, 0xFF, 0x7F]), parse_raw("mulaw"))[:, 0] * 32_768
    np.testing.assert_array_equal(mulaw, [-32_124, 32_124, 0, 0])
    alaw = decode_samples(bytes([0x2A, 0xAA, 0xD5, 0x55]), parse_raw("alaw"))[:, 0] * 32_768
    np.testing.assert_array_equal(alaw, [-32_256, 32_256, 8, -8])


def test_what_is_left_of_blocks_is_noted():
    data = iter([b"\1", b"\0\2", b"\0\3", b""])
    report = Report()
    blocks = list(raw_blocks(lambda size: next(data), SampleFormat(16_000), report))
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0] * 32_768, [1, 2])
    assert report.notes == ["1 byte not used (a part of a sample of 2 bytes)"] and not report.incomplete


@pytest.mark.parametrize(
    "announced,there", [(None, 70_000), (70_000, 70_000), (100, 100), (7, 4), (8, 4), (9, 4), (6, 5)]
)
def test_reads_ask_for_no_more_than_is_announced(announced, there):
    """What was read before counts. A part of a sample that is missing is not the end of a recording cut off."""
    layout = SampleFormat(16_000, channels=2, frame_bytes=4, data_bytes=announced)
    data, report = io.BytesIO(bytes(there - 2)), Report()

    def read(size):
        assert size == min(65_536, 65_536 if announced is None else announced - 2 - data.tell())
        return data.read(size)

    blocks = list(raw_blocks(read, layout, report, pending=bytes(2)))
    assert sum(map(len, blocks)) == there // 4 and blocks[0].shape[1] == 2
    short = f"its header announces {announced} bytes of samples, and it ends after {there}"
    missing = [] if announced in (None, there) else [short]
    part = [f"{there % 4} byte{'s' * (there % 4 != 1)} not used (a part of a sample of 4 bytes)"] if there % 4 else []
    assert report.notes == missing + part and report.incomplete == (announced == 9)


def test_layouts_in_words():
    assert str(SampleFormat(8000)) == "16-bit samples at 8000 Hz with 1 channel"
    assert str(SampleFormat(8000, 2, bits=24)) == "24-bit samples at 8000 Hz with 2 channels"


def test_limits_of_speech():
    """In means of full scale: steps of 0.3, and a mean of 0.2, of 256 to 2048 samples, in every channel."""
    steps = lambda step, count=2048: np.tile([step / 2, -step / 2], count // 2)[:, None]
    assert not is_unlike_speech(steps(0.29)) and is_unlike_speech(steps(0.31))
    constant = lambda value, count=2048: np.full((count, 1), value)
    assert not is_unlike_speech(constant(-0.19)) and is_unlike_speech(constant(-0.21))
    assert not is_unlike_speech(constant(0.21, 255)) and is_unlike_speech(constant(0.21, 256))
    assert not is_unlike_speech(np.concatenate([constant(0.0), constant(0.9)]))
    both = np.concatenate([constant(0.0), constant(0.3)], axis=1)
    assert is_unlike_speech(both) and is_unlike_speech(both[:, ::-1]) and not is_unlike_speech(both[:, :1])
    signaling = np.full((300, 1), 0x7FA0_0000, np.uint32).view(np.float32)  # a NaN that numpy warns of
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_unlike_speech(signaling)


def test_notes_are_kept_once():
    report = Report()
    for _ in range(3):
        report.note("resampled")
        report.unused(2, "at its end", incomplete=True)
    assert report.notes == ["resampled", "2 bytes not used (at its end)"] and report.incomplete


def test_bytes_of_other_layouts_are_unlike_speech(speech):
    sixteen = (0.5 * speech / np.abs(speech).max() * 32_767).astype("<i2")
    floats = (0.5 * speech).astype("<f4")
    layout = SampleFormat(16_000)
    assert not is_unlike_speech(decode_samples(sixteen.tobytes(), layout))
    assert not is_unlike_speech(decode_samples(sixteen[::2].tobytes(), layout))  # no way to tell that it is 8 kHz
    assert not is_unlike_speech(np.zeros((3000, 1))) and not is_unlike_speech(wave(3000)[:, None])
    assert is_unlike_speech(decode_samples(floats.tobytes(), layout))
    assert is_unlike_speech(decode_samples(floats.astype("<f8").tobytes(), layout))
    assert is_unlike_speech(np.full((3000, 1), np.nan)) and is_unlike_speech(np.full((3000, 1), 0.9))
    assert not is_unlike_speech(np.full((10, 1), 0.9))  # too few to tell
