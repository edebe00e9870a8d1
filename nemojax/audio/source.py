"""Files, pipes and arrays to mono float32 samples at the model's rate.

Recordings are read in blocks: memory does not grow with their length.
"""

import os
import stat
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemojax.audio.channels import Channel, Mixer, check_channel
from nemojax.audio.decoders import DecodedAudio, decode_file
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.inputs import (
    MAX_AMPLITUDE,
    Rate,
    as_file,
    check_rate,
    decode_array,
    out_of_range,
    seekable_size,
    unpacked,
)
from nemojax.audio.pipes import MAX_COPY_BYTES, Pipe, decode_pipe
from nemojax.audio.raw import BLOCK_BYTES, MAX_CHANNELS, SampleFormat, parse_raw
from nemojax.audio.resampler import Resampler
from nemojax.audio.window import Window
from nemojax.config import FeatureConfig
from nemojax.errors import AudioError, shown

MODEL_RATE_HZ = FeatureConfig.sample_rate_hz
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 1_000_000  # sample rates that are resampled
ROUNDING_S = 0.01  # precision of the durations in manifests
READ_SAMPLES = 2**20


@dataclass(frozen=True)
class Recording:
    """A file of audio, or a part of it: one line of a manifest."""

    path: Path
    name: str  # as it stands in messages
    offset_s: float = 0.0
    duration_s: float | None = None  # None: up to the end
    first_byte: int = 0  # where the audio file begins in `path`; not 0 for a member of a tar file
    size_bytes: int | None = None  # None: up to the end of `path`
    text: str | None = None  # the reference transcript, if there is one
    channel: Channel = None  # see `channels.Mixer`


@dataclass(frozen=True)
class _Copy(Recording):
    """A temporary file with the content of a pipe, which is deleted when nothing refers to it."""

    copy: Any = None


