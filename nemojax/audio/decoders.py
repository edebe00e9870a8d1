"""Decoding in blocks: files, pipes and arrays at their own sample rates, with all their channels."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import soundfile

from nemojax.audio import headers, mp3
from nemojax.audio.headers import SampleFormat, UnnamedAudioError
from nemojax.audio.window import Window

BLOCK_FRAMES = 16_384
PIPE_BYTES = 65_536
MAX_CHANNELS = 64
UNKNOWN_FRAMES = 2**60  # libsndfile counts 2^63 - 1 frames if it can't count them
INT16_SCALE = 32_768
# The first bytes of the formats that are recognized on a pipe: wav, flac, ogg, mp3 with an ID3 tag, aiff, w64, au.
SIGNATURES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"riff", b".snd")


class DecodedAudio(NamedTuple):
    """Decoded samples in blocks, in the order of time. Reading a block may raise UnnamedAudioError."""

    blocks: Iterator[np.ndarray]  # float32 [frames, channels]
    rate_hz: int
    channels: int
    frames: int | None  # of the whole recording; None if the number is not known before the end
    first_frame: int = 0  # the frame that the blocks begin at


def decode_array(source: Any, rate_hz: int) -> DecodedAudio:
    """Returns the samples of an array, [N] or [N, channels]. Raises UnnamedAudioError."""
    try:
        array = np.asarray(source)
    except (TypeError, ValueError) as error:
        raise UnnamedAudioError(f"it can't be made an array of samples ({error})") from None
    if not is_sample_type(array.dtype):
        raise UnnamedAudioError(f"its values are {array.dtype}; samples are floats in -1 to 1, or int16")
    if array.ndim not in (1, 2):
        raise UnnamedAudioError(f"its shape is {list(array.shape)}; it must be [samples] or [samples, channels]")
    table = array[:, None] if array.ndim == 1 else array
    if table.shape[1] > MAX_CHANNELS:
        raise UnnamedAudioError(
            f"its shape is {list(array.shape)}, [samples, channels]; transpose it if it is [channels, samples]"
        )
    blocks = (to_float32(table[begin : begin + BLOCK_FRAMES]) for begin in range(0, len(table), BLOCK_FRAMES))
    return DecodedAudio(blocks, rate_hz, table.shape[1], len(table))


def is_sample_type(dtype: np.dtype) -> bool:
    """Returns whether an array of this type can hold samples: floats, or int16."""
    return dtype == np.int16 or np.issubdtype(dtype, np.floating)


def to_float32(samples: np.ndarray) -> np.ndarray:
    """Converts samples to float32; int16 is scaled to -1 to 1."""
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / INT16_SCALE
    with np.errstate(over="ignore"):  # infinity is an error where the values are checked
        return samples.astype(np.float32)


def decode_pipe(file: Any, raw_rate_hz: int, stack: ExitStack) -> DecodedAudio:
    """Decodes a pipe: wav and raw samples as they arrive, other formats once they are complete.

    Args:
      file: a BufferedReader; its `read1` returns the bytes that have arrived.
      raw_rate_hz: sample rate of samples without a header.
      stack: closes what is opened here.

    Raises:
      UnnamedAudioError: the pipe is empty, or its header is damaged.
    """
    received = bytearray()

    def read(size: int) -> bytes:
        data: bytes = file.read(size)
        received.extend(data)
        return data

    head = read(12)
    if headers.is_wav(head):
        layout = headers.read_wav_header(head, read)
        if layout.subtype:
            return _decode_raw(file.read1, layout, None)
    elif head and not head.startswith(SIGNATURES):
        return _decode_raw(file.read1, SampleFormat(raw_rate_hz), None, head)
    data = bytes(received) + file.read()
    return decode_file(Window(io.BytesIO(data), 0, len(data)), 0.0, stack)


def decode_file(window: Window, begin_s: float, stack: ExitStack) -> DecodedAudio:
    """Decodes a file: from `begin_s` on if its decoder can seek exactly, else from the beginning.

    Raises:
      UnnamedAudioError: the file is empty, truncated or damaged, or its format is not known.
    """
    if window.size == 0:
        raise UnnamedAudioError("it is empty (0 bytes)")
    wav, counted = headers.check_complete(window), mp3.has_frame_count(window)
    sound = stack.enter_context(_open(window))
    frames: int | None = sound.frames
    if wav is not None and wav.data_bytes is None and frames == 0:  # libsndfile takes the missing size for 0
        window.seek(wav.header_bytes)
        return _decode_raw(window.read, wav, (window.size - wav.header_bytes) // max(wav.frame_bytes, 1))
    if sound.format == "MP3" and not counted:
        sound, frames = stack.enter_context(_open(mp3.StretchedWindow(window))), None
    elif sound.frames > UNKNOWN_FRAMES:
        frames = None
    first = 0
    if begin_s and frames is not None and sound.format not in ("OGG", "MP3"):  # seeking in those is not exact
        first = min(round(begin_s * sound.samplerate), frames)
        try:
            sound.seek(first)
        except soundfile.SoundFileError:
            raise _undecodable(first / sound.samplerate) from None
    return DecodedAudio(_file_blocks(sound, first, frames), sound.samplerate, sound.channels, frames, first)


def _open(window: Window) -> soundfile.SoundFile:
    window.seek(0)
    try:
        sound = soundfile.SoundFile(window)
    except soundfile.SoundFileError:
        raise UnnamedAudioError(
            "it is not audio, or is damaged, or is in a format that libsndfile does not read"
        ) from None
    sound.seekable = lambda: False  # else soundfile seeks after every read, which is inexact in opus files
    return sound


def _file_blocks(sound: soundfile.SoundFile, position: int, frames: int | None) -> Iterator[np.ndarray]:
    """Yields the blocks from frame `position` to the end, which must be at frame `frames` if that is known."""
    rate_hz = sound.samplerate
    while True:
        try:
            block = sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            raise _undecodable(position / rate_hz) from None
        if not len(block):
            break
        position += len(block)
        yield block
    if frames is not None and position < frames:
        raise _truncated(position / rate_hz, frames / rate_hz)


def _undecodable(seconds: float) -> UnnamedAudioError:
    return UnnamedAudioError(f"truncated or damaged: it can't be decoded beyond {seconds:.3f} s")


def _truncated(end_s: float, announced_s: float) -> UnnamedAudioError:
    return UnnamedAudioError(f"truncated: it ends after {end_s:.3f} s of the {announced_s:.3f} s announced")


def _decode_raw(
    read: Callable[[int], Any], layout: SampleFormat, frames: int | None, head: bytes = b""
) -> DecodedAudio:
    """Decodes samples without a header, in blocks as large as `read` returns; `head` holds their first bytes."""
    if layout.subtype is None:
        raise UnnamedAudioError(
            f"its header does not give its length, and its encoding (number {layout.encoding}) needs one"
        )
    if layout.data_bytes is not None:
        frames = layout.data_bytes // layout.frame_bytes
    return DecodedAudio(_raw_blocks(read, layout, head), layout.rate_hz, layout.channels, frames)


def _raw_blocks(read: Callable[[int], Any], layout: SampleFormat, pending: bytes) -> Iterator[np.ndarray]:
    width, announced, received = layout.frame_bytes, layout.data_bytes, len(pending)
    while True:
        whole = len(pending) // width * width
        if whole:
            yield decode_samples(pending[:whole], layout)
        pending = pending[whole:]
        data = read(PIPE_BYTES if announced is None else min(PIPE_BYTES, announced - received))
        if not data:
            break
        received += len(data)
        pending += data
    if announced is not None and received < announced:
        raise _truncated(received / width / layout.rate_hz, announced / width / layout.rate_hz)
    if announced is None and pending:
        raise UnnamedAudioError(
            f"truncated: it ends after {received} bytes, inside a sample, which takes {width} bytes"
        )


def decode_samples(data: bytes, layout: SampleFormat) -> np.ndarray:
    """Decodes the bytes of whole frames to float32 [frames, channels]; integers are scaled to -1 to 1."""
    samples: np.ndarray
    samples, _ = soundfile.read(
        io.BytesIO(data),
        dtype="float32",
        always_2d=True,
        samplerate=layout.rate_hz,
        channels=layout.channels,
        format="RAW",
        subtype=layout.subtype,
        endian="BIG" if layout.big_endian else "LITTLE",
    )
    return samples
