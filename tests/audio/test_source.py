import io
import os
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.audio import source as source_module
from nemojax.audio.source import Recording, open_audio, open_channels
from nemojax.config import FeatureConfig
from nemojax.errors import AudioError
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, everything, wav_bytes, wave


@pytest.mark.parametrize("kind", ["wav", "wavfloat", "flac", "vorbis", "opus", "mp3", "aiff"])
@pytest.mark.parametrize("as_path", [str, Path])
def test_files(tmp_path, kind, as_path):
    path = tmp_path / "speech"
    path.write_bytes(encoded(wave(50_000), 16_000, kind))
    expected, _ = soundfile.read(path, dtype="float32")
    with closing(open_audio(as_path(path))) as audio:
        assert audio.name == str(path) and audio.notes == () and audio.duration_s == 3.125
    np.testing.assert_allclose(everything(as_path(path)), expected, atol=1e-6)


@pytest.mark.parametrize("rate_hz", [1000, 8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampled_in_blocks_as_in_one_piece(rate_hz):
    samples = wave(rate_hz + 37)
    expected = soxr.resample(samples, rate_hz, 16_000)
    assert abs(len(expected) - len(samples) * 16_000 / rate_hz) <= 0.5
    for block in (997, 16_000, 10**6):
        np.testing.assert_allclose(everything(samples, block, sample_rate_hz=rate_hz), expected, atol=1e-6)
    audio = open_audio(samples, sample_rate_hz=rate_hz)
    assert audio.notes == (f"resampled from {rate_hz} Hz",) and audio.duration_s == len(samples) / rate_hz


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40_000), st.sampled_from([8000, 16_000, 44_100]), st.lists(st.integers(1, 20_000), max_size=8))
def test_any_reads_give_the_same_samples(frames, rate_hz, sizes):
    samples = wave(frames)
    expected = samples if rate_hz == 16_000 else soxr.resample(samples, rate_hz, 16_000)
    audio = open_audio(samples, sample_rate_hz=rate_hz)
    parts = [audio.read(size) for size in sizes] + [audio.read(10**6)]
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_channels_are_averaged_before_resampling(tmp_path):
    samples = wave(30_000, 3)
    (tmp_path / "three.flac").write_bytes(encoded(samples, 44_100, "flac"))
    decoded, _ = soundfile.read(tmp_path / "three.flac", dtype="float32")
    expected = soxr.resample(decoded.mean(axis=1), 44_100, 16_000)
    np.testing.assert_allclose(everything(tmp_path / "three.flac"), expected, atol=1e-6)
    audio = open_audio(str(tmp_path / "three.flac"))
    assert audio.notes == ("resampled from 44100 Hz", "mixed down from 3 channels")
    assert len(everything(np.zeros((100, 2), np.int16))) == 100


def test_another_models_rate():
    assert FeatureConfig.sample_rate_hz == 16_000
    audio = open_audio(wave(800), sample_rate_hz=16_000, model_rate_hz=8000)
    assert audio.notes == ("resampled from 16000 Hz",) and len(audio.read(10**6)) == 400


def test_loud_floats_are_kept_and_those_at_the_scale_of_int16_refused(tmp_path):
    (tmp_path / "loud.wav").write_bytes(encoded(wave(100) * 8, 16_000, "wavfloat"))
    np.testing.assert_array_equal(everything(tmp_path / "loud.wav"), wave(100) * 8)
    (tmp_path / "scaled.wav").write_bytes(encoded(wave(100) * 32768, 16_000, "wavfloat"))
    for source in (tmp_path / "scaled.wav", wave(100) * 32768):
        with pytest.raises(AudioError, match=r"sample 0 .* and full scale is 1; divide 16-bit samples by 32768"):
            everything(source)


def test_limits_of_amplitudes_and_rates():
    for value in (7.999, -7.999):
        assert len(everything(np.array([0, value]))) == 2
    for value in (8.0, -8.0):
        with pytest.raises(AudioError, match=rf"^array: sample 1 \(at 0\.000 s\) is {value:g}, and full scale is 1"):
            everything(np.array([0, value]))
    for rate_hz, refused in ((1000, False), (1_000_000, False), (999, True), (1_000_001, True)):
        if refused:
            message = f"^array: its sample rate is {rate_hz} Hz; it must be 1000 to 1000000 Hz$"
            with pytest.raises(AudioError, match=message):
                open_audio(wave(9), sample_rate_hz=rate_hz)
        else:
            assert open_audio(wave(9), sample_rate_hz=rate_hz).rate_hz == rate_hz


