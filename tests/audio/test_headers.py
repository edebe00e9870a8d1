import io
import struct

import numpy as np
import pytest
import soundfile

from nemojax.audio import headers
from nemojax.audio.headers import UnnamedAudioError, read_file_header, read_wav_header, sample_bytes
from nemojax.audio.raw import Report, SampleFormat, decode_samples
from nemojax.audio.window import Window
from tests.helpers.messages import whole as whole_message
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
    expected, _ = soundfile.read(io.BytesIO(file), dtype="float32")
    np.testing.assert_array_equal(decode_samples(file[layout.header_bytes :][: layout.data_bytes], layout), expected)


@pytest.mark.parametrize(
    ("layout", "subtype"),
    [
        (SampleFormat(16_000), "PCM_16"),
        (SampleFormat(16_000, channels=3, bits=24, frame_bytes=9), "PCM_24"),
        (SampleFormat(16_000, bits=24, frame_bytes=4), None),  # 24 bits in 32
        (SampleFormat(16_000, channels=0, frame_bytes=0), None),
        (SampleFormat(16_000, encoding=3, bits=16), None),
        (SampleFormat(16_000, encoding=7, bits=8, frame_bytes=1), "ULAW"),
        (SampleFormat(16_000, encoding=6, bits=8, channels=2, frame_bytes=2), "ALAW"),
        (SampleFormat(16_000, encoding=49, bits=0, frame_bytes=65), None),  # GSM
        (SampleFormat(16_000, channels=65, frame_bytes=130), None),
    ],
)
def test_encodings_that_need_no_header(layout, subtype):
    assert layout.subtype == subtype


def test_a_size_of_frames_of_0_follows_from_the_bits():
    file = wav_bytes(bytes(60), channels=2, bits=24)
    assert header(file[:32] + bytes(2) + file[34:]) == header(file) and header(file).frame_bytes == 6


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
    with pytest.raises(
        UnnamedAudioError, match=whole_message("its header does not give the sample format (no complete 'fmt ' chunk)")
    ):
        header(file[:12] + file[36:])


def test_a_header_of_many_or_large_chunks_is_bounded():
    file = wav_bytes(bytes(40))
    with pytest.raises(
        UnnamedAudioError, match=whole_message("its header has more than 10000 chunks before the samples")
    ):
        header(file[:12] + (b"junk" + bytes(4)) * 20_000)
    reads = []

    def read(size):
        reads.append(size)
        return b"junk" + b"\xff" * 4 if size == 8 else bytes(size) if len(reads) < 5000 else b""

    with pytest.raises(
        UnnamedAudioError, match=whole_message("truncated: it ends after 5237641244 bytes, inside its header")
    ):
        read_wav_header(file[:12], read)
    assert max(reads) <= 1 << 20  # however large the chunk says it is


def test_large_chunks_of_a_file_are_not_read(tmp_path):
    begin, end = wav_bytes(b"\1\2\3\4")[:12], wav_bytes(b"\1\2\3\4")[12:]
    with (tmp_path / "sparse.wav").open("wb+") as file:
        file.write(begin + b"junk\xf0\xff\xff\x7f")  # 2 GiB
        file.seek(0x7FFF_FFF0, 1)
        file.write(end)
        file.flush()
        window = Window(file, 0, file.tell())
        assert read_file_header(window).data_bytes == 4 and window.furthest < 0x8000_0100
        reads = []
        window.readinto = lambda buffer, read=window.readinto: reads.append(len(buffer)) or read(buffer)
        read_file_header(window)
        assert sum(reads) < 5000


def real_size(data, size=None, riff_size=None, **layout):
    """The bytes of samples in a wav with this size in its header, and the notes on it."""
    report = Report()
    file = wav_bytes(data, size, riff_size, **layout)
    return sample_bytes(whole(file), header(file), report), report.notes, report.incomplete


SAMPLES = (wave(4000) * 32767).astype("<i2").tobytes()  # 8000 bytes


def test_a_wav_that_is_shorter_than_its_header_says():
    assert real_size(SAMPLES) == (8000, [], False)
    for more in (1, 2, 44):  # half a sample, a sample, the header itself
        notes = [f"its header announces {8000 + more} bytes of samples, and it ends after 8000"]
        assert real_size(SAMPLES, 8000 + more) == (8000, notes, False)
    for more, incomplete in ((46, False), (47, True)):  # the header itself and a sample
        assert real_size(SAMPLES, 8000 + more)[::2] == (8000, incomplete)
    assert real_size(SAMPLES, 9000)[::2] == (8000, True)
    with pytest.raises(
        UnnamedAudioError,
        match=whole_message("truncated: it holds none of the 9000 bytes of samples that it announces"),
    ):
        real_size(b"", 9000)


