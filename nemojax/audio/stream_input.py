"""The input of one live stream: pieces of audio to mono samples at the model's rate."""

import os
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.inputs import (
    MAX_AMPLITUDE,
    Rate,
    as_file,
    as_mono,
    check_rate,
    checked_array,
    to_float32,
    unpacked,
)
from nemojax.audio.raw import SampleFormat, decode_samples, parse_raw
from nemojax.audio.resampler import Resampler
from nemojax.audio.source import MAX_RATE_HZ, MIN_RATE_HZ, READ_SAMPLES, Recording, open_audio
from nemojax.errors import AudioError, ConfigError


class Piece(NamedTuple):
    """A piece of a stream that has been checked."""

    samples: np.ndarray  # float32 [N] at the stream's rate
    rest: bytes  # of raw samples: the beginning of the next sample

    def parts(self, size: int) -> list["Piece"]:
        """Returns it in parts of at most `size` samples, at least one."""
        last = max(0, len(self.samples) - 1) // size * size
        parts = [Piece(self.samples[begin : begin + size], b"") for begin in range(0, last, size)]
        return [*parts, Piece(self.samples[last:], self.rest)]


def as_rows(samples: Any, count: int) -> np.ndarray:
    """Converts samples of `count` streams, [count, N], to float32, which may share their memory. Raises AudioError."""
    table = np.asarray(samples)
    if table.ndim != 2 or len(table) != count:
        shape = list(table.shape)
        raise AudioError(f"samples of {count} streams have the shape [{count}, samples]; these have the shape {shape}")
    try:
        rows = table if checked_array(table).dtype == np.float32 else to_float32(table)
    except UnnamedAudioError as error:
        raise AudioError(f"streams: {error}") from None
    energies = np.matmul(rows[:, None, :], rows[:, :, None]).reshape(-1)  # each bounds its row's samples
    for row in np.flatnonzero(~(energies < MAX_AMPLITUDE**2)).tolist():
        try:
            as_mono(rows[row])
        except UnnamedAudioError as error:
            raise AudioError(f"stream {row} of {count}: {error}") from None
    return rows


class StreamInput:
    """Converts the pieces of one stream; the result does not depend on where they are cut.

    Attributes:
      rate_hz: sample rate of the pieces.
      is_direct: whether checked samples are the model's as they are.
    """

    def __init__(self, model_rate_hz: int, sample_rate_hz: Rate | None = None, raw: str | SampleFormat | None = None):
        """Takes samples at `sample_rate_hz`, by default the model's; or bytes of the layout `raw`, at its rate.

        Raises:
          ConfigError: the rate is out of range, or `raw` is not a layout of one channel, or has another rate.
        """
        self._raw = None if raw is None else parse_raw(raw)
        try:
            rate_hz = model_rate_hz if sample_rate_hz is None else check_rate(sample_rate_hz)
        except UnnamedAudioError as error:
            raise ConfigError(f"stream: {error}") from None
        if self._raw is not None:
            if self._raw.channels != 1:
                raise ConfigError(f"a stream takes one channel of samples; {raw} declares {self._raw.channels}")
            if sample_rate_hz not in (None, self._raw.rate_hz):
                raise ConfigError(f"{raw} declares {self._raw.rate_hz} Hz, and sample_rate_hz is {sample_rate_hz}")
            rate_hz = self._raw.rate_hz
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise ConfigError(f"the sample rate of a stream is {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz, not {rate_hz}")
        self.rate_hz = rate_hz
        self._resampler = None if rate_hz == model_rate_hz else Resampler(rate_hz, model_rate_hz)
        self._notes = () if rate_hz == model_rate_hz else (f"resampled from {rate_hz} Hz",)
        self.is_direct = self._resampler is None
        self._rest, self._samples, self._ended = b"", 0, False

    @property
    def duration_s(self) -> float:
        """Seconds of audio taken so far."""
        return self._samples / self.rate_hz

    @property
    def notes(self) -> tuple[str, ...]:
        """Changes made to the audio, in short phrases."""
        if self._ended and self._rest:
            return (*self._notes, f"{len(self._rest)} bytes not used (a part of a sample)")
        return self._notes

    def check(self, piece: Any) -> Piece:
        """Converts a piece; changes nothing.

        Args:
          piece: one channel of samples, [N], [1, N] or [N, 1], float in -1 to 1, int16, int32 or uint8; with its rate,
            as in `open_audio`, if that is the stream's; a whole recording: a path, bytes or a readable object. In a
            stream of raw samples, any number of bytes.

        Raises:
          AudioError: it is none of these, or at another rate.
        """
        try:
            if self._raw is not None and isinstance(piece, bytes | bytearray | memoryview):
                data = self._rest + bytes(piece)
                whole = len(data) // self._raw.frame_bytes * self._raw.frame_bytes
                samples = decode_samples(data[:whole], self._raw)[:, 0] if whole else np.zeros(0, np.float32)
                return Piece(as_mono(samples), data[whole:])
            if isinstance(piece, np.ndarray):  # most pieces: the other types need not be looked for
                return Piece(as_mono(piece), self._rest)
            piece, rate_hz = unpacked(piece)
            if isinstance(piece, str | os.PathLike | Recording) or as_file(piece) is not None:
                return Piece(self._recording(piece), self._rest)
            if rate_hz not in (None, self.rate_hz):
                raise UnnamedAudioError(self._other_rate(rate_hz))
            return Piece(as_mono(piece), self._rest)
        except UnnamedAudioError as error:
            raise AudioError(f"stream: {error}") from None

    def take(self, piece: Piece) -> np.ndarray:
        """Returns the samples that are known with this piece, float32 [N] at the model's rate."""
        self._rest = piece.rest
        self.count(len(piece.samples))
        return piece.samples if self._resampler is None else self._resampler.resample(piece.samples)

    def count(self, samples: int) -> None:
        """Counts samples as taken; of an input that `is_direct`, that is all there is to do once they are checked."""
        self._samples += samples

    def end(self) -> np.ndarray:
        """Returns the samples that are left once the stream has ended."""
        if self._ended:
            return np.zeros(0, np.float32)
        self._ended = True
        nothing = np.zeros(0, np.float32)
        return nothing if self._resampler is None else self._resampler.resample(nothing, last=True)

    def _recording(self, source: Any) -> np.ndarray:
        with closing(open_audio(source, model_rate_hz=self.rate_hz)) as audio:
            if audio.rate_hz != self.rate_hz:
                raise UnnamedAudioError(self._other_rate(audio.rate_hz))
            pieces = []
            while len(samples := audio.read(READ_SAMPLES)):
                pieces.append(samples)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)

    def _other_rate(self, rate_hz: int | None) -> str:
        return f"it takes {self.rate_hz} Hz, and these are at {rate_hz} Hz; open it with sample_rate_hz={rate_hz}"