def test_files_without_samples_are_an_empty_recording(tmp_path):
    (tmp_path / "empty.wav").write_bytes(encoded(wave(0), 44_100, "wav"))
    for source in (tmp_path / "empty.wav", np.zeros(0, np.float32), np.zeros((0, 2), np.int16)):
        assert len(everything(source)) == 0 and open_audio(source).duration_s == 0


def test_errors_name_the_file(tmp_path):
    def refused(name, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError) as error:
            everything(tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: ") and "\n" not in message
        return message.removeprefix(f"{tmp_path / name}: ")

    good = encoded(wave(50_000), 16_000, "flac")
    assert refused("missing.wav") == "there is no such file"
    assert refused(".") == "it is a directory, not an audio file"
    assert refused("none.wav", b"") == "it is empty (0 bytes)"
    assert refused("notes.txt", b"some words\n" * 99) == "it is not audio, but text"
    assert refused("samples.raw", bytes(3000)).startswith("it is not audio, or is damaged")
    damaged = good[: len(good) // 2] + bytes(50) + good[len(good) // 2 :]
    assert refused("damaged.flac", damaged).startswith("truncated or damaged: it can't be decoded beyond ")
    assert refused("cut.wav", wav_bytes(bytes(100))[:44]).startswith("truncated: it holds none of the 100 bytes")
    assert refused("slow.wav", wav_bytes(bytes(100), rate_hz=999)).startswith("its sample rate is 999 Hz; it must be")
    assert refused("many.wav", wav_bytes(bytes(1300), channels=65)) == "it has 65 channels; it must have 1 to 64"


@pytest.mark.parametrize(
    "name,message",
    [
        ("bad\0name.wav", r"bad\x00name.wav: it is not the name of a file (embedded null byte)"),
        ("two\nlines\x1b[31m.wav", r"two\nlines\x1b[31m.wav: there is no such file"),
        ("\udcff.wav", r"\udcff.wav: there is no such file"),
        ("größe.wav", "größe.wav: there is no such file"),
        ("x" * 5000, "x" * 500 + " ... " + "x" * 500 + ": File name too long"),
        ("https://example.com/a.wav", "https://example.com/a.wav: it is a URL; download it first, and name the file"),
    ],
)
def test_names_are_shown_on_one_line_and_cut(name, message):
    with pytest.raises(AudioError) as error:
        open_audio(name)
    assert str(error.value) == message


def test_bytes_and_readable_objects(tmp_path):
    samples = wave(5000)
    for kind in ("wav", "flac", "mp3", "vorbis"):
        data = encoded(samples, 8000, kind)
        (tmp_path / "file").write_bytes(data)
        expected = everything(tmp_path / "file")
        spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
        spooled.write(data)
        spooled.seek(0)
        with (tmp_path / "file").open("rb") as file:
            for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file, spooled):
                np.testing.assert_array_equal(everything(source), expected)
            assert not file.closed
        ahead = io.BytesIO(b"before" + data)
        ahead.seek(6)
        np.testing.assert_array_equal(everything(ahead), expected)
        ahead.seek(6)
        with closing(open_audio(ahead)) as audio:  # and no byte after the end
            assert len(audio.read(10**6)) == len(expected) and audio.notes == ("resampled from 8000 Hz",)
    raw = (samples * 32767).astype("<i2").tobytes()
    assert len(everything(raw, raw="s16le,8000")) == 10_000
    assert len(everything(SimpleNamespace(read=io.BytesIO(bytes(10_000)).read), raw="s16le,8000")) == 10_000
    with pytest.raises(
        AudioError,
        match=whole(
            "bytes: it is not audio, or is damaged, or is in a format that libsndfile does not read; "
            "if it holds samples without a header, declare them (--raw, in Python raw='s16le,16000,1')"
        ),
    ):
        open_audio(raw)
    with pytest.raises(AudioError, match=whole("file object: reading it gives str, not bytes; open it in binary mode")):
        open_audio(io.StringIO("text"))
    with pytest.raises(
        AudioError, match=whole("array: an array has its type; raw samples are bytes, files and pipes without a header")
    ):
        open_audio(samples, raw="s16le")


def test_samples_with_their_rate():
    samples = wave(5000)
    expected = everything(samples, sample_rate_hz=8000)
    for source in ((8000, samples), (samples, 8000), {"array": samples, "sampling_rate": 8000}):
        np.testing.assert_array_equal(everything(source), expected)
    for rate_hz in (8000.0, np.int64(8000)):
        np.testing.assert_array_equal(everything(samples, sample_rate_hz=rate_hz), expected)
    with pytest.raises(AudioError, match=whole("array: its sample rate is '8000.5'; it must be a whole number of Hz")):
        open_audio(samples, sample_rate_hz=8000.5)


@pytest.mark.parametrize("kind", ["standard input", "a pipe with a name", "a readable object"])
def test_each_channel_of_a_pipe(tmp_path, monkeypatch, kind):
    samples = wave(5000, 2)
    data = encoded(samples, 16_000, "wavfloat")
    source = io.BytesIO(data)
    if kind == "standard input":
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=source))
        source = "-"
    if kind == "a pipe with a name":
        os.mkfifo(tmp_path / "pipe")
        threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,), daemon=True).start()
        source = tmp_path / "pipe"
    each = open_channels(source)
    copy = each[0].source.path
    np.testing.assert_array_equal(np.stack([audio.read(10**6) for audio in each], axis=1), samples)
    assert copy.exists()
    del each
    assert not copy.exists()
    if kind == "a readable object":
        (few,) = open_channels(io.BytesIO(encoded(samples[:10, 0], 16_000, "wavfloat")))
        np.testing.assert_array_equal(few.read(100), samples[:10, 0])
        monkeypatch.setattr(source_module, "MAX_COPY_BYTES", len(data))
        assert len(open_channels(io.BytesIO(data))) == 2
        monkeypatch.setattr(source_module, "MAX_COPY_BYTES", len(data) - 1)
        with pytest.raises(AudioError, match=r"^file object: it has more than 0 GiB; write it to a file, and name it$"):
            open_channels(io.BytesIO(data))


