"""Decoding of pipes: wav and raw samples as they arrive, other formats once they are complete."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from nemojax.audio import headers
from nemojax.audio.decoders import MAX_JOINED, DecodedAudio, decode_file, refuse_container
from nemojax.audio.formats import ADTS, HEAD_BYTES, MPEG, identify
from nemojax.audio.headers import MIN_CONTINUATION_S, UnnamedAudioError
from nemojax.audio.raw import (
    BLOCK_BYTES,
    CHECKED_SAMPLES,
    RAW_FORM,
    Report,
    SampleFormat,
    decode_samples,
    is_unlike_speech,
    raw_blocks,
)
from nemojax.audio.window import Window, read_whole

SHORT_HEAD_BYTES = 12  # enough to recognize formats with a signature; a live pipe may not have more yet
MAX_COPY_BYTES = 2 << 30  # of a format that can't be decoded as it arrives
MAX_HEADER_BYTES = 64 << 20
DECLARE = f"declare raw samples: --raw {RAW_FORM}"


class Pipe:
    """A readable object that is read once, in order, and to which bytes can be given back.

    Args:
      file: has `read1`, which returns the bytes that have arrived, or only `read`.
    """

    def __init__(self, file: Any):
        self._read, self._given_back = getattr(file, "read1", None) or file.read, b""

    def read1(self, size: int) -> bytes:
        """Reads 1 to `size` bytes, as soon as there are any; none at the end. Raises UnnamedAudioError."""
        if self._given_back:
            data, self._given_back = self._given_back[:size], self._given_back[size:]
            return data
        data = self._read(size)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UnnamedAudioError(f"reading it gives {type(data).__name__}, not bytes; open it in binary mode")
        return bytes(data)

    def read(self, size: int) -> bytes:
        """Reads `size` bytes, fewer only at the end."""
        return read_whole(self.read1, size)

    def give_back(self, data: bytes) -> None:
        """Puts bytes before those that are still to be read."""
        self._given_back = data + self._given_back


def decode_pipe(file: Any, raw_rate_hz: int, stack: ExitStack, raw: SampleFormat | None = None) -> DecodedAudio:
    """Decodes a pipe.

    Without a header and a declaration, data are taken for mono 16-bit little-endian samples at `raw_rate_hz`, with a
    note, unless they are text or unlike the samples of speech.

    Args:
      file: a readable object.
      raw: the declared layout of samples without a header.
      stack: closes what is opened here.

    Raises:
      UnnamedAudioError: the pipe is empty, its header is damaged, or it holds something else.
    """
    pipe, report = Pipe(file), Report()
    head = pipe.read(SHORT_HEAD_BYTES)
    if not head:
        raise UnnamedAudioError("it is empty (0 bytes)")
    if raw is not None:
        refuse_container(head)
        pipe.give_back(head)
        return DecodedAudio(raw_blocks(pipe.read1, raw, report), raw.rate_hz, raw.channels, None, 0, report)
    if headers.is_wav(head):
        received = bytearray(head)

        def read(size: int) -> bytes:
            data = pipe.read(size)
            received.extend(data)
            if len(received) > MAX_HEADER_BYTES:
                raise UnnamedAudioError(f"its header has more than {MAX_HEADER_BYTES >> 20} MiB")
            return data

        wav = headers.read_wav_header(head, read)
        if wav.subtype:
            frames = None if wav.data_bytes is None else wav.data_bytes // wav.frame_bytes
            return DecodedAudio(_wav_blocks(pipe, wav, report), wav.rate_hz, wav.channels, frames, 0, report)
        pipe.give_back(bytes(received))
        return _decode_complete(pipe, stack)
    if identify(head) in (MPEG, ADTS, None):  # frames and samples differ only in a longer head
        head += pipe.read(HEAD_BYTES - len(head)) if head[0] == 0xFF or head[:1] == b"G" else b""
    form = identify(head)
    pipe.give_back(head)
    if form is not None and form.is_audio:
        return _decode_complete(pipe, stack)
    if form is not None:
        raise UnnamedAudioError(f"it is not audio, but {form.name}; if it does hold samples, {DECLARE}")
    layout = SampleFormat(raw_rate_hz)
    report.note(f"it has no header: read as {layout}; --raw declares another layout")
    return DecodedAudio(_likely_blocks(pipe, layout, report), layout.rate_hz, layout.channels, None, 0, report)


def _decode_complete(pipe: Pipe, stack: ExitStack) -> DecodedAudio:
    """Decodes a pipe from a temporary file, once it has ended."""
    copy = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    while data := pipe.read1(BLOCK_BYTES):
        copy.write(data)
        if copy.tell() > MAX_COPY_BYTES:
            raise UnnamedAudioError(f"it has more than {MAX_COPY_BYTES >> 30} GiB; write it to a file, and name that")
    return decode_file(Window(copy, 0, copy.tell()), 0.0, stack)


def _wav_blocks(pipe: Pipe, wav: SampleFormat, report: Report) -> Iterator[np.ndarray]:
    """Yields the announced samples, what follows them if it is more samples, and the wavs that are joined to this."""
    for _ in range(MAX_JOINED):
        yield from raw_blocks(pipe.read1, wav, report)
        following = _following_wav(pipe, wav, report) if wav.data_bytes is not None else None
        if following is None:
            return
        wav = following
    report.note(f"it joins more than {MAX_JOINED} recordings; the others are not used", incomplete=True)


def _following_wav(pipe: Pipe, wav: SampleFormat, report: Report) -> SampleFormat | None:
    """Reads what comes after the announced samples. Returns the layout of more samples; None at the end."""
    size, chunks, order = wav.data_bytes or 0, 0, "big" if wav.big_endian else "little"
    while chunks < headers.MAX_CHUNKS:
        odd = size % 2
        head = pipe.read(12 + odd)
        wavs = [shift for shift in (0, odd) if headers.is_wav(head[shift:])]
        if wavs:
            pipe.give_back(head[wavs[0] + 12 :])
            return _joined_wav(pipe, wav, head[wavs[0] : wavs[0] + 12], report)
        if len(head) < odd + 8 or not headers.is_name(head[odd : odd + 4]):
            break
        size = int.from_bytes(head[odd + 4 : odd + 8], order)  # type: ignore[arg-type]
        pipe.give_back(head[odd + 8 :])
        if head[odd : odd + 4] == b"data":
            report.note(headers.SEVERAL_CHUNKS)
            return wav._replace(data_bytes=size)
        skipped = headers.skip(pipe.read, size)
        if skipped < size:
            report.unused(8 + skipped, "after the samples")
            return None
        chunks += 1
    enough = max(round(MIN_CONTINUATION_S * wav.rate_hz), CHECKED_SAMPLES) * wav.frame_bytes
    head += pipe.read(max(enough - len(head), 0))
    whole = head[: len(head) // wav.frame_bytes * wav.frame_bytes]
    if not chunks and len(head) >= enough and not is_unlike_speech(decode_samples(whole, wav)):
        pipe.give_back(head)
        report.note(f"its header announces {wav.data_bytes} bytes of samples, and more follow: all are used")
        return wav._replace(data_bytes=None)
    rest = len(head) + _drain(pipe)
    if rest > 1:
        report.unused(rest, "after the samples")
    return None


def _joined_wav(pipe: Pipe, wav: SampleFormat, head: bytes, report: Report) -> SampleFormat | None:
    """Reads the header of a wav that is joined to another one. Returns its layout; None if it is another layout."""
    following = headers.read_wav_header(head, pipe.read)
    if following[:6] == wav[:6]:
        report.note("several recordings are joined in it: all are used")
        return following
    report.unused(
        following.header_bytes + _drain(pipe),
        f"another recording, at {following.rate_hz} Hz, channels: {following.channels}",
        incomplete=True,
    )
    return None


def _drain(pipe: Pipe) -> int:
    """Reads and drops what is left. Returns its size in bytes."""
    size = 0
    while data := pipe.read1(BLOCK_BYTES):
        size += len(data)
    return size


def _likely_blocks(pipe: Pipe, layout: SampleFormat, report: Report) -> Iterator[np.ndarray]:
    """Yields undeclared samples. Raises UnnamedAudioError once their beginning is unlike speech."""
    checked = np.zeros((0, layout.channels), np.float32)
    for block in raw_blocks(pipe.read1, layout, report):
        if len(checked) < CHECKED_SAMPLES:
            checked = np.concatenate([checked, block])[:CHECKED_SAMPLES]
            if len(checked) == CHECKED_SAMPLES:
                _check_likely(checked, layout)
        yield block
    if len(checked) < CHECKED_SAMPLES:
        _check_likely(checked, layout)


def _check_likely(samples: np.ndarray, layout: SampleFormat) -> None:
    if is_unlike_speech(samples):
        raise UnnamedAudioError(f"it has no header, and its bytes are not {layout}; {DECLARE}")
