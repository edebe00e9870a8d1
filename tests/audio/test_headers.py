import io
import struct

import numpy as np
import pytest
import soundfile

from nemojax.audio.decoders import decode_samples
from nemojax.audio.headers import SampleFormat, UnnamedAudioError, check_complete, is_wav, read_wav_header
from nemojax.audio.window import Window
from tests.helpers.sounds import encoded, wav_bytes, wave


def whole(data: bytes) -> Window:
    return Window(io.BytesIO(data), 0, len(data))


def header(data: bytes) -> SampleFormat:
    file = io.BytesIO(data)
    return read_wav_header(file.read(12), file.read)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("coding,bits", [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
def test_samples_are_libsndfiles(order, coding, bits):
    rng = np.random.default_rng(bits)
    values = rng.uniform(-1, 1, 50).astype(f"{order}f{bits // 8}") if coding == 3 else None
    data = rng.bytes(50 * bits // 8) if values is None else values.tobytes()
    file = wav_bytes(data, channels=2, coding=coding, bits=bits, order=order)
    layout = header(file)
    assert layout.subtype and layout.data_bytes == len(data) and layout.header_bytes == len(file) - len(data)
    expected, _ = soundfile.read(io.BytesIO(file), dtype="float32")
    np.testing.assert_array_equal(decode_samples(data, layout), expected)


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavfloat", "wavulaw", "rf64"])
def test_headers_of_libsndfiles_own_files(kind):
    file = encoded(wave(300, 3), 22_050, kind)
    layout = header(file)
    assert (layout.rate_hz, layout.channels, layout.data_bytes) == (22_050, 3, 300 * layout.frame_bytes)
    assert bool(layout.subtype) == (kind != "wavulaw")
    if layout.subtype:
        expected, _ = soundfile.read(io.BytesIO(file), dtype="float32")
        np.testing.assert_array_equal(
            decode_samples(file[layout.header_bytes :][: layout.data_bytes], layout), expected
        )


@pytest.mark.parametrize(
    ("layout", "subtype"),
    [
        (SampleFormat(16_000), "PCM_16"),
        (SampleFormat(16_000, channels=3, bits=24, frame_bytes=9), "PCM_24"),
        (SampleFormat(16_000, bits=24, frame_bytes=4), None),  # 24 bits in 32
        (SampleFormat(16_000, channels=0, frame_bytes=0), None),
        (SampleFormat(16_000, encoding=3, bits=16), None),
        (SampleFormat(16_000, encoding=7, bits=8, frame_bytes=1), None),  # mu-law
    ],
)
def test_encodings_that_need_no_header(layout, subtype):
    assert layout.subtype == subtype


def test_chunks_before_the_samples_are_skipped():
    file = wav_bytes(b"\1\2\3\4", riff_size=36 + 4 + 12)
    odd = file[:12] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + file[12:]
    assert header(odd).data_bytes == 4 and header(odd).header_bytes == len(odd) - 4


@pytest.mark.parametrize(
    "riff_size,data_size,data_bytes",
    [
        (0xFFFF_FFFF, 0xFFFF_FFFF, None),  # ffmpeg
        (0x7FFF_F024, 0x7FFF_F000, None),  # sox
        (0x8000_0024, 0x8000_0000, None),  # arecord
        (0, 0, None),
        (36, 0, None),  # gstreamer; also the header of an empty recording
        (36 + 30, 0, 0),  # empty, with a chunk after the samples
        (36 + 8, 0, 0),  # the smallest chunk
        (36 + 40, 40, 40),
    ],
)
def test_sizes_that_mean_unknown(riff_size, data_size, data_bytes):
    assert header(wav_bytes(bytes(40), data_size, riff_size)).data_bytes == data_bytes


@pytest.mark.parametrize("cut", [12, 13, 30, 36, 43])
def test_a_truncated_wav_header(cut):
    with pytest.raises(UnnamedAudioError, match=f"truncated: it ends after {cut} bytes, inside its header"):
        header(wav_bytes(bytes(40))[:cut])


def test_a_wav_without_a_format():
    file = wav_bytes(bytes(40))
    with pytest.raises(UnnamedAudioError, match="no complete 'fmt ' chunk"):
        header(file[:12] + file[36:])


@pytest.mark.parametrize("kind", ["wav", "wavulaw", "rf64", "w64", "aiff", "au", "vorbis", "opus"])
def test_truncation_that_the_container_shows(kind):
    file = encoded(wave(30_000), 16_000, kind)
    check_complete(whole(file))
    for cut in (len(file) - 1, len(file) - 2, len(file) // 2, 1000):
        with pytest.raises(UnnamedAudioError, match=f"truncated: it ends after {cut} "):
            check_complete(whole(file[:cut]))


def test_ogg_truncated_between_pages_or_concatenated():
    file = encoded(wave(60_000), 16_000, "vorbis")
    last = file.rfind(b"OggS")
    with pytest.raises(
        UnnamedAudioError, match=f"truncated: it ends after {last} bytes without the end of its Ogg stream"
    ):
        check_complete(whole(file[:last]))
    with pytest.raises(UnnamedAudioError, match="several Ogg streams"):
        check_complete(whole(file + encoded(wave(60_000, seed=1), 16_000, "vorbis")))


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_other_formats_are_left_to_the_decoder(kind):
    file = encoded(wave(3000), 16_000, kind)
    assert not is_wav(file) and check_complete(whole(file[:-10])) is None


@pytest.mark.parametrize(
    "junk", [b"", b"O", b"RIFF", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"FORMAL notice", b".snd"]
)
def test_junk_has_no_container(junk):
    assert check_complete(whole(junk)) is None