def test_channels(tmp_path):
    samples = wave(5000, 3)
    (tmp_path / "three.wav").write_bytes(encoded(samples, 16_000, "wavfloat"))
    for source in (tmp_path / "three.wav", samples):
        np.testing.assert_array_equal(everything(source, channel=1), samples[:, 1])
        np.testing.assert_allclose(everything(source, channel=[0, 2]), samples[:, [0, 2]].mean(axis=1))
        np.testing.assert_allclose(everything(source, channel="average"), samples.mean(axis=1), atol=1e-7)
        each = open_channels(source)
        assert [audio.notes for audio in each] == [(f"channel {index} of 3",) for index in range(3)]
        np.testing.assert_array_equal(np.stack([audio.read(10**6) for audio in each], axis=1), samples)
    for index in (2, 0):
        own = Recording(tmp_path / "three.wav", "three", channel=index)
        np.testing.assert_array_equal(everything(own, channel=1), samples[:, index])
    with pytest.raises(AudioError, match=r"three\.wav: it has no channel 3: its channels are 0 to 2"):
        open_audio(tmp_path / "three.wav", channel=3)
    with pytest.raises(
        AudioError,
        match=whole("array: 'left' does not choose channels: write an index from 0 on, several, or 'average'"),
    ):
        open_audio(samples, channel="left")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.wav").write_bytes(wav_bytes(bytes(100)))
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(AudioError, match=r"secret\.wav: it can't be read \(permission denied\)"):
        open_audio(tmp_path / "secret.wav")


@pytest.mark.parametrize("value,shown", [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (3e38, r"3e\+38")])
@pytest.mark.parametrize("frame", [0, 40_001])
def test_values_that_are_not_audio_are_located(tmp_path, value, shown, frame):
    samples = wave(44_100, 2)
    samples[frame, 1] = value
    (tmp_path / "bad.wav").write_bytes(encoded(samples, 44_100, "wavfloat"))
    for source, name in ((tmp_path / "bad.wav", "bad.wav"), (samples, "array")):
        with pytest.raises(
            AudioError, match=rf"{name}: sample {frame} \(at {frame / 44_100:.3f} s\) is {shown}, not audio"
        ):
            everything(source, sample_rate_hz=44_100)
    clean = everything(Recording(tmp_path / "bad.wav", "bad", offset_s=0.1, duration_s=0.5))
    assert np.isfinite(clean).all()
    with pytest.raises(AudioError, match=f"sample {frame} "):
        everything(Recording(tmp_path / "bad.wav", "bad", offset_s=frame / 44_100, duration_s=0.05))


def test_arrays_name_themselves():
    for source in (None, 0.5, [["a"]], np.zeros((3, 4, 5)), object()):
        with pytest.raises(AudioError, match=r"^array: "):
            open_audio(source)
    with pytest.raises(AudioError, match=whole("array: its sample rate is 0 Hz; it must be 1000 to 1000000 Hz")):
        open_audio(wave(5), sample_rate_hz=0)


def test_an_error_as_a_source_is_raised():
    with pytest.raises(AudioError, match=whole("a.jsonl: line 3: nonsense")):
        open_audio(AudioError("a.jsonl: line 3: nonsense"))
