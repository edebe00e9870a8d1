"""Files, pipes and arrays to mono float32 samples at the model's rate.

Recordings are read in blocks: memory does not grow with their length.
"""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemojax.audio.decoders import (
    MAX_CHANNELS,
    DecodedAudio,
    decode_array,
    decode_file,
    decode_pipe,
    is_sample_type,
    to_float32,
)
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.window import Window
from nemojax.config import FeatureConfig
from nemojax.errors import AudioError

MODEL_RATE_HZ = FeatureConfig.sample_rate_hz
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 1_000_000  # sample rates that are resampled
MAX_AMPLITUDE = 1e10  # full scale is 1; float files may exceed it, but larger values are not audio
ROUNDING_S = 0.01  # precision of the durations in manifests
READ_ALL_SAMPLES = 2**31  # more than any recording has: 37 hours at 16 kHz


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


class AudioSource:
    """One recording or live stream, read in order as mono float32 samples at the model's rate.

    Attributes:
      name: name of the recording in messages.
      duration_s: None if it is not known before the end.
      notes: changes made to the audio, in short phrases ("resampled from 8000 Hz").
    """

    def __init__(
        self,
        name: str,
        decoded: DecodedAudio,
        model_rate_hz: int,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ):
        """Takes the part of the audio from `offset_s` on, `duration_s` long or up to the end.

        Raises:
          UnnamedAudioError: the sample rate or the number of channels is out of range.
        """
        rate_hz, channels, frames = decoded.rate_hz, decoded.channels, decoded.frames
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise UnnamedAudioError(f"its sample rate is {rate_hz} Hz; it must be {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
        if not 1 <= channels <= MAX_CHANNELS:
            raise UnnamedAudioError(f"it has {channels} channels; it must have 1 to {MAX_CHANNELS}")
        resampled = rate_hz != model_rate_hz
        notes = []
        if resampled:
            notes.append(f"resampled from {rate_hz} Hz")
        if channels > 1:
            notes.append(f"mixed down from {channels} channels")
        begin = round(offset_s * rate_hz)
        end = frames if duration_s is None else round((offset_s + duration_s) * rate_hz)
        if end is not None and frames is not None and duration_s is not None:
            if end > frames + ROUNDING_S * rate_hz:
                notes.append(f"{(end - frames) / rate_hz:.2f} s shorter than the requested part")
            if end > frames - ROUNDING_S * rate_hz:
                end = frames
        self.name, self.notes = name, tuple(notes)
        self.close: Callable[[], None] = lambda: None
        self.duration_s = None if end is None else max(end - begin, 0) / rate_hz
        self._blocks = _part(decoded, begin, end)
        self._rate_hz, self._frame, self._ended = rate_hz, begin, False
        self._resampler = soxr.ResampleStream(rate_hz, model_rate_hz, 1, dtype="float32") if resampled else None
        self._pending = np.zeros(0, np.float32)

    def read(self, samples: int) -> np.ndarray:
        """Reads the next samples, float32 [samples]: fewer only at the end, none after it.

        On a pipe it waits until they have arrived. Raises AudioError.
        """
        while len(self._pending) < samples and not self._ended:
            self._pull()
        return self._take(samples)

    def read_available(self, max_samples: int) -> np.ndarray:
        """Reads what has arrived on a pipe: 1 to `max_samples` samples, none only at the end.

        On other sources it reads one block or less. Raises AudioError.
        """
        while not len(self._pending) and not self._ended:
            self._pull()
        return self._take(max_samples)

    def _take(self, samples: int) -> np.ndarray:
        taken, self._pending = self._pending[:samples], self._pending[samples:]
        return taken

    def _pull(self) -> None:
        """Appends the next block, mixed down and resampled, to the pending samples."""
        try:
            block = next(self._blocks, None)
            mono = np.zeros(0, np.float32) if block is None else self._mono(block)
        except (UnnamedAudioError, OSError) as error:
            raise AudioError(f"{self.name}: {_reason(error)}") from None
        self._ended = block is None
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono, last=self._ended)
        self._pending = np.concatenate([self._pending, mono])

    def _mono(self, block: np.ndarray) -> np.ndarray:
        invalid = ~(np.abs(block) < MAX_AMPLITUDE)
        if invalid.any():
            row, channel = np.argwhere(invalid)[0]
            frame = self._frame + int(row)
            raise UnnamedAudioError(
                f"sample {frame} (at {frame / self._rate_hz:.3f} s) is {block[row, channel]:g}, not audio"
            )
        self._frame += len(block)
        return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _part(decoded: DecodedAudio, begin: int, end: int | None) -> Iterator[np.ndarray]:
    """Yields the frames from `begin` to `end` in blocks of any size."""
    position = decoded.first_frame
    for block in decoded.blocks:
        if position + len(block) > begin:
            yield block[max(begin - position, 0) : None if end is None else max(end - position, 0)]
        position += len(block)
        # a part that ends with the recording is read on: the decoder then checks that the recording is complete
        if end is not None and position >= end and end != decoded.frames:
            return
    if position < begin:
        raise UnnamedAudioError(
            f"it ends after {position / decoded.rate_hz:.3f} s, before the part at {begin / decoded.rate_hz:.3f} s"
        )


