"""Audio as it is stored, decoded in blocks: files, pipes and arrays at their own rates, with all their channels."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import soundfile

from nemojax.audio import headers
from nemojax.audio.headers import Fault, SampleFormat, Window

BLOCK_FRAMES = 16_384
PIPE_BYTES = 65_536
MAX_CHANNELS = 64
UNKNOWN_FRAMES = 2**60  # libsndfile's count of what it can't count is 2^63 - 1
# What, besides wav, is recognised on a pipe: flac, ogg, mp3 behind an ID3 tag, aiff, w64, au.
SIGNATURES = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM", b"riff", b".snd")


class Track(NamedTuple):
    """Samples in the order of time. Its blocks may raise Fault."""

    blocks: Iterator[np.ndarray]  # float32 [n, channels]
    rate_hz: int
    channels: int
    frames: int | None  # of the whole track; None where that is not known before its end
    first: int = 0  # the frame that the blocks begin at


def array_track(source: Any, rate_hz: int) -> Track:
    """An array of samples, [N] or [N, channels]. Raises Fault."""
    try:
        array = np.asarray(source)
    except (TypeError, ValueError) as error:
        raise Fault(f"it can't be made an array of samples ({error})") from None
    if not is_sound(array.dtype):
        raise Fault(f"its values are {array.dtype}; samples are floats in -1 to 1, or int16")
    if array.ndim not in (1, 2):
        raise Fault(f"its shape is {list(array.shape)}; it must be [samples] or [samples, channels]")
    table = array[:, None] if array.ndim == 1 else array
    if table.shape[1] > MAX_CHANNELS:
        raise Fault(f"its shape is {list(array.shape)}, [samples, channels]; transpose it if it is [channels, samples]")
    blocks = (as_float(table[at : at + BLOCK_FRAMES]) for at in range(0, len(table), BLOCK_FRAMES))
    return Track(blocks, rate_hz, table.shape[1], len(table))


def is_sound(dtype: np.dtype) -> bool:
    return dtype == np.int16 or np.issubdtype(dtype, np.floating)


def as_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768
    with np.errstate(over="ignore"):  # infinity is refused where all samples are checked
        return samples.astype(np.float32)


def pipe_track(file: Any, raw_rate_hz: int, stack: ExitStack) -> Track:
    """What comes through a pipe, as it comes where that is possible.

    Args:
      file: a BufferedReader; its `read1` gives what has arrived.
      raw_rate_hz: of samples without a header.
      stack: closes what is opened here.
    """
    seen = bytearray()

    def read(size: int) -> bytes:
        data = file.read(size)
        seen.extend(data)
        return data

    head = read(12)
    if headers.is_wav(head):
        layout = headers.read_wav_header(head, read)
        if layout.is_plain:
            return _plain(file.read1, layout, None)
    elif head and not head.startswith(SIGNATURES):
        return _plain(file.read1, SampleFormat(raw_rate_hz), None, head)
    data = bytes(seen) + file.read()
    return file_track(Window(io.BytesIO(data), 0, len(data)), 0.0, stack)


def file_track(window: Window, begin_s: float, stack: ExitStack) -> Track:
    """A file, from `begin_s` on where its decoder can go there, else from its beginning."""
    if window.size == 0:
        raise Fault("it is empty (0 bytes)")
    wav, counted = headers.check_whole(window), headers.mp3_counts_frames(window)
    sound = stack.enter_context(_decoder(window))
    frames: int | None = sound.frames
    if wav is not None and wav.data_bytes is None and frames == 0:  # libsndfile takes the missing length for 0
        window.seek(wav.header_bytes)
        return _plain(window.read, wav, (window.size - wav.header_bytes) // max(wav.frame_bytes, 1))
    if sound.format == "MP3" and not counted:
        # its length would be a guess from its first frame, and what is beyond the guess would not be decoded
        sound, frames = stack.enter_context(_decoder(window.stretched())), None
    elif sound.frames > UNKNOWN_FRAMES:
        frames = None
    first = 0
    if begin_s and frames is not None and sound.format not in ("OGG", "MP3"):  # where its seek is exact
        first = min(round(begin_s * sound.samplerate), frames)
        try:
            sound.seek(first)
        except soundfile.SoundFileError:
            raise _undecodable(first / sound.samplerate) from None
    return Track(_decoded(sound, first, frames), sound.samplerate, sound.channels, frames, first)


class _Decoder(soundfile.SoundFile):
    """SoundFile seeks to where it is after every read, which libsndfile gets wrong in opus; this one just reads."""

    def seekable(self) -> bool:
        return False


def _decoder(window: Window) -> _Decoder:
    window.seek(0)
    try:
        return _Decoder(window)
    except soundfile.SoundFileError:
        raise Fault("it is not audio, or is damaged, or is in a format that libsndfile does not read") from None


def _decoded(sound: soundfile.SoundFile, at: int, frames: int | None) -> Iterator[np.ndarray]:
    """Blocks of what libsndfile decodes, from frame `at` to the end, which must be at `frames`."""
    rate_hz = sound.samplerate
    while True:
        try:
            block = sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError:
            raise _undecodable(at / rate_hz) from None
        if not len(block):
            break
        at += len(block)
        yield block
    if frames is not None and at < frames:
        raise Fault(f"truncated: it ends after {at / rate_hz:.3f} s of the {frames / rate_hz:.3f} s announced")


def _undecodable(seconds: float) -> Fault:
    return Fault(f"truncated or damaged: it can't be decoded beyond {seconds:.3f} s")


def _plain(read: Callable[[int], Any], layout: SampleFormat, frames: int | None, head: bytes = b"") -> Track:
    """Samples that need no decoder, in blocks as large as `read` gives; `head` has their first bytes."""
    if not layout.is_plain:
        raise Fault(f"its header gives no length, and a coding (number {layout.encoding}) that needs one")
    if layout.data_bytes is not None:
        frames = layout.data_bytes // layout.frame_bytes
    return Track(_plain_blocks(read, layout, head), layout.rate_hz, layout.channels, frames)


def _plain_blocks(read: Callable[[int], Any], layout: SampleFormat, pending: bytes) -> Iterator[np.ndarray]:
    width, announced, received = layout.frame_bytes, layout.data_bytes, len(pending)
    while True:
        whole = len(pending) // width * width
        if whole:
            yield layout.samples(pending[:whole])
        pending = pending[whole:]
        data = read(PIPE_BYTES if announced is None else min(PIPE_BYTES, announced - received))
        if not data:
            break
        received += len(data)
        pending += data
    if announced is not None and received < announced:
        seconds, of = received / width / layout.rate_hz, announced / width / layout.rate_hz
        raise Fault(f"truncated: it ends after {seconds:.3f} s of the {of:.3f} s announced")
    if announced is None and pending:
        raise Fault(f"truncated: it ends after {received} bytes, inside a sample, which takes {width} bytes")