class AudioSource:
    """One recording or live stream, read in order as mono float32 samples at the model's rate.

    Attributes:
      name: name of the recording in messages.
      duration_s: as the header says; None if it is not known before the end.
      rate_hz: the sample rate of the recording itself.
    """

    def __init__(
        self,
        name: str,
        decoded: DecodedAudio,
        model_rate_hz: int,
        offset_s: float = 0.0,
        duration_s: float | None = None,
        channel: Channel = None,
    ):
        """Takes the part of the audio from `offset_s` on, `duration_s` long or up to the end.

        Raises:
          UnnamedAudioError: the sample rate or the number of channels is out of range, or there is no such channel.
        """
        rate_hz, channels, frames = decoded.rate_hz, decoded.channels, decoded.frames
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnnamedAudioError(f"its sample rate is {rate_hz} Hz; it must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        if not 1 <= channels <= MAX_CHANNELS:
            raise UnnamedAudioError(f"it has {channels} channels; it must have 1 to {MAX_CHANNELS}")
        self._notes = [] if rate_hz == model_rate_hz else [f"resampled from {rate_hz} Hz"]
        self._mixer = Mixer(channels, rate_hz, channel)
        begin = round(offset_s * rate_hz)
        end = None if duration_s is None else round((offset_s + duration_s) * rate_hz)
        if end is not None and frames is not None:
            if end > frames + ROUNDING_S * rate_hz:
                self._notes.append(f"{(end - frames) / rate_hz:.2f} s shorter than the requested part")
            if end > frames - ROUNDING_S * rate_hz:
                end = None
        last = frames if end is None else end
        self.name, self.rate_hz, self.channels = name, rate_hz, channels
        self.close: Callable[[], None] = lambda: None
        self.source: Any = None  # what was opened; a temporary file is there as long as it is referred to
        self.duration_s = None if last is None else max(last - begin, 0) / rate_hz
        self._report, self._blocks = decoded.report, _part(decoded, begin, end)
        self._frame, self._ended = begin, False
        self._resampler = Resampler(rate_hz, model_rate_hz)
        self._pending: deque[np.ndarray] = deque()
        self._pending_samples = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes made to the audio and what is wrong with it, in short phrases; complete at the end.

        Example: "resampled from 8000 Hz".
        """
        return (*self._notes, *self._mixer.notes, *self._report.notes)

    @property
    def incomplete(self) -> bool:
        """Whether the recording is known to end before its header says; complete at the end."""
        return self._report.incomplete

    def read(self, samples: int) -> np.ndarray:
        """Reads the next samples, float32 [samples]: fewer only at the end, none after it.

        On a pipe it waits until they have arrived. Raises AudioError.
        """
        while self._pending_samples < samples and not self._ended:
            self._pull()
        return self._take(samples)

    def read_available(self, max_samples: int) -> np.ndarray:
        """Reads what has arrived on a pipe: 1 to `max_samples` samples, none only at the end.

        On other sources it reads one block or less. Raises AudioError.
        """
        while not self._pending_samples and not self._ended:
            self._pull()
        return self._take(max_samples)

    def _take(self, samples: int) -> np.ndarray:
        taken, left = [], samples
        while left and self._pending:
            block = self._pending.popleft()
            if len(block) > left:
                self._pending.appendleft(block[left:])
            taken.append(block[:left])
            left -= len(taken[-1])
        self._pending_samples -= samples - left
        return taken[0] if len(taken) == 1 else np.concatenate([np.zeros(0, np.float32), *taken])

    def _pull(self) -> None:
        """Appends the next block, mixed down and resampled, to the pending samples."""
        try:
            block = next(self._blocks, None)
            last = block is None
            mono = self._mixer.mix(
                self._checked(np.zeros((0, self.channels), np.float32) if block is None else block), last
            )
        except (UnnamedAudioError, OSError) as error:
            raise AudioError(f"{self.name}: {_reason(error)}") from None
        self._ended = last
        mono = self._resampler.resample(mono, last)
        if len(mono):
            self._pending.append(mono)
            self._pending_samples += len(mono)

    def _checked(self, block: np.ndarray) -> np.ndarray:
        invalid = ~(np.abs(block) < MAX_AMPLITUDE)
        if invalid.any():
            row, channel = np.argwhere(invalid)[0]
            frame = self._frame + int(row)
            raise UnnamedAudioError(
                f"sample {frame} (at {frame / self.rate_hz:.3f} s) is {out_of_range(float(block[row, channel]))}"
            )
        self._frame += len(block)
        return block


def _part(decoded: DecodedAudio, begin: int, end: int | None) -> Iterator[np.ndarray]:
    """Yields the frames from `begin` to `end` in blocks of any size."""
    position = decoded.first_frame
    for block in decoded.blocks:
        if position + len(block) > begin:
            yield block[max(begin - position, 0) : None if end is None else max(end - position, 0)]
        position += len(block)
        if end is not None and position >= end:
            return
    if position < begin:
        raise UnnamedAudioError(
            f"it ends after {position / decoded.rate_hz:.3f} s, before the part at {begin / decoded.rate_hz:.3f} s"
        )


def open_audio(
    source: Any,
    sample_rate_hz: Rate = MODEL_RATE_HZ,
    model_rate_hz: int = MODEL_RATE_HZ,
    raw: str | SampleFormat | None = None,
    channel: Channel = None,
) -> AudioSource:
    """Opens a file, a pipe, standard input, or what a Python program holds.

    Args:
      source: one of these:
        a path to a file that libsndfile reads (wav, flac, ogg, mp3 and others) or that ffmpeg reads, where it is
        installed (m4a, webm, aac and others), or to a pipe; a Recording; "-", standard input;
        the bytes of such a file, or a readable object (a file opened in binary mode, a BytesIO);
        an array of samples, [N], [1, N] or [N, channels], float in -1 to 1, int16, int32 or uint8;
        (rate, array) or (array, rate); {"array": ..., "sampling_rate": ...}.
        Wav and raw samples are read from a pipe as they arrive, other formats once they are complete. An AudioError,
        from an invalid line of a manifest, is raised.
      sample_rate_hz: sample rate of an array that has none with it.
      model_rate_hz: sample rate of the samples that are read.
      raw: declares files, bytes and pipes without a header, as in "s16le,8000,1"; see `raw.parse_raw`.
      channel: an index, several, or "average", as NeMo's `channel_selector`; None is the mean of the channels, unless
        they cancel each other in it. A Recording's own choice comes first.

    Raises:
      AudioError: it can't be opened. Errors that only decoding finds are raised by the reading methods.
      ConfigError: `raw` is not a layout.
    """
    if isinstance(source, AudioError):
        raise source
    layout = None if raw is None else parse_raw(raw)
    name = "array"
    with ExitStack() as stack:
        try:
            source, rate_hz = unpacked(source)
            rate_hz = check_rate(sample_rate_hz) if rate_hz is None else rate_hz
            part, path = Recording(Path(), name), None
            if isinstance(source, str | os.PathLike) and not isinstance(source, bytes):
                standard_input = isinstance(source, str) and source == "-"
                path = None if standard_input else Path(source)
                part = Recording(Path(source), "standard input" if standard_input else str(source))
            elif isinstance(source, Recording):
                part, path = source, source.path
            name = shown(part.name)
            if path is not None:
                decoded = _decode_recording(part, model_rate_hz, stack, layout)
            elif part.name == "standard input":
                decoded = decode_pipe(sys.stdin.buffer, model_rate_hz, stack, layout)
            elif (file := as_file(source)) is not None:
                name = "bytes" if file is not source else shown(str(getattr(source, "name", "file object")))
                decoded = _decode_object(file, model_rate_hz, stack, layout)
            elif layout is not None:
                raise UnnamedAudioError(
                    "an array has its type; raw samples are bytes, files and pipes without a header"
                )
            else:
                decoded = decode_array(source, rate_hz)
            chosen = check_channel(channel if part.channel is None else part.channel)
            audio = AudioSource(name, decoded, model_rate_hz, part.offset_s, part.duration_s, chosen)
        except (UnnamedAudioError, OSError) as error:
            raise AudioError(f"{name}: {_reason(error)}") from None
        audio.close = stack.pop_all().close
        audio.source = source
        return audio


def open_channels(source: Any, **options: Any) -> list[AudioSource]:
    """Opens each channel of a recording as a recording of its own; takes and raises what `open_audio` does.

    A pipe, or a readable object, is first read to its end, since each channel reads the whole recording.
    """
    source = _readable_again(source)
    with closing(open_audio(source, **options)) as audio:
        channels = audio.channels
    return [open_audio(source, **{**options, "channel": channel}) for channel in range(channels)]


def _readable_again(source: Any) -> Any:
    """Returns the content of a pipe or a readable object as a file that can be opened several times; others as is."""
    name = getattr(source, "name", "file object")
    if isinstance(source, str) and source == "-":
        file, name = sys.stdin.buffer, "standard input"
    elif isinstance(source, str | os.PathLike) and Path(source).is_fifo():
        file, name = open(source, "rb"), str(source)  # noqa: SIM115 - closed with the copy
    elif (file := None if isinstance(source, bytes | bytearray | memoryview) else as_file(source)) is None:
        return source
    try:
        copy = tempfile.NamedTemporaryFile(delete=True)  # noqa: SIM115 - it goes with the last reference to it
        pipe = Pipe(file)
        while data := pipe.read1(BLOCK_BYTES):
            copy.write(data)
            if copy.tell() > MAX_COPY_BYTES:
                raise UnnamedAudioError(f"it has more than {MAX_COPY_BYTES >> 30} GiB; write it to a file, and name it")
        copy.flush()
    except (UnnamedAudioError, OSError) as error:
        raise AudioError(f"{name}: {_reason(error)}") from None
    return _Copy(Path(copy.name), shown(str(name)), copy=copy)


def read_all(source: Any, sample_rate_hz: Rate = MODEL_RATE_HZ, model_rate_hz: int = MODEL_RATE_HZ) -> np.ndarray:
    """Reads a whole recording, float32 [N]; takes and raises what `open_audio` does."""
    pieces = []
    with closing(open_audio(source, sample_rate_hz, model_rate_hz)) as audio:
        while len(piece := audio.read(READ_SAMPLES)):
            pieces.append(piece)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _decode_recording(
    recording: Recording, raw_rate_hz: int, stack: ExitStack, raw: SampleFormat | None
) -> DecodedAudio:
    try:
        status = os.stat(recording.path)
    except (ValueError, UnicodeError) as error:  # a zero byte in its name, or a lone surrogate
        raise UnnamedAudioError(f"it is not the name of a file ({error})") from None
    except FileNotFoundError:
        if "://" in recording.name:
            raise UnnamedAudioError("it is a URL; download it first, and name the file") from None
        raise
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    file = stack.enter_context(recording.path.open("rb"))
    if not stat.S_ISREG(status.st_mode):
        return decode_pipe(file, raw_rate_hz, stack, raw)
    available = status.st_size - recording.first_byte
    size = available if recording.size_bytes is None else recording.size_bytes
    if size > available:
        raise UnnamedAudioError(f"truncated: {recording.path} ends inside it, after {status.st_size} bytes")
    path = recording.path if size == status.st_size else None
    return decode_file(Window(file, recording.first_byte, size), recording.offset_s, stack, raw, path)


def _decode_object(file: Any, raw_rate_hz: int, stack: ExitStack, raw: SampleFormat | None) -> DecodedAudio:
    """Decodes a readable object from its position on."""
    if (place := seekable_size(file)) is None:
        return decode_pipe(file, raw_rate_hz, stack, raw)
    position, size = place
    if not isinstance(file.read(0), bytes):
        raise UnnamedAudioError(f"reading it gives {type(file.read(0)).__name__}, not bytes; open it in binary mode")
    return decode_file(Window(file, position, size - position), 0.0, stack, raw)


def _reason(error: UnnamedAudioError | OSError) -> str:
    reasons: dict[type, str] = {
        FileNotFoundError: "there is no such file",
        IsADirectoryError: "it is a directory, not an audio file",
        PermissionError: "it can't be read (permission denied)",
    }
    return reasons.get(type(error)) or getattr(error, "strerror", None) or str(error)
