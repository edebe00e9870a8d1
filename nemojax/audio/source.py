"""Files, pipes and arrays to mono float32 at the model's rate, in blocks: memory does not grow with length."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from nemojax.audio.decoders import MAX_CHANNELS, Track, array_track, as_float, file_track, is_sound, pipe_track
from nemojax.audio.headers import Fault, Window
from nemojax.config import FeatureConfig
from nemojax.errors import AudioError

MODEL_RATE_HZ = FeatureConfig.sample_rate_hz
RATES_HZ = (1_000, 1_000_000)  # that can be resampled
LOUDEST = 1e10  # full scale is 1, which float files may exceed; this is not sound
ROUNDING_S = 0.01  # to which durations in manifests are good


@dataclass(frozen=True)
class Recording:
    """A file of audio, or a part of it: what a line of a manifest names."""

    path: Path
    name: str  # as in messages
    offset_s: float = 0.0
    duration_s: float | None = None  # None: to the end
    first_byte: int = 0  # where in `path` the file begins: it may be a member of a tar
    size_bytes: int | None = None
    text: str | None = None  # what is said, where that is known


class AudioSource:
    """One recording or live stream, read in order as mono float32 samples at the model's rate.

    Attributes:
      name: of the file, as in messages.
      duration_s: None where it is not known before the end.
      notes: what is done to the audio, in short phrases.
    """

    def __init__(
        self,
        name: str,
        track: Track,
        model_rate_hz: int,
        offset_s: float = 0.0,
        duration_s: float | None = None,
    ):
        """The part of a track from `offset_s` on, `duration_s` long or to the end. Raises Fault."""
        rate_hz, channels, frames = track.rate_hz, track.channels, track.frames
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            raise Fault(f"its sample rate is {rate_hz} Hz; it must be {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
        if not 1 <= channels <= MAX_CHANNELS:
            raise Fault(f"it has {channels} channels; there may be 1 to {MAX_CHANNELS}")
        notes = []
        if rate_hz != model_rate_hz:
            notes.append(f"resampled from {rate_hz} Hz")
        if channels > 1:
            notes.append(f"mixed down from {channels} channels")
        begin = round(offset_s * rate_hz)
        end = frames if duration_s is None else round((offset_s + duration_s) * rate_hz)
        if end is not None and frames is not None and duration_s is not None:
            if end > frames + ROUNDING_S * rate_hz:
                notes.append(f"{(end - frames) / rate_hz:.2f} s shorter than the part asked for")
            if end > frames - ROUNDING_S * rate_hz:
                end = frames
        self.name, self.notes = name, tuple(notes)
        self.close: Callable[[], None] = lambda: None
        self.duration_s = None if end is None else max(end - begin, 0) / rate_hz
        self._blocks = _part(track, begin, end)
        self._rate_hz, self._frame, self._ended = rate_hz, begin, False
        different = rate_hz != model_rate_hz
        self._resampler = soxr.ResampleStream(rate_hz, model_rate_hz, 1, dtype="float32") if different else None
        self._pending = np.zeros(0, np.float32)

    def read(self, samples: int) -> np.ndarray:
        """The next samples, [samples] float32: fewer only at the end, none after it.

        Of a pipe it waits until they have come. Raises AudioError.
        """
        while len(self._pending) < samples and not self._ended:
            self._pull()
        return self._take(samples)

    def read_available(self, most: int) -> np.ndarray:
        """What has come of a pipe by now, at least one sample unless it has ended, and at most `most`.

        Of anything else, some of what is left. Raises AudioError.
        """
        while not len(self._pending) and not self._ended:
            self._pull()
        return self._take(most)

    def _take(self, samples: int) -> np.ndarray:
        taken, self._pending = self._pending[:samples], self._pending[samples:]
        return taken

    def _pull(self) -> None:
        try:
            block = next(self._blocks, None)
            mono = np.zeros(0, np.float32) if block is None else self._mono(block)
        except (Fault, OSError) as error:
            raise AudioError(f"{self.name}: {_reason(error)}") from None
        self._ended = block is None
        if self._resampler is not None:
            mono = self._resampler.resample_chunk(mono, last=self._ended)
        self._pending = np.concatenate([self._pending, mono])

    def _mono(self, block: np.ndarray) -> np.ndarray:
        unheard = ~(np.abs(block) < LOUDEST)
        if unheard.any():
            row, channel = np.argwhere(unheard)[0]
            frame = self._frame + int(row)
            raise Fault(f"sample {frame} (at {frame / self._rate_hz:.3f} s) is {block[row, channel]:g}, not sound")
        self._frame += len(block)
        return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)


def _part(track: Track, begin: int, end: int | None) -> Iterator[np.ndarray]:
    """Blocks of the frames from `begin` to `end`, of any sizes."""
    at = track.first
    for block in track.blocks:
        if at + len(block) > begin:
            yield block[max(begin - at, 0) : None if end is None else max(end - at, 0)]
        at += len(block)
        # where the track ends as well, it has to say whether it is whole
        if end is not None and at >= end and end != track.frames:
            return
    if at < begin:
        raise Fault(f"it ends after {at / track.rate_hz:.3f} s, before the part at {begin / track.rate_hz:.3f} s")


def open_audio(source: Any, sample_rate_hz: int = MODEL_RATE_HZ, model_rate_hz: int = MODEL_RATE_HZ) -> AudioSource:
    """Opens anything that holds audio.

    Args:
      source: a path to a file that libsndfile reads (wav, flac, ogg, mp3 and others), or to a pipe; a
        Recording; "-", standard input; or an array of samples, [N] or [N, channels], float in -1 to 1 or
        int16. A pipe holds a wav or, without any header, mono 16-bit little-endian PCM at the model's rate:
        these are read as they come. Flac, ogg and others are read from a pipe into memory first. An
        AudioError, a bad line of a manifest, is raised.
      sample_rate_hz: of an array.
      model_rate_hz: what everything is resampled to.

    Raises:
      AudioError: it can't be opened, or its header shows that it is cut off. What only decoding finds, the
        reading methods raise.
    """
    if isinstance(source, AudioError):
        raise source
    standard_input = isinstance(source, str) and source == "-"
    if isinstance(source, str | os.PathLike):
        source = Recording(Path(source), "standard input" if standard_input else str(source))
    wanted = source if isinstance(source, Recording) else Recording(Path(), "array")
    with ExitStack() as stack:
        try:
            if standard_input:
                track = pipe_track(sys.stdin.buffer, model_rate_hz, stack)
            elif wanted is source:
                track = _recording_track(wanted, model_rate_hz, stack)
            else:
                track = array_track(source, sample_rate_hz)
            audio = AudioSource(wanted.name, track, model_rate_hz, wanted.offset_s, wanted.duration_s)
        except (Fault, OSError) as error:
            raise AudioError(f"{wanted.name}: {_reason(error)}") from None
        audio.close = stack.pop_all().close
        return audio


def _recording_track(recording: Recording, raw_rate_hz: int, stack: ExitStack) -> Track:
    try:
        status = os.stat(recording.path)
    except ValueError as error:  # a zero byte in its name
        raise Fault(str(error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    file = stack.enter_context(recording.path.open("rb"))
    if not stat.S_ISREG(status.st_mode):
        return pipe_track(file, raw_rate_hz, stack)
    there = status.st_size - recording.first_byte
    size = there if recording.size_bytes is None else recording.size_bytes
    if size > there:
        raise Fault(f"truncated: {recording.path} ends inside it, after {status.st_size} bytes")
    return file_track(Window(file, recording.first_byte, size), recording.offset_s, stack)


def as_mono(samples: Any) -> np.ndarray:
    """Samples as float32 [N]; int16 is scaled to -1 to 1. Raises AudioError."""
    array = np.asarray(samples)
    if array.ndim != 1:
        raise AudioError(f"a stream takes one channel of samples, [N]; these have the shape {list(array.shape)}")
    if not is_sound(array.dtype):
        raise AudioError(f"a stream takes float or int16 samples, not {array.dtype}")
    array = as_float(array)
    if len(array) and not (array.max() < LOUDEST and array.min() > -LOUDEST):  # which is quicker than to look for it
        bad = int(np.argmax(~(np.abs(array) < LOUDEST)))
        raise AudioError(f"sample {bad} of those pushed is {array[bad]}; samples must be finite numbers")
    return array


def _reason(error: Fault | OSError) -> str:
    reasons: dict[type, str] = {
        FileNotFoundError: "there is no such file",
        IsADirectoryError: "it is a directory, not an audio file",
        PermissionError: "it may not be read (permission denied)",
    }
    return reasons.get(type(error)) or getattr(error, "strerror", None) or str(error)
