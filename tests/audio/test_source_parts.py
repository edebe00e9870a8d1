"""Parts of recordings, and what reading them holds: memory and open files."""

import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from nemojax.audio.decoders import BLOCK_FRAMES
from nemojax.audio.source import Recording, open_audio, read_all
from nemojax.errors import AudioError
from tests.helpers.messages import ending, whole
from tests.helpers.sounds import encoded, everything, wave, without_frame_count


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
    path.write_bytes(encoded(wave(16_000), 16_000))
    for end, read, notes in (
        (15_839, 15_839, ()),
        (15_840, 15_840, ()),  # 10 ms before the end
        (15_841, 16_000, ()),
        (16_160, 16_000, ()),
        (16_161, 16_000, ("0.01 s shorter than the requested part",)),
    ):
        for begin in (0, 8000):
            with closing(open_audio(Recording(path, "a", begin / 16_000, (end - begin) / 16_000))) as audio:
                assert (len(audio.read(10**6)), audio.notes) == (read - begin, notes)
                assert audio.duration_s == (read - begin) / 16_000
    path.write_bytes(encoded(wave(8_000), 8_000))
    with closing(open_audio(Recording(path, "a", 0.0, 1.5))) as audio:
        assert audio.notes == ("resampled from 8000 Hz", "0.50 s shorter than the requested part")


def test_parts_of_an_mp3_without_a_count_of_frames(tmp_path):
    (tmp_path / "a.mp3").write_bytes(without_frame_count(encoded(wave(16_000), 16_000, "mp3")))
    part = everything(Recording(tmp_path / "a.mp3", "part", 0.3, 0.2))
    np.testing.assert_array_equal(part, everything(tmp_path / "a.mp3")[4800:8000])


def test_nothing_after_a_part_is_decoded(tmp_path):
    """Damage there is no error of the part."""
    flac = encoded(wave(4 * BLOCK_FRAMES), 16_000, "flac")
    middle = len(flac) * 9 // 32  # within the frame of FLAC that follows the part
    (tmp_path / "damaged").write_bytes(flac[:middle] + bytes(999) + flac[middle:])
    first = Recording(tmp_path / "damaged", "first", 0.0, BLOCK_FRAMES / 16_000)
    assert len(everything(first)) == BLOCK_FRAMES
    with pytest.raises(AudioError, match=r"^whole: truncated or damaged: it can't be decoded beyond "):
        everything(Recording(tmp_path / "damaged", "whole"))


def test_parts_outside_the_file(tmp_path):
    for kind in ("wav", "flac", "vorbis", "mp3"):
        path = tmp_path / kind
        path.write_bytes(encoded(wave(8000), 8000, kind))
        with pytest.raises(AudioError, match=whole("part: it ends after 1.000 s, before the part at 2.000 s")):
            everything(Recording(path, "part", 2.0, 1.0))
        assert len(everything(Recording(path, "part", 1.0))) == 0


def test_a_file_within_a_file(tmp_path):
    flac = encoded(wave(5000), 16_000, "flac")
    (tmp_path / "tar").write_bytes(bytes(512) + flac + bytes(700))
    whole = everything(Recording(tmp_path / "tar", "inside", first_byte=512, size_bytes=len(flac)))
    assert len(whole) == 5000
    with pytest.raises(AudioError, match=r"inside: truncated: .*tar ends inside it"):
        everything(Recording(tmp_path / "tar", "inside", first_byte=512, size_bytes=len(flac) + 701))


def test_closing_closes_the_file(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(encoded(wave(50_000), 16_000))
    (tmp_path / "b.wav").write_bytes(b"no audio")
    files, plain = [], Path.open
    monkeypatch.setattr(Path, "open", lambda *arguments: files.append(plain(*arguments)) or files[-1])
    audio = open_audio(tmp_path / "a.wav")
    assert not files[0].closed
    audio.close()
    assert files[0].closed
    with pytest.raises(AudioError):
        open_audio(tmp_path / "b.wav")
    assert files[1].closed


def test_read_all_reads_to_the_end_and_closes(tmp_path, monkeypatch):
    path, files, plain = tmp_path / "a.flac", [], Path.open
    data = encoded(wave(50_000), 8000, "flac")
    path.write_bytes(data)
    monkeypatch.setattr(Path, "open", lambda *arguments, **named: files.append(plain(*arguments, **named)) or files[-1])
    samples = read_all(path)
    assert [file.closed for file in files] == [True]
    np.testing.assert_array_equal(samples, everything(path))
    assert len(read_all(path, model_rate_hz=8000)) == len(read_all(wave(25_000), sample_rate_hz=8000)) == 50_000
    (tmp_path / "bad.flac").write_bytes(data[:100])
    with pytest.raises(AudioError, match=ending(": truncated or damaged: it can't be decoded beyond 0.000 s")):
        read_all(tmp_path / "bad.flac")
    assert files[-1].closed


def test_memory_does_not_grow_with_length(tmp_path):
    def peak(seconds: int) -> int:
        with soundfile.SoundFile(tmp_path / "long.flac", "w", 44_100, 2) as file:
            for _ in range(seconds):
                file.write(wave(44_100, 2))
        tracemalloc.start()
        with closing(open_audio(tmp_path / "long.flac")) as audio:
            while len(audio.read(89_600)):
                pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(60) < 1.1 * peak(20) < 8e6


@pytest.mark.slow
def test_twenty_minutes_in_constant_memory(tmp_path):
    """The memory of the whole process, libsndfile and soxr included."""
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 44_100, 2) as file:
        for part in range(120):
            file.write(wave(441_000, 2, seed=part % 2))
    program = """
import resource, sys
from nemojax.audio.source import Recording, open_audio
from pathlib import Path
audio = open_audio(Recording(Path(sys.argv[1]), "long", 0.0, float(sys.argv[2])))
while len(audio.read(89_600)): pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peak = lambda seconds: int(
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / "long.flac", str(seconds)],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    )
    assert peak(1200) < 1.05 * peak(60)