@pytest.mark.parametrize("size", [0, 2000, 7998, 0xFFFF_FFFF, 0x7FFF_F000])
def test_a_wav_that_is_longer_than_its_header_says(size):
    """A size that wrapped at 4 GiB, or that was never written."""
    data_bytes, notes, incomplete = real_size(SAMPLES, size)
    unknown = size >= 0x7FFF_F000
    if size == 7998:  # two bytes are not enough to be taken for samples
        assert (data_bytes, notes) == (7998, ["2 bytes not used (after the samples)"])
    else:
        note = f"its header announces {size} bytes of samples, and it holds 8000: all are used"
        assert (data_bytes, notes) == (8000, [] if unknown else [note])
    assert not incomplete


@pytest.mark.parametrize(
    "following,note",
    [
        (b"LIST\4\0\0\0abcd", None),
        (b"LIST\3\0\0\0abc\0id3 \0\0\0\0", None),
        (b"TAG" + bytes(125), None),
        (b"RIFF\xff\xff\xff\xffWAVE", None),  # another wav, which is joined
        (b"\0", None),
        (np.random.default_rng(1).bytes(9000), "9000 bytes not used (after the samples)"),
        (bytes(2000), "2000 bytes not used (after the samples)"),
    ],
)
def test_what_follows_the_samples(following, note):
    file = wav_bytes(SAMPLES) + following
    report = Report()
    assert sample_bytes(whole(file), header(file), report) == 8000
    assert report.notes == ([note] if note else [])


@pytest.mark.parametrize("size", [26, 40])
def test_an_extensible_header_names_its_encoding_in_its_extension(size):
    extension = struct.pack("<HHIH", size - 18, 16, 0, 3) + bytes(14)  # floats
    head = struct.pack("<HHIIHH", 0xFFFE, 1, 8000, 32_000, 4, 32) + extension[: size - 16]
    data = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<I", size) + head + b"data" + struct.pack("<I", 8) + bytes(8)
    assert read_file_header(Window(io.BytesIO(data), 0, len(data))).subtype == "FLOAT"


@pytest.mark.parametrize(
    "after,layout,kind",
    [
        (b"", {}, "nothing"),
        (b"x", {}, "nothing"),
        (b"APETAGEX" + bytes(9), {}, "chunks"),
        (b"LYRICS" + bytes(9), {}, "chunks"),
        (b"ID3\4" + bytes(9), {}, "chunks"),
        (b"xLIST\0\0\0\0", {}, "unknown"),  # chunks begin at an even byte
        (wav_bytes(b""), {}, "wav"),
        ((wave(1599) * 9000).astype("<i2").tobytes(), {}, "unknown"),  # 0.1 s are 1600 samples
        ((wave(1600) * 9000).astype("<i2").tobytes(), {}, "samples"),
        ((wave(1600) * 9000).astype("<i2").tobytes() + b"x", {}, "samples"),
        (np.full(1600, 20_000, "<i2").tobytes(), {}, "unknown"),  # unlike speech
        (np.random.default_rng(1).bytes(65), {"coding": 49, "bits": 0}, "samples"),  # compressed: of any kind
        (np.random.default_rng(1).bytes(33), {"coding": 17, "bits": 4}, "samples"),
    ],
)
def test_kinds_of_what_follows_the_samples(after, layout, kind):
    file = wav_bytes(SAMPLES, **layout)
    wav = header(file)
    assert headers.following(whole(file + after), len(file), wav) == kind
    if not after:
        odd = wav_bytes(SAMPLES[:-1])
        assert headers.following(whole(odd + b"\0LIST\0\0\0\0"), len(odd), wav) == "chunks"  # after the padding


def test_the_size_of_an_rf64():
    file = encoded(wave(300), 16_000, "rf64")
    assert header(file).data_bytes == 600
    place = file.index(b"ds64") + 16
    without = file[:place] + bytes(8) + file[place + 8 :]
    assert header(without).data_bytes is None  # the size of its data chunk is 2^32 - 1
    as_riff = b"RIFF" + file[4:]
    assert header(as_riff).data_bytes is None


def test_a_header_that_can_not_be_read():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= 12:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(OSError, match="Input/output error"):
        read_file_header(Window(Failing(wav_bytes(SAMPLES)), 0, 8044))