def open_audio(source: Any, sample_rate_hz: int = MODEL_RATE_HZ, model_rate_hz: int = MODEL_RATE_HZ) -> AudioSource:
    """Opens a file, a pipe, standard input or an array.

    Args:
      source: a path to a file that libsndfile reads (wav, flac, ogg, mp3 and others), or to a pipe; a
        Recording; "-", standard input; or an array of samples, [N] or [N, channels], float in -1 to 1 or
        int16. A pipe holds a wav or, without any header, mono 16-bit little-endian PCM at the model's rate:
        these are read as they arrive. Flac, ogg and others are read from a pipe into memory first. An
        AudioError, from an invalid line of a manifest, is raised.
      sample_rate_hz: sample rate of an array.
      model_rate_hz: sample rate of the samples that are read.

    Raises:
      AudioError: it can't be opened, or its header shows that it is truncated. Errors that only decoding finds are
        raised by the reading methods.
    """
    if isinstance(source, AudioError):
        raise source
    standard_input = isinstance(source, str) and source == "-"
    if isinstance(source, str | os.PathLike):
        source = Recording(Path(source), "standard input" if standard_input else str(source))
    recording = source if isinstance(source, Recording) else Recording(Path(), "array")
    with ExitStack() as stack:
        try:
            if standard_input:
                decoded = decode_pipe(sys.stdin.buffer, model_rate_hz, stack)
            elif recording is source:
                decoded = _decode_recording(recording, model_rate_hz, stack)
            else:
                decoded = decode_array(source, sample_rate_hz)
            audio = AudioSource(recording.name, decoded, model_rate_hz, recording.offset_s, recording.duration_s)
        except (UnnamedAudioError, OSError) as error:
            raise AudioError(f"{recording.name}: {_reason(error)}") from None
        audio.close = stack.pop_all().close
        return audio


def read_all(source: Any, sample_rate_hz: int = MODEL_RATE_HZ, model_rate_hz: int = MODEL_RATE_HZ) -> np.ndarray:
    """Reads a whole recording, float32 [N]; takes and raises what `open_audio` does."""
    with closing(open_audio(source, sample_rate_hz, model_rate_hz)) as audio:
        return audio.read(READ_ALL_SAMPLES)


def _decode_recording(recording: Recording, raw_rate_hz: int, stack: ExitStack) -> DecodedAudio:
    try:
        status = os.stat(recording.path)
    except ValueError as error:  # a zero byte in its name
        raise UnnamedAudioError(str(error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    file = stack.enter_context(recording.path.open("rb"))
    if not stat.S_ISREG(status.st_mode):
        return decode_pipe(file, raw_rate_hz, stack)
    available = status.st_size - recording.first_byte
    size = available if recording.size_bytes is None else recording.size_bytes
    if size > available:
        raise UnnamedAudioError(f"truncated: {recording.path} ends inside it, after {status.st_size} bytes")
    return decode_file(Window(file, recording.first_byte, size), recording.offset_s, stack)


def as_mono(samples: Any) -> np.ndarray:
    """Converts one channel of samples to float32 [N]; int16 is scaled to -1 to 1. Raises AudioError."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError(f"a stream takes one channel of samples, [N]; these have the shape {list(array.shape)}")
    if not is_sample_type(array.dtype):
        raise AudioError(f"a stream takes float or int16 samples, not {array.dtype}")
    array = to_float32(array)
    if len(array) and not (array.max() < MAX_AMPLITUDE and array.min() > -MAX_AMPLITUDE):  # a fast check of all
        invalid = int(np.argmax(~(np.abs(array) < MAX_AMPLITUDE)))
        raise AudioError(f"sample {invalid} of those pushed is {array[invalid]}; samples must be finite numbers")
    return array


def _reason(error: UnnamedAudioError | OSError) -> str:
    reasons: dict[type, str] = {
        FileNotFoundError: "there is no such file",
        IsADirectoryError: "it is a directory, not an audio file",
        PermissionError: "it can't be read (permission denied)",
    }
    return reasons.get(type(error)) or getattr(error, "strerror", None) or str(error)
