"""A Recording that is a part of a file: by time, or by bytes."""

from contextlib import closing

import numpy as np
import pytest
import soundfile
import soxr

from nemojax.audio.source import Recording, open_audio
from nemojax.errors import AudioError
from tests.helpers.sounds import encoded, everything, wave


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3"])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_parts_of_a_file(tmp_path, kind, rate_hz):
    path = tmp_path / "whole"
    path.write_bytes(encoded(wave(rate_hz), rate_hz, kind))
    decoded, _ = soundfile.read(path, dtype="float32")
    for offset_s, duration_s in ((0.0, 0.25), (0.3, 0.2), (0.5, None), (0.75, 0.25), (0.97, 0.005)):
        begin = round(offset_s * rate_hz)
        expected = decoded[begin : None if duration_s is None else round((offset_s + duration_s) * rate_hz)]
        if rate_hz != 16_000:
            expected = soxr.resample(expected, rate_hz, 16_000)
        part = Recording(path, "a part", offset_s, duration_s)
        np.testing.assert_allclose(everything(part), expected, atol=1e-6)
        with closing(open_audio(part)) as audio:
            assert audio.name == "a part" and audio.duration_s == pytest.approx(duration_s or 0.5)


def test_durations_may_be_rounded(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(wave(16_123), 16_000))  # 1.0076875 s
    for duration_s, notes in ((1.0, ()), (1.008, ()), (1.0177, ()), (1.5, ("0.49 s shorter than the requested part",))):
        with closing(open_audio(Recording(path, "a", 0.0, duration_s))) as audio:
            assert audio.notes == notes and len(audio.read(10**6)) == 16_123
            assert audio.duration_s == 16_123 / 16_000
    assert len(everything(Recording(path, "a", 0.0, 0.99))) == 15_840


def test_parts_outside_the_file(tmp_path):
    for kind in ("wav", "flac", "vorbis", "mp3"):
        path = tmp_path / kind
        path.write_bytes(encoded(wave(16_000), 16_000, kind))
        with pytest.raises(AudioError, match=r"part: it ends after 1\.000 s, before the part at 2\.000 s"):
            everything(Recording(path, "part", 2.0, 1.0))
        assert len(everything(Recording(path, "part", 1.0))) == 0


def test_a_file_within_a_file(tmp_path):
    flac = encoded(wave(5000), 16_000, "flac")
    (tmp_path / "tar").write_bytes(bytes(512) + flac + bytes(700))
    whole = everything(Recording(tmp_path / "tar", "inside", first_byte=512, size_bytes=len(flac)))
    assert len(whole) == 5000
    with pytest.raises(AudioError, match=r"inside: truncated: .*tar ends inside it"):
        everything(Recording(tmp_path / "tar", "inside", first_byte=512, size_bytes=len(flac) + 701))
