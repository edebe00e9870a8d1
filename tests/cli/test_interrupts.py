"""SIGINT and SIGTERM end the input; what has arrived is transcribed and printed."""

import fcntl
import json
import os
import signal
import sys
import termios
import threading
import time

import numpy as np
import pytest

from nemojax import cli
from nemojax.cli.interrupts import REPEATED_S, Interrupts


class OpenPipe:
    """A pipe as standard input that stays open; the signal `number` comes once all its bytes are read."""

    def __init__(self, data: bytes, number: int | None = None):
        self.reading, self.writing = os.pipe()
        os.write(self.writing, data)
        self._number, self._closed = number, threading.Event()
        self._thread = threading.Thread(target=self._interrupt, daemon=True)

    def _interrupt(self) -> None:
        while any(fcntl.ioctl(self.reading, termios.FIONREAD, bytes(4))):
            if self._closed.wait(0.01):
                return
        os.kill(os.getpid(), self._number)

    def __enter__(self) -> "OpenPipe":
        if self._number is not None:
            self._thread.start()
        self.stdin = os.fdopen(self.reading)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        if self._number is not None:
            self._thread.join()
        os.close(self.writing)
        self.stdin.close()


@pytest.fixture
def before():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdin


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pipe_ends_after_the_bytes_that_have_arrived(monkeypatch, before, number, code):
    with OpenPipe(b"0123456789", number) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe.stdin)
        with Interrupts() as interrupts:
            assert not interrupts.ended and interrupts.exit_code == 0
            assert sys.stdin.buffer.read(4) == b"0123"
            assert sys.stdin.buffer.read() == b"456789"  # waits for the signal
            assert interrupts.ended and interrupts.exit_code == code
        assert sys.stdin is pipe.stdin
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before[:2]


def test_bytes_that_were_not_read_before_the_signal_are_read_and_later_ones_are_not(monkeypatch):
    with OpenPipe(b"01234") as pipe:
        monkeypatch.setattr(sys, "stdin", pipe.stdin)
        with Interrupts() as interrupts:
            interrupts._handle(signal.SIGINT, None)
            reader = sys.stdin.buffer
            assert reader.read1(3) == b"012"
            os.write(pipe.writing, b"later")
            assert reader.read() == b"34"


def test_a_file_ends_at_once(monkeypatch, tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    with open(tmp_path / "file") as file:
        monkeypatch.setattr(sys, "stdin", file)
        with Interrupts() as interrupts:
            assert len(sys.stdin.buffer.read(10)) == 10
            interrupts._handle(signal.SIGTERM, None)
            assert len(sys.stdin.buffer.read()) < 100_000  # what was read ahead


def test_a_second_signal_ends_the_program_but_an_echo_of_the_first_does_not(monkeypatch):
    now_s = [5.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    with Interrupts() as interrupts:
        interrupts._handle(signal.SIGINT, None)
        interrupts._handle(signal.SIGINT, None)
        now_s[0] += REPEATED_S + 0.1
        with pytest.raises(SystemExit) as ended:
            interrupts._handle(signal.SIGTERM, None)
    assert ended.value.code == 143 and interrupts.exit_code == 130


def test_disabled_it_changes_nothing(before):
    with Interrupts(False) as interrupts:
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdin) == before
    assert interrupts.exit_code == 0


@pytest.mark.parametrize(("number", "flags"), [(signal.SIGINT, ["--stream"]), (signal.SIGTERM, ["--json"])])
def test_an_interrupted_pipe_has_its_whole_text(
    checkpoint_directory, recognizer, speech, monkeypatch, capsys, number, flags
):
    pcm = (np.asarray(speech)[:30_000] * 32_767).astype("<i2")
    want = recognizer.transcribe(pcm, 1)
    with OpenPipe(pcm.tobytes(), number) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe.stdin)
        code = cli.main(["transcribe", "-", "--lookahead", "1", "--model", str(checkpoint_directory), *flags])
    out = capsys.readouterr().out
    assert code == 128 + number
    if "--json" in flags:
        assert tuple(json.loads(out)["tokens"]) == want.tokens
    else:
        assert out == want.text + "\n"


def test_an_interrupted_stream_of_files_ends_with_the_present_one(checkpoint_directory, tmp_path, speech, capsys):
    import soundfile

    from nemojax.recognition.stream import Stream

    soundfile.write(tmp_path / "a.wav", np.asarray(speech), 16_000)
    paths, pushed = [str(tmp_path / "gone.wav"), *[str(tmp_path / "a.wav")] * 2], []
    push = Stream.push

    def interrupting(self, samples):
        pushed.append(len(samples))
        if len(pushed) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return push(self, samples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "push", interrupting)
        code = cli.main(
            ["transcribe", *paths, "--stream", "--json", "--lookahead", "1", "--model", str(checkpoint_directory)]
        )
    out = capsys.readouterr().out.splitlines()
    # 130 although a file is missing
    assert code == 130 and len(out) == 1 and json.loads(out[0])["duration"] == pytest.approx(sum(pushed) / 16_000)
