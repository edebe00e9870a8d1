import io
import shutil
import signal
import subprocess
from contextlib import closing

import numpy as np
import pytest

from nemojax.audio import ffmpeg
from nemojax.audio.source import Recording, open_audio
from nemojax.errors import AudioError
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wav_bytes, wave

M4A = b"\0\0\0\x1cftypM4A " + bytes(2000)
SAMPLES = wave(40_000, 2)
OUTPUT = wav_bytes(
    SAMPLES.astype("<f4").tobytes(), 0xFFFF_FFFF, 0xFFFF_FFFF, channels=2, rate_hz=44_100, coding=3, bits=32
)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that installs a program of this name: it prints its output, then its message, and exits."""

    def install(output: bytes = OUTPUT, message: str = "", code: int = 0, before: str = ""):
        (tmp_path / "output").write_bytes(output)
        (tmp_path / "message").write_text(message, errors="surrogateescape")
        (tmp_path / "ffmpeg").write_text(
            "#!/bin/sh\n"
            f"cd '{tmp_path}'\n"
            "printf '%s\\n' \"$@\" > arguments\n"
            'while [ "$1" != -i ]; do shift; done\n'
            '/bin/cat "${2#file:}" > input\n'
            f"{before}\n"
            "/bin/cat output; /bin/cat message >&2\n"
            f"exit {code}\n"
        )
        (tmp_path / "ffmpeg").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def read(source, **options):
    with closing(open_audio(source, **options)) as audio:
        return audio.read(10**6), audio.notes


def test_a_format_that_ffmpeg_decodes(program, tmp_path):
    program()
    (tmp_path / "-i m.m4a").write_bytes(M4A)
    expected = read(SAMPLES, sample_rate_hz=44_100)[0]
    (tmp_path / "tar").write_bytes(bytes(512) + M4A + bytes(99))
    part = Recording(tmp_path / "tar", "inside", first_byte=512, size_bytes=len(M4A))
    for source in (tmp_path / "-i m.m4a", part, M4A, io.BytesIO(M4A)):
        samples, notes = read(source)
        np.testing.assert_allclose(samples, expected, atol=1e-6)
        assert notes == ("resampled from 44100 Hz", "mixed down from 2 channels")
        assert (tmp_path / "input").read_bytes() == M4A
        arguments = (tmp_path / "arguments").read_text().split("\n")
        place = arguments.index("-i")
        whole = source == tmp_path / "-i m.m4a"  # the file itself; else a copy
        assert (arguments[place + 1] == f"file:{tmp_path / '-i m.m4a'}") == whole
        assert arguments[:place] + arguments[place + 2 : -1] == [
            *("-nostdin", "-hide_banner", "-loglevel", "error", "-max_alloc", "268435456"),
            *("-f", "mov"),  # no other demuxer, which could read other files
            *("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"),
        ]
    part = Recording(tmp_path / "-i m.m4a", "part", offset_s=0.25, duration_s=0.5)
    assert len(read(part)[0]) == 8000


def test_without_ffmpeg_the_message_has_the_line_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    message = (
        r"^bytes: it is an MP4 file .* install ffmpeg, or convert it with: ffmpeg -i FILE -ac 1 -ar 16000 OUT\.wav$"
    )
    with pytest.raises(AudioError, match=message):
        open_audio(M4A)


def test_a_failure_of_ffmpeg_is_one_line(program):
    program(b"", "warning\nmoov atom not found\n", 1)
    with pytest.raises(AudioError, match=r"^bytes: ffmpeg can't decode it: moov atom not found$"):
        read(M4A)
    warnings = "a warning\n" * 190  # of 1,900 bytes
    for message, shown in (
        ("", "it gives no reason"),
        ("x" * 300 + "\n \n", "x" * 200),
        (warnings + "the reason\n", "the reason"),
        ("caf\udce9: no streams\n", "caf\N{REPLACEMENT CHARACTER}: no streams"),  # a name that is not UTF-8
    ):
        program(b"", message, 1)
        with pytest.raises(AudioError, match=f"^bytes: ffmpeg can't decode it: {shown}$"):
            read(M4A)
    program(OUTPUT[:-4000], "Invalid data found\n", 69)
    samples, notes = read(M4A)
    assert len(samples) and notes[-1] == "ffmpeg ended early: Invalid data found"


def test_what_ffmpeg_left_out_is_a_note(program, tmp_path):
    program(OUTPUT, "[mov,mp4 @ 0x55c6519ec940] File ended prematurely\n")
    with closing(open_audio(M4A)) as audio:
        assert len(audio.read(10**6)) and audio.notes[-1] == "ffmpeg left something out: File ended prematurely"
        assert audio.incomplete
    (tmp_path / "a.m4a").write_bytes(M4A)
    program(b"", f"file:{tmp_path / 'a.m4a'}: End of file\n", 1)
    with pytest.raises(AudioError, match=r"a\.m4a: ffmpeg can't decode it: End of file$"):
        read(tmp_path / "a.m4a")


def test_ffmpeg_is_stopped(program, monkeypatch):
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *given, **named: started.append(popen(*given, **named)) or started[-1]
    )
    monkeypatch.setattr(ffmpeg, "STALL_S", 0.2)
    program(before="exec /bin/sleep 30")
    with pytest.raises(AudioError, match=whole("bytes: ffmpeg decodes nothing in 0.2 s")):
        read(M4A)
    program(OUTPUT * 20)  # more than a pipe holds: the program waits until it is closed
    audio = open_audio(M4A)
    assert len(audio.read(100)) == 100
    audio.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", ["m4a", "webm", "aac"])
def test_the_real_ffmpeg(tmp_path, suffix):
    (tmp_path / "a.wav").write_bytes(encoded(0.3 * wave(16_000), 16_000))
    subprocess.run(["ffmpeg", "-loglevel", "error", "-i", "a.wav", f"a.{suffix}"], cwd=tmp_path, check=True)
    for source in (tmp_path / f"a.{suffix}", (tmp_path / f"a.{suffix}").read_bytes()):
        samples, notes = read(source)
        assert 15_000 < len(samples) < 19_000 and not any("ffmpeg" in note for note in notes)
