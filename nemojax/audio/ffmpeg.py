"""Formats that libsndfile does not read, decoded by the program ffmpeg where it is installed."""

import re
import select
import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from nemojax.audio.formats import Format
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.raw import Report
from nemojax.audio.window import Window, read_whole

STALL_S = 10.0  # time without output after which ffmpeg is stopped
MAX_ALLOCATION = "268435456"  # bytes that ffmpeg may allocate at once
COPY_BYTES = 1 << 20
MESSAGE_BYTES = 2000
ADVICE = "convert it with: ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav"


class FfmpegOutput:
    """The wav that ffmpeg makes of a file, as a readable object."""

    def __init__(self, window: Window, form: Format, path: Path | None, stack: ExitStack, report: Report):
        """Starts ffmpeg on `path`, or on a copy of the window. Raises UnnamedAudioError if it is not installed."""
        program = shutil.which("ffmpeg")
        if program is None:
            raise UnnamedAudioError(f"it is {form.name}, which only ffmpeg decodes; install ffmpeg, or {ADVICE}")
        self._report, self._any = report, False
        self._messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._input = f"file:{path or _copy(window, stack)}"
        command = [
            *(program, "-nostdin", "-hide_banner", "-loglevel", "error", "-max_alloc", MAX_ALLOCATION),
            *("-f", form.demuxer, "-i", self._input, "-map", "0:a:0"),
            *("-c:a", "pcm_f32le", "-f", "wav", "pipe:1"),
        ]
        self._process = stack.enter_context(
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._messages, bufsize=0
            )
        )
        stack.callback(self._kill)  # before the process is waited for

    def read1(self, size: int) -> bytes:
        """Reads 1 to `size` bytes, none at the end. Raises UnnamedAudioError if nothing comes."""
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], STALL_S)[0]:
            raise UnnamedAudioError(f"ffmpeg decodes nothing in {STALL_S:g} s")
        data = output.read(size) or b""
        self._any |= bool(data)
        if not data:
            self._end(self._process.wait() != 0)
        return data

    def _end(self, failed: bool) -> None:
        """Reports what ffmpeg complained of: it may also leave out damaged parts, or the end of a file, and succeed."""
        message = self._message()
        reason = message or "it gives no reason"
        if failed and not self._any:
            raise UnnamedAudioError(f"ffmpeg can't decode it: {reason}")
        if failed:
            self._report.note(f"ffmpeg ended early: {reason}", incomplete=True)
        elif message:
            self._report.note(f"ffmpeg left something out: {message}", incomplete=True)

    def read(self, size: int) -> bytes:
        """Reads `size` bytes, fewer only at the end."""
        return read_whole(self.read1, size)

    def _message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read(MESSAGE_BYTES).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        plain = re.sub(r"^\[[^]]* @ 0x\w+\] ", "", last)  # without the decoder's address
        return plain.removeprefix(f"{self._input}: ")[:200]  # the caller names the file

    def _kill(self) -> None:
        with suppress(OSError):
            self._process.kill()


def _copy(window: Window, stack: ExitStack) -> str:
    """Copies a part of a file, or data from a pipe, to a temporary file: most of these formats need seeking."""
    copy = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115
    window.seek(0)
    shutil.copyfileobj(window, copy, COPY_BYTES)
    copy.flush()
    return copy.name
