"""Decoding of files in blocks, at their own sample rates and with all their channels, until their bytes end.

What a header promises is compared with what is there: differences are notes of the Report.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from nemojax.audio import headers, mp3, ogg
from nemojax.audio.ffmpeg import ADVICE, FfmpegOutput
from nemojax.audio.formats import ADTS, HEAD_BYTES, MPEG, TEXT, Format, audio_begin, identify
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.raw import Report, SampleFormat, raw_blocks
from nemojax.audio.window import PatchedWindow, Window

BLOCK_FRAMES = 16_384
UNKNOWN_FRAMES = 2**60  # libsndfile counts 2^63 - 1 frames if it can't count them
OGG_END_FRAMES = 5760  # the largest packet, 120 ms: what libsndfile can lose at an end without a mark
FLAC_MAGIC, FLAC_COUNT_BYTE = b"fLaC\0\0\0\x22", 21  # the 36 bits of the number of samples end with byte 25
SEARCH_BYTES = 1 << 20
MAX_JOINED = 10_000  # files


class DecodedAudio(NamedTuple):
    """Decoded samples in blocks, in the order of time. Reading a block may raise UnnamedAudioError."""

    blocks: Iterator[np.ndarray]  # float32 [frames, channels]
    rate_hz: int
    channels: int
    frames: int | None  # as the header says; None if the number is not known before the end
    first_frame: int = 0  # the frame that the blocks begin at
    report: Report = Report()
    following: Callable[[], Window | None] = lambda: None  # after the last block: the file that is joined to this one


def decode_file(
    window: Window,
    begin_s: float,
    stack: ExitStack,
    raw: SampleFormat | None = None,
    path: Path | None = None,
) -> DecodedAudio:
    """Decodes a file: from `begin_s` on if its decoder can seek exactly, else from the beginning.

    Args:
      stack: closes what is opened here.
      raw: the layout of samples without a header.
      path: the path of the file, if the window is all of it.

    Raises:
      UnnamedAudioError: the file is empty, or damaged, or its format is not known.
    """
    if window.size == 0:
        raise UnnamedAudioError("it is empty (0 bytes)")
    report = Report()
    if raw is not None:
        refuse_container(window.bytes_at(0, HEAD_BYTES))
        return _decode_raw(window, raw, begin_s, report)
    decoded = _decode_one(window, begin_s, stack, report, path)
    return decoded._replace(blocks=_joined(decoded, stack))


def refuse_container(head: bytes) -> None:
    """Raises UnnamedAudioError if data that are declared as raw samples begin like a file with a header."""
    form = identify(head)
    if form is not None and form.is_audio and form not in (MPEG, ADTS):  # their few bytes may be samples
        raise UnnamedAudioError(f"it was declared as raw samples, but is {form.name}; leave the declaration out")


def _joined(decoded: DecodedAudio, stack: ExitStack) -> Iterator[np.ndarray]:
    """Yields the blocks of a file, and of the files that are joined to its end."""
    report, form = decoded.report, (decoded.rate_hz, decoded.channels)
    current = stack.enter_context(ExitStack())  # closes each file before the next one
    for _ in range(MAX_JOINED):
        yield from decoded.blocks
        window = decoded.following()
        if window is None:
            return
        current.close()
        try:
            decoded = _decode_one(window, 0.0, current, report, None)
        except UnnamedAudioError as error:
            report.unused(window.size, str(error), incomplete=True)
            return
        if (decoded.rate_hz, decoded.channels) != form:
            report.unused(
                window.size,
                f"another recording, at {decoded.rate_hz} Hz, channels: {decoded.channels}",
                incomplete=True,
            )
            return
        report.note("several recordings are joined in it: all are used")
    report.note(f"it joins more than {MAX_JOINED} recordings; the others are not used", incomplete=True)


def _decode_one(window: Window, begin_s: float, stack: ExitStack, report: Report, path: Path | None) -> DecodedAudio:
    form = identify(window.bytes_at(0, HEAD_BYTES))
    if form in (None, TEXT) and (begin := audio_begin(window.bytes_at(0, SEARCH_BYTES))):
        report.unused(begin, "before the audio")
        window, path = window.part(begin), None
        form = identify(window.bytes_at(0, HEAD_BYTES))
    if form is MPEG and (tag := mp3.tag_bytes(window)):  # other formats may have a tag before them, too
        tagged = identify(window.bytes_at(tag, HEAD_BYTES))
        if tagged is not None and tagged.is_audio and tagged is not MPEG:
            form, window, path = tagged, window.part(tag), None
    if form is not None and not form.sndfile and form.demuxer:
        return _decode_ffmpeg(window, form, path, stack, report)
    head = window.bytes_at(0, 12)
    if headers.is_wav(head):
        return _decode_wav(window, form, begin_s, stack, report)
    if head[:4] == b"OggS":
        return _decode_ogg(window, form, path, stack, report)
    if head[:8] == FLAC_MAGIC:
        return _decode_flac(window, begin_s, stack, report)
    if form is MPEG:
        return _decode_mp3(window, stack, report)
    following = headers.joined_file(window)
    one = window if following is None else window.part(0, window.size - following.size)
    try:
        sound = _open(headers.repaired(one, report), form, stack)
    except UnnamedAudioError:
        if form is None or not form.demuxer:
            raise
        return _decode_ffmpeg(window, form, path, stack, report)
    decoded = _decode_sound(sound, one, begin_s, report)
    return decoded if following is None else decoded._replace(frames=None, following=lambda: following)


def _decode_ffmpeg(window: Window, form: Format, path: Path | None, stack: ExitStack, report: Report) -> DecodedAudio:
    output = FfmpegOutput(window, form, path, stack, report)
    wav = headers.read_wav_header(output.read(12), output.read)
    return DecodedAudio(raw_blocks(output.read1, wav, report), wav.rate_hz, wav.channels, None, 0, report)


def _decode_raw(window: Window, layout: SampleFormat, begin_s: float, report: Report) -> DecodedAudio:
    """Decodes samples that begin at byte `layout.header_bytes`."""
    data_bytes = window.size - layout.header_bytes if layout.data_bytes is None else layout.data_bytes
    frames = data_bytes // layout.frame_bytes
    first = min(round(begin_s * layout.rate_hz), frames)
    window.seek(layout.header_bytes + first * layout.frame_bytes)

    def read(size: int) -> bytes:
        data = window.read(min(size, BLOCK_FRAMES * layout.frame_bytes))
        window.check()
        return data

    left = layout._replace(data_bytes=data_bytes - first * layout.frame_bytes)
    return DecodedAudio(raw_blocks(read, left, report), layout.rate_hz, layout.channels, frames, first, report)


def _decode_wav(window: Window, form: Format | None, begin_s: float, stack: ExitStack, report: Report) -> DecodedAudio:
    wav = headers.read_file_header(window)
    data_bytes = headers.sample_bytes(window, wav, report)
    more = list(headers.further_samples(window, wav.header_bytes + data_bytes, wav))
    if wav.subtype:
        decoded = _decode_raw(window, wav._replace(data_bytes=data_bytes), begin_s, report)
        if more:
            report.note(headers.SEVERAL_CHUNKS)
            rest = (block for chunk in more for block in _decode_raw(window, chunk, 0.0, report).blocks)
            decoded = decoded._replace(blocks=chain(decoded.blocks, rest), frames=None)
    else:
        for chunk in more:
            report.unused(chunk.data_bytes or 0, "in further chunks of samples", incomplete=True)
        end = wav.header_bytes + data_bytes if more else window.size  # libsndfile refuses further chunks of samples
        sized = headers.with_sizes(window.part(0, end), wav, data_bytes)
        decoded = _decode_sound(_open(sized, form, stack), sized, begin_s, report)
    if following := headers.joined_wav(window, wav.header_bytes + data_bytes):
        return decoded._replace(frames=None, following=lambda: following)
    return decoded


def _decode_ogg(
    window: Window, form: Format | None, path: Path | None, stack: ExitStack, report: Report
) -> DecodedAudio:
    streams = ogg.streams_of(window, report)
    first, *_ = streams
    stream = window.part(first.begin, first.end)
    if not first.ended:
        report.note("it has no mark of its end, and may have been cut")
        stream = ogg.with_end(stream, first.last_page - first.begin)
    try:
        sound = _open(stream, form, stack)
    except UnnamedAudioError:
        if form is None or not shutil.which("ffmpeg"):
            raise
        return _decode_ffmpeg(window, form, path, stack, report)  # Speex, for example
    blocks = _sound_blocks(sound, stream, 0, sound.frames, report, spare_frames=0 if first.ended else OGG_END_FRAMES)
    rest = window.part(streams[1].begin) if len(streams) > 1 else None
    frames = None if rest else sound.frames
    return DecodedAudio(blocks, sound.samplerate, sound.channels, frames, 0, report, lambda: rest)


def _decode_flac(window: Window, begin_s: float, stack: ExitStack, report: Report) -> DecodedAudio:
    counted = bytearray(window.bytes_at(FLAC_COUNT_BYTE, 5).ljust(5, b"\0"))  # the file may end before it
    frames = int.from_bytes(counted, "big") & 0xF_FFFF_FFFF
    counted[0] &= 0xF0
    uncounted = PatchedWindow(window, {FLAC_COUNT_BYTE: bytes(counted[:1]) + bytes(4)})  # to be decoded to its end
    sound = _open(uncounted, None, stack)
    decoded = _decode_sound(sound, uncounted, begin_s, report, frames or None)

    def following() -> Window | None:
        position = max(uncounted.furthest - SEARCH_BYTES, len(FLAC_MAGIC))
        while position < window.size:
            found = window.bytes_at(position, SEARCH_BYTES).find(FLAC_MAGIC)
            if found >= 0:
                return window.part(position + found)
            position += SEARCH_BYTES - len(FLAC_MAGIC)
        if uncounted.furthest < window.size:
            report.unused(window.size - uncounted.furthest, "after the samples")
        return None

    return decoded._replace(following=following)


def _decode_mp3(window: Window, stack: ExitStack, report: Report) -> DecodedAudio:
    if begin := mp3.first_frame(window):
        if begin != mp3.tag_bytes(window):
            report.note("the size of its ID3 tag is wrong")
        window = window.part(begin)
    window = mp3.repaired(window, report)
    if not mp3.has_frame_count(window):
        stretched = mp3.StretchedWindow(window)
        sound = _open(stretched, MPEG, stack)
        blocks = _sound_blocks(sound, stretched, 0, None, report)
        return DecodedAudio(blocks, sound.samplerate, sound.channels, None, 0, report)
    end = mp3.counted_bytes(window) or window.size
    joined = end < window.size and mp3.next_mp3(window, end) is not None
    first = window.part(0, end)
    sound = _open(first, MPEG, stack)

    def following() -> Window | None:
        end = first.tell()  # mp3s are read frame by frame
        if (begin := mp3.next_mp3(window, end)) is not None:
            return window.part(begin)
        if end < window.size and not window.bytes_at(end, 8).startswith(headers.TAGS):
            report.unused(window.size - end, "after the last frame")
        return None

    frames = None if joined else sound.frames
    blocks = _sound_blocks(sound, first, 0, sound.frames, report)
    return DecodedAudio(blocks, sound.samplerate, sound.channels, frames, 0, report, following)


def _decode_sound(
    sound: soundfile.SoundFile, window: Window, begin_s: float, report: Report, frames: int | None = None
) -> DecodedAudio:
    if frames is None and sound.frames <= UNKNOWN_FRAMES:
        frames = sound.frames
    first = 0
    if begin_s and frames is not None:
        first = min(round(begin_s * sound.samplerate), max(frames - 1, 0))
        try:
            sound.seek(first)
        except soundfile.SoundFileError:
            raise _undecodable(first / sound.samplerate) from None
    blocks = _sound_blocks(sound, window, first, frames, report)
    return DecodedAudio(blocks, sound.samplerate, sound.channels, frames, first, report)


def _open(window: Window, form: Format | None, stack: ExitStack) -> soundfile.SoundFile:
    window.seek(0)
    try:
        sound = stack.enter_context(soundfile.SoundFile(window))
    except (soundfile.SoundFileError, OverflowError, MemoryError):
        window.check()
        if form is None:
            what = (
                "it is not audio, or is damaged, or is in a format that libsndfile does not read; "
                "if it holds samples without a header, declare them (--raw, in Python raw='s16le,16000,1')"
            )
        elif form.is_audio:
            what = f"it is {form.name}, but damaged, or in an encoding that libsndfile does not read; {ADVICE}"
        else:
            what = f"it is not audio, but {form.name}"
        raise UnnamedAudioError(what) from None
    sound.seekable = lambda: False  # else soundfile seeks after every read, which is inexact in opus files
    window.furthest = 0
    return sound


def _sound_blocks(
    sound: soundfile.SoundFile,
    window: Window,
    position: int,
    frames: int | None,
    report: Report,
    spare_frames: int | None = None,
) -> Iterator[np.ndarray]:
    """Yields the blocks from frame `position` to the end of the data, and compares the end with the announced one.

    Args:
      frames: the announced number.
      spare_frames: how many of them may be missing without a note; None is for formats other than Ogg, in which a
        file that is cut ends early. In Ogg, frames are missing only where data are damaged.
    """
    rate_hz, begin, failed = sound.samplerate, position, False
    while not failed:
        block = np.full((BLOCK_FRAMES, sound.channels), np.nan, np.float32)
        try:
            block = sound.read(out=block)
        except soundfile.SoundFileError:  # what was decoded before the error is in the block
            failed, block = True, block[: int(np.logical_and.accumulate(~np.isnan(block).any(axis=1)).sum())]
            if frames is not None:  # libsndfile also fails at what follows the last sample
                block = block[: max(frames - position, 0)]
        window.check()
        if not len(block):
            break
        position += len(block)
        yield block
    if frames is not None and position >= frames - (spare_frames or 0):
        if position > frames:
            report.note(f"its header announces {frames} samples, and it holds {position}: all are used")
        return
    if failed and (position == begin or window.furthest < window.size):
        raise _undecodable(position / rate_hz)
    if frames is not None and spare_frames is not None:
        raise UnnamedAudioError(
            f"damaged: only {position / rate_hz:.3f} s of its {frames / rate_hz:.3f} s are readable"
        )
    if frames is not None:
        if position == 0:
            raise UnnamedAudioError(f"truncated: it holds nothing of the {frames / rate_hz:.3f} s that it announces")
        report.note(
            f"its header announces {frames / rate_hz:.3f} s, and it ends after {position / rate_hz:.3f} s", True
        )
    elif failed:
        report.note(f"it can't be decoded beyond {position / rate_hz:.3f} s", True)


def _undecodable(seconds: float) -> UnnamedAudioError:
    return UnnamedAudioError(f"truncated or damaged: it can't be decoded beyond {seconds:.3f} s")
