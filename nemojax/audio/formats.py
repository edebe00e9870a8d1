"""What data are, by their first bytes."""

import codecs
import re
from typing import NamedTuple

from nemojax.audio import mp3

HEAD_BYTES = 4096  # enough for two frames of an mp3


class Format(NamedTuple):
    """A format that data have by their first bytes."""

    name: str  # "a PNG image"
    sndfile: bool = False  # libsndfile reads it
    demuxer: str = ""  # what ffmpeg calls it, if it can hold what only ffmpeg decodes

    @property
    def is_audio(self) -> bool:
        """Whether it can hold audio."""
        return self.sndfile or bool(self.demuxer)


MPEG, ADTS = Format("an mp3", True), Format("AAC audio", demuxer="aac")
TEXT = Format("text")
# Patterns of the first bytes. Those of compressed data and pictures are here for the message alone.
FORMATS = [
    (re.compile(pattern, re.DOTALL), form)
    for pattern, form in (
        (rb"(RIFF|RIFX|RF64|BW64)....WAVE", Format("a wav file", True, "wav")),
        (rb"fLaC", Format("a flac file", True)),
        (rb"OggS", Format("an Ogg file", True, "ogg")),
        (rb"FORM....AIF[FC]", Format("an AIFF file", True)),
        (rb"riff\x2e\x91\xcf\x11", Format("a w64 file", True)),
        (rb"\.snd|dns\.", Format("an au file", True)),
        (rb"NIST_1A\n", Format("a NIST SPHERE file", True)),
        (rb"caff\x00", Format("a caf file", True, "caf")),
        (rb"ID3[\x02-\x04]", MPEG),
        (rb"....(ftyp|moov|mdat)", Format("an MP4 file (m4a, mp4 or mov)", demuxer="mov")),
        (rb"\x1a\x45\xdf\xa3", Format("a WebM or Matroska file", demuxer="matroska")),
        (rb"#!AMR", Format("an AMR file", demuxer="amr")),
        (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Format("a Windows Media file", demuxer="asf")),
        (rb"RIFF....AVI ", Format("an AVI file", demuxer="avi")),
        (rb"FLV\x01", Format("a Flash video", demuxer="flv")),
        (rb"wvpk", Format("a WavPack file", demuxer="wv")),
        (rb"MAC ", Format("a Monkey's Audio file", demuxer="ape")),
        (rb"G.{187}G.{187}G", Format("an MPEG transport stream", demuxer="mpegts")),
        (rb"\x89PNG", Format("a PNG image")),
        (rb"\xff\xd8\xff", Format("a JPEG image")),
        (rb"GIF8", Format("a GIF image")),
        (rb"RIFF....WEBP", Format("a WebP image")),
        (rb"%PDF", Format("a PDF document")),
        (rb"PK\x03\x04", Format("a zip archive")),
        (rb"\x1f\x8b", Format("data compressed by gzip")),
        (rb"BZh\d1AY", Format("data compressed by bzip2")),
        (rb"\xfd7zXZ\x00", Format("data compressed by xz")),
        (rb"\x28\xb5\x2f\xfd", Format("data compressed by zstd")),
        (rb"7z\xbc\xaf\x27\x1c", Format("a 7z archive")),
        (rb"Rar!\x1a", Format("a rar archive")),
        (rb".{257}ustar", Format("a tar archive")),
        (rb"\x93NUMPY", Format("a NumPy array; load it in Python")),
        (rb"\x7fELF", Format("a program")),
        (rb"MThd", Format("a MIDI file")),
        (rb"SQLite format 3", Format("a database")),
    )
]


# Audio that begins after other data; the patterns are longer than in FORMATS.
BEGINNINGS = re.compile(rb"(RIFF|RIFX|RF64|BW64)....WAVE|fLaC\0\0\0\x22|OggS\0\x02|caff\0\x01\0\0desc", re.DOTALL)


def audio_begin(data: bytes) -> int | None:
    """Returns where audio begins in data that begin with something else; None if none is found."""
    found = BEGINNINGS.search(data)
    return mp3.find_frames(data) if found is None else found.start()


def identify(head: bytes) -> Format | None:
    """Returns the format of data that begin with `head`; None if it is unknown, as for raw samples."""
    for pattern, form in FORMATS:
        if pattern.match(head):
            return form
    if mp3.has_frames(head, mp3.frame_bytes):
        return MPEG
    if mp3.has_frames(head, mp3.adts_frame_bytes):
        return ADTS
    return TEXT if is_text(head) else None


def is_text(head: bytes) -> bool:
    """Returns whether bytes are readable text in UTF-8. The last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(letter.isprintable() or letter in "\t\r\n\f\ufeff" for letter in text)
