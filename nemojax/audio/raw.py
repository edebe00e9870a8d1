"""Samples without a container: their layout in bytes, and decoding in blocks."""

import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import soundfile

from nemojax.errors import ConfigError

BLOCK_BYTES = 65_536
MAX_CHANNELS = 64
# An encoding that no wav has: signed samples of 8 bits.
SIGNED_8 = 0
# libsndfile's names of the encodings that it decodes without a header, by the wav encoding and bits. The wav encodings
# are 1: PCM, 3: float, 6: A-law, 7: mu-law.
SUBTYPES = {
    (SIGNED_8, 8): "PCM_S8",
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
# The names of encodings in `--raw`, as ffmpeg has them, with the wav encoding and bits
RAW_ENCODINGS = {
    "s8": (SIGNED_8, 8),
    "u8": (1, 8),
    "s16": (1, 16),
    "s24": (1, 24),
    "s32": (1, 32),
    "f32": (3, 32),
    "f64": (3, 64),
    "alaw": (6, 8),
    "mulaw": (7, 8),
}
RAW_FORM = "ENCODING,RATE,CHANNELS, such as s16le,16000,1"
MAX_MEAN_STEP, MAX_MEAN = 0.3, 0.2  # of full scale; in speech they are below 0.1
CHECKED_SAMPLES = 2048


class SampleFormat(NamedTuple):
    """The layout of samples in bytes, and the number of those bytes."""

    rate_hz: int
    channels: int = 1
    encoding: int = 1  # wav's number: 1 is PCM, 3 is float
    bits: int = 16
    big_endian: bool = False
    frame_bytes: int = 2  # one sample of every channel
    data_bytes: int | None = None  # None: up to the end of the file
    header_bytes: int = 0

    @property
    def subtype(self) -> str | None:
        """libsndfile's name of the encoding; None if it can't be decoded block by block without the header."""
        consistent = 0 < self.channels <= MAX_CHANNELS and self.frame_bytes * 8 == self.channels * self.bits
        return SUBTYPES.get((self.encoding, self.bits)) if consistent else None

    def __str__(self) -> str:
        return f"{self.bits}-bit samples at {self.rate_hz} Hz with {self.channels} channel{'s' * (self.channels > 1)}"


class Report:
    """What decoding finds out about a recording while it is read.

    Attributes:
      notes: short phrases: what was repaired, and what could not be used, with its size.
      incomplete: the recording ends before its header says.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.incomplete = False

    def note(self, text: str, incomplete: bool = False) -> None:
        """Adds a note, once."""
        if text not in self.notes:
            self.notes.append(text)
        self.incomplete |= incomplete

    def unused(self, size: int, what: str, incomplete: bool = False) -> None:
        """Adds a note on bytes that are not used."""
        self.note(f"{size} byte{'s' * (size != 1)} not used ({what})", incomplete)


def parse_raw(text: "str | SampleFormat") -> SampleFormat:
    """Reads the layout of raw samples from ENCODING[,RATE[,CHANNELS]]. Raises ConfigError.

    The encodings are s8, u8, mulaw, alaw, and s16, s24, s32, f32 and f64 with `le` or `be` for the order of bytes. The
    rate is 16000 Hz and the number of channels 1 if they are left out.
    """
    if isinstance(text, SampleFormat):
        return text
    name, *numbers = [part.strip() for part in str(text).split(",")]
    key = "mulaw" if name.lower() == "ulaw" else name.lower()
    ordered = key[:-2] if key[-2:] in ("le", "be") else key
    encoding, bits = RAW_ENCODINGS.get(ordered, (None, 0))
    if encoding is None or (ordered == key) == (bits > 8):
        names = ", ".join(name + ("le, " + name + "be") * (bits > 8) for name, (_, bits) in RAW_ENCODINGS.items())
        raise ConfigError(f"{name[:40]!r} is not an encoding of raw samples; these are: {names}")
    if len(numbers) > 2 or not all(number.isascii() and number.isdigit() and len(number) < 8 for number in numbers):
        raise ConfigError(f"raw samples are declared as {RAW_FORM}; not as {str(text)[:60]!r}")
    rate_hz, channels = [int(number) for number in numbers] + [16_000, 1][len(numbers) :]
    if not (rate_hz and channels):
        raise ConfigError(f"raw samples need a rate and at least one channel: {RAW_FORM}; not {str(text)[:60]!r}")
    return SampleFormat(rate_hz, channels, encoding, bits, key.endswith("be"), channels * bits // 8)


def decode_samples(data: bytes, layout: SampleFormat) -> np.ndarray:
    """Decodes the bytes of whole frames to float32 [frames, channels]; integers are scaled to -1 to 1."""
    samples: np.ndarray
    samples, _ = soundfile.read(
        io.BytesIO(data),
        dtype="float32",
        always_2d=True,
        samplerate=16_000,  # any: it changes nothing
        channels=layout.channels,
        format="RAW",
        subtype=layout.subtype,
        endian="BIG" if layout.big_endian else "LITTLE",
    )
    return samples


def raw_blocks(
    read: Callable[[int], Any], layout: SampleFormat, report: Report, pending: bytes = b""
) -> Iterator[np.ndarray]:
    """Yields the samples in blocks as large as `read` returns them, up to the layout's end or the end of the data.

    `pending` are their first bytes. An incomplete sample at the end and missing bytes are notes.
    """
    width, announced, received = layout.frame_bytes, layout.data_bytes, len(pending)
    while True:
        whole = len(pending) // width * width
        if whole:
            yield decode_samples(pending[:whole], layout)
        pending = pending[whole:]
        data = read(BLOCK_BYTES if announced is None else min(BLOCK_BYTES, announced - received))
        if not data:
            break
        received += len(data)
        pending += data
    if announced is not None and received < announced:
        report.note(missing(announced, received), incomplete=announced - received > width)
    if pending:
        report.unused(len(pending), f"a part of a sample of {width} bytes")


def missing(announced: int, there: int) -> str:
    """Returns the note on samples that end before the header says."""
    return f"its header announces {announced} bytes of samples, and it ends after {there}"


def is_unlike_speech(samples: np.ndarray) -> bool:
    """Returns whether [frames, channels] can't be the samples of speech, so that their layout must be another one.

    Successive samples of speech differ by little, and their mean is near 0. This does not hold for floats, mu-law or
    compressed data that are read as integers.
    """
    with np.errstate(invalid="ignore"):  # of a NaN
        samples = np.asarray(samples[:CHECKED_SAMPLES], np.float64)
    if len(samples) < CHECKED_SAMPLES // 8:
        return False
    if not np.isfinite(samples).all():
        return True
    steps = np.abs(np.diff(samples, axis=0)).mean(axis=0)
    return bool((steps > MAX_MEAN_STEP).any() or (np.abs(samples.mean(axis=0)) > MAX_MEAN).any())
