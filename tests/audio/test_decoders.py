import io
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemojax.audio import decoders
from nemojax.audio.decoders import DecodedAudio, decode_file
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.raw import Report, parse_raw
from nemojax.audio.window import Window
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wav_bytes, wave, without_frame_count


def from_file(data: bytes, begin_s: float = 0.0, raw: str | None = None) -> DecodedAudio:
    return decode_file(Window(io.BytesIO(data), 0, len(data)), begin_s, ExitStack(), raw and parse_raw(raw))


def samples_of(decoded: DecodedAudio) -> np.ndarray:
    blocks = list(decoded.blocks)
    assert all(block.dtype == np.float32 and 0 < len(block) <= decoders.BLOCK_FRAMES for block in blocks)
    return np.concatenate(blocks) if blocks else np.zeros((0, decoded.channels), np.float32)


@pytest.mark.parametrize("kind", ["wav", "wav24", "wavulaw", "aiff", "au", "w64", "caf", "flac", "opus", "opus", "mp3"])
def test_blocks_are_what_one_read_decodes(kind, monkeypatch):
    monkeypatch.setattr(decoders, "BLOCK_FRAMES", 997)
    file = encoded(wave(20_000, 2), 48_000, kind)
    decoded = from_file(file)
    expected, rate_hz = soundfile.read(io.BytesIO(file), dtype="float32")
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (rate_hz, 2, len(expected))
    np.testing.assert_allclose(samples_of(decoded), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "opus", "mp3"])
@pytest.mark.parametrize("begin_s", [0.001, 0.3, 0.41, 9.0])
def test_seeks_are_exact(kind, begin_s):
    file = encoded(wave(20_000), 48_000, kind)
    decoded, whole = from_file(file, begin_s), samples_of(from_file(file))
    last = 20_000 if kind == "wav" else 19_999  # libsndfile seeks to a sample
    assert decoded.first_frame == (0 if kind in ("vorbis", "opus", "mp3") else min(round(begin_s * 48_000), last))
    np.testing.assert_array_equal(samples_of(decoded), whole[decoded.first_frame :])


@pytest.mark.parametrize("kind", ["wav", "wavulaw", "aiff", "caf", "flac", "vorbis", "mp3"])
def test_a_file_is_decoded_from_its_beginning_wherever_it_was_read(kind):
    file = encoded(wave(2000), 16_000, kind)
    window = Window(io.BytesIO(file), 0, len(file))
    window.read(len(file) // 2)
    np.testing.assert_array_equal(samples_of(decode_file(window, 0.0, ExitStack())), samples_of(from_file(file)))


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
def test_mp3_without_a_frame_count_is_decoded_to_its_end(mode):
    # loud, then quiet: guessed from its first frame, the length of a variable bit rate would be far too short
    samples = wave(50_000) * (np.arange(50_000) < 10_000)
    bare = without_frame_count(encoded(samples, 16_000, "mp3", bitrate_mode=mode, compression_level=0.5))
    decoded = from_file(bare)
    assert decoded.frames is None
    assert 50_000 <= len(samples_of(decoded)) <= 52_000


def flac_that_counts(samples: np.ndarray, frames: int) -> bytes:
    """A flac file with any number of samples in its header; 0 is unknown."""
    file = bytearray(encoded(samples, 16_000, "flac"))
    file[21:26] = (int.from_bytes(file[21:26], "big") >> 36 << 36 | frames).to_bytes(5, "big")
    return bytes(file)


@pytest.mark.parametrize("frames", [0, 1000, 39_999, 40_000, 50_000, (1 << 36) - 1])
def test_a_flac_is_decoded_to_its_end_whatever_it_counts(frames):
    decoded = from_file(flac_that_counts(wave(40_000), frames))
    assert decoded.frames == (frames or None) and len(samples_of(decoded)) == 40_000
    assert bool(decoded.report.notes) == (frames not in (0, 40_000)) and decoded.report.incomplete == (frames > 40_000)


@pytest.mark.parametrize("cut", [5, 17, 18, 21, 22])  # around the bytes of the count
def test_a_flac_that_ends_before_its_count(cut):
    with pytest.raises(UnnamedAudioError, match="damaged"):
        from_file(encoded(wave(4_000), 16_000, "flac")[:cut])


def test_a_truncated_flac_without_a_length():
    file = flac_that_counts(wave(40_000), 0)
    decoded = from_file(file[: len(file) // 2])
    assert 10_000 < len(samples_of(decoded)) < 25_000
    assert decoded.report.incomplete and "it can't be decoded beyond" in decoded.report.notes[0]


@pytest.mark.parametrize("kind", ["wav", "wavulaw", "rf64", "aiff", "au", "w64", "flac", "mp3", "vorbis", "opus"])
def test_a_truncated_file_is_decoded_as_far_as_it_goes(kind):
    file = encoded(wave(64_000), 16_000, kind)
    whole = samples_of(from_file(file))
    for cut in (len(file) - 60, len(file) // 2):
        decoded = from_file(file[:cut])
        samples = samples_of(decoded)
        assert abs(len(samples) - 64_000 * cut / len(file)) < 20_000  # pages of Ogg are long
        lossy = kind in ("mp3", "vorbis", "opus")  # their last frames may differ
        np.testing.assert_allclose(samples[: len(samples) - 3000 * lossy], whole[: len(samples) - 3000 * lossy])
        assert decoded.report.incomplete and len(decoded.report.notes) in (1, 2)


@pytest.mark.parametrize("kind", ["flac", "vorbis", "opus"])
def test_damage_in_the_middle_is_an_error(kind):
    file = bytearray(encoded(wave(160_000), 16_000, kind))
    middle = len(file) // 2
    file[middle : middle + 50] = bytes(50)
    with pytest.raises(UnnamedAudioError, match="damaged"):
        samples_of(from_file(bytes(file)))


@pytest.mark.parametrize("kind", ["flac", "mp3", "vorbis", "wav"])
def test_a_file_that_holds_nothing_of_what_it_announces(kind, monkeypatch):
    monkeypatch.setenv("PATH", "")  # ffmpeg would be asked, too
    file = encoded(wave(160_000), 16_000, kind)
    with pytest.raises(UnnamedAudioError, match=r"truncated|damaged"):
        samples_of(from_file(file[: {"flac": 200, "mp3": 500, "vorbis": 60, "wav": 44}[kind]]))


def test_a_part_beyond_the_end_of_a_truncated_file():
    file = encoded(wave(160_000), 16_000, "flac")
    with pytest.raises(UnnamedAudioError, match=whole("truncated or damaged: it can't be decoded beyond 9.900 s")):
        from_file(file[: len(file) // 2], begin_s=9.9)


def test_a_wav_without_a_size_is_decoded_to_its_end():
    data = (wave(1000) * 32767).astype("<i2").tobytes()
    for sizes in ((0, 0), (0, 36), (0xFFFF_FFFF, 0xFFFF_FFFF), (0x7FFF_F000, 0x7FFF_F024)):
        decoded = from_file(wav_bytes(data, *sizes))
        assert decoded.frames == 1000 and len(samples_of(decoded)) == 1000
    for coding in (6, 7):  # A-law, mu-law
        assert len(samples_of(from_file(wav_bytes(data, 0, 0, coding=coding, bits=8)))) == 2000


@pytest.mark.parametrize("size", [0, 10**6, 0xFFFF_FFFF])
def test_wavs_that_only_libsndfile_decodes_have_any_size(size):
    file = encoded(wave(16_000), 8000, "wavima")
    place = file.index(b"data") + 4
    sized = file[:4] + bytes(4) + file[8:place] + size.to_bytes(4, "little") + file[place + 4 :]
    np.testing.assert_array_equal(samples_of(from_file(sized)), samples_of(from_file(file)))


def test_an_ogg_without_the_mark_of_its_end_has_all_its_samples():
    file = encoded(wave(40_000), 16_000, "vorbis")
    last = file.rindex(b"OggS")
    decoded = from_file(file[: last + 5] + bytes([file[last + 5] & ~4]) + file[last + 6 :])
    np.testing.assert_array_equal(samples_of(decoded), samples_of(from_file(file)))
    assert decoded.report.notes == ["it has no mark of its end, and may have been cut"]


@pytest.mark.parametrize("kind", ["wav", "flac", "vorbis", "mp3", "aiff"])
def test_a_file_that_can_not_be_read_to_its_end(kind, capfd):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() + max(size, 0) > 8000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    data = encoded(wave(80_000), 16_000, kind)
    with pytest.raises(OSError, match="Input/output error"):
        samples_of(decode_file(Window(Failing(data), 0, len(data)), 0.0, ExitStack()))
    assert capfd.readouterr().err == ""  # no traceback of a callback


def test_an_mp3_that_counts_too_few_frames():
    file = encoded(wave(64_000), 16_000, "mp3")
    place = max(file.find(b"Xing"), file.find(b"Info")) + 8
    decoded = from_file(file[:place] + (20).to_bytes(4, "big") + file[place + 4 :])
    assert 60_000 < len(samples_of(decoded)) < 68_000 and decoded.report.notes


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_a_tag_before_any_format(kind):
    file = encoded(wave(40_000), 16_000, kind)
    decoded = from_file(b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + file)
    np.testing.assert_array_equal(samples_of(decoded), samples_of(from_file(file)))


def test_a_header_without_a_block_size():
    file = bytearray(wav_bytes((wave(1000, 2) * 32767).astype("<i2").tobytes(), channels=2))
    expected = samples_of(from_file(bytes(file)))
    file[28:34] = bytes(6)  # bytes a second, and bytes a frame
    np.testing.assert_array_equal(samples_of(from_file(bytes(file))), expected)


def test_declared_samples():
    samples = (wave(3000, 2) * 32767).astype(">i2")
    decoded = from_file(samples.tobytes() + b"\1", raw="s16be,8000,2")
    assert (decoded.rate_hz, decoded.channels, decoded.frames) == (8000, 2, 3000)
    np.testing.assert_array_equal(samples_of(decoded), samples / np.float32(32768))
    assert decoded.report.notes == ["1 byte not used (a part of a sample of 4 bytes)"]
    later = from_file(samples.tobytes(), begin_s=0.25, raw="s16be,8000,2")
    assert (later.first_frame, later.frames) == (2000, 3000)
    np.testing.assert_array_equal(samples_of(later), samples[2000:] / np.float32(32768))
    assert from_file(samples.tobytes(), begin_s=9.0, raw="s16be,8000,2").first_frame == 3000
    with pytest.raises(UnnamedAudioError) as caught:
        from_file(wav_bytes(bytes(100)), raw="s16le")
    assert str(caught.value) == "it was declared as raw samples, but is a wav file; leave the declaration out"
    mp3 = encoded(wave(4000), 16_000, "mp3")  # its few first bytes may be samples
    assert from_file(mp3, raw="u8").frames == len(mp3)
    aac = (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)) * 3
    assert from_file(aac, raw="u8").frames == len(aac)


@pytest.mark.parametrize("kind", ["wav", "wavfloat", "vorbis", "aiff"])
def test_a_file_without_samples_is_valid(kind):
    assert len(samples_of(from_file(encoded(wave(0), 16_000, kind)))) == 0


UNKNOWN = (
    "it is not audio, or is damaged, or is in a format that libsndfile does not read; if it holds samples without a "
    "header, declare them (--raw, in Python raw='s16le,16000,1')"
)


@pytest.mark.parametrize(
    "data,message",
    [
        (b"not audio at all\n" * 100, "it is not audio, but text"),
        (b"\x89PNG\r\n\x1a\n" + np.random.default_rng(1).bytes(2000), "it is not audio, but a PNG image"),
        (np.random.default_rng(2).bytes(5000), UNKNOWN),
        (bytes(5000), UNKNOWN),
        (b"\xff\xfb\x90\0" + np.random.default_rng(3).bytes(2000), UNKNOWN),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "it is not audio, but a WebP image"),
        (
            b"fLaC" + bytes(200),
            "it is a flac file, but damaged, or in an encoding that libsndfile does not read; convert it with: "
            "ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav",
        ),
        (b"", "it is empty (0 bytes)"),
    ],
)
def test_files_that_are_not_audio(data, message):
    with pytest.raises(UnnamedAudioError) as caught:
        from_file(data)
    assert str(caught.value) == message


def test_what_libsndfile_does_not_read_goes_to_ffmpeg(monkeypatch, tmp_path):
    """Other encodings in a wav, a caf or an Ogg file; an error if there is no ffmpeg that could decode it."""
    given = []
    monkeypatch.setattr(decoders, "_decode_ffmpeg", lambda *arguments: given.append(arguments) or "decoded")
    monkeypatch.setattr(decoders.shutil, "which", lambda name: name)
    path, stack, report = tmp_path / "file", ExitStack(), Report()
    speex = bytearray(encoded(wave(4000), 16_000, "vorbis"))
    speex[28:35] = b"Speex  "
    m4a = b"\0\0\0\x1cftypM4A " + bytes(200)
    for data, demuxer in ((b"caff\0\1\0\0" + bytes(90), "caf"), (bytes(speex), "ogg"), (m4a, "mov")):
        window = Window(io.BytesIO(data), 0, len(data))
        assert decoders._decode_one(window, 0.0, stack, report, path) == "decoded"
        window_given, form, *rest = given.pop()
        assert window_given is window and form.demuxer == demuxer and rest == [path, stack, report]
    monkeypatch.setattr(decoders.shutil, "which", lambda name: None)
    with pytest.raises(
        UnnamedAudioError,
        match=whole(
            "it is an Ogg file, but damaged, or in an encoding that libsndfile does not read; convert "
            "it with: ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav"
        ),
    ):
        from_file(bytes(speex))
    with pytest.raises(
        UnnamedAudioError,
        match=whole(
            "it is an AIFF file, but damaged, or in an encoding that libsndfile does not read; convert "
            "it with: ffmpeg -i FILE -ac 1 -ar 16000 OUT.wav"
        ),
    ):
        from_file(b"FORM\0\0\0\0AIFF" + bytes(90))


def test_a_tag_before_another_format_is_no_part_of_it(monkeypatch):
    """ffmpeg gets the file without the tag, and so no path of the whole."""
    given, tag = [], b"ID3\3\0\0\0\0\0\x0a" + bytes(10)
    monkeypatch.setattr(decoders, "_decode_ffmpeg", lambda *arguments: given.append(arguments))
    data = tag + b"\0\0\0\x1cftypM4A " + bytes(200)
    decoders._decode_one(Window(io.BytesIO(data), 0, len(data)), 0.0, ExitStack(), Report(), Path("file"))
    ((window, form, path, *_),) = given
    assert (window.size, form.demuxer, path) == (len(data) - 20, "mov", None)


class Sound:
    """A sound of libsndfile that decodes some frames and may then fail, with `extra` frames in the block."""

    samplerate, channels = 1000, 1

    def __init__(self, frames: int, fails: bool = False, extra: int = 0):
        self.left, self.fails, self.extra = frames, fails, extra

    def read(self, out):
        count = min(len(out), self.left)
        out[:count], self.left = 0.5, self.left - count
        if not count and self.fails:
            out[: self.extra] = 0.25
            raise soundfile.SoundFileError("lost")
        return out[:count]


@pytest.mark.parametrize(
    "sound,frames,spare_frames,found",
    [
        (Sound(250), 250, None, (250, [], False)),
        (Sound(250), 240, None, (250, ["its header announces 240 samples, and it holds 250: all are used"], False)),
        (Sound(250), 300, None, (250, ["its header announces 0.300 s, and it ends after 0.250 s"], True)),
        (Sound(250), None, None, (250, [], False)),
        (Sound(250), 260, 10, (250, [], False)),
        (Sound(250), 261, 10, "damaged: only 0.250 s of its 0.261 s are readable"),
        (Sound(0), 300, None, "truncated: it holds nothing of the 0.300 s that it announces"),
        (Sound(250, fails=True), 250, None, (250, [], False)),
        (Sound(250, fails=True, extra=30), 260, None, (260, [], False)),  # no more than it announces
        (Sound(250, fails=True, extra=30), None, None, (280, ["it can't be decoded beyond 0.280 s"], True)),
        (Sound(0, fails=True), 300, None, "truncated or damaged: it can't be decoded beyond 0.000 s"),
    ],
)
def test_the_end_is_compared_with_the_announced_one(sound, frames, spare_frames, found, monkeypatch):
    monkeypatch.setattr(decoders, "BLOCK_FRAMES", 100)
    report, window = Report(), Window(io.BytesIO(bytes(10)), 0, 10)
    window.furthest = 10
    blocks = decoders._sound_blocks(sound, window, 0, frames, report, spare_frames)
    if isinstance(found, str):
        with pytest.raises(UnnamedAudioError, match=found):
            list(blocks)
    else:
        assert (sum(map(len, blocks)), report.notes, report.incomplete) == found


def test_damage_before_the_end_of_the_data_is_an_error(monkeypatch):
    window = Window(io.BytesIO(bytes(10)), 0, 10)  # of which nothing more is read
    with pytest.raises(UnnamedAudioError, match=whole("truncated or damaged: it can't be decoded beyond 0.250 s")):
        list(decoders._sound_blocks(Sound(250, fails=True), window, 0, 300, Report()))
    with pytest.raises(UnnamedAudioError, match=whole("truncated or damaged: it can't be decoded beyond 0.350 s")):
        list(decoders._sound_blocks(Sound(250, fails=True), window, 100, 500, Report()))  # from frame 100 on


@pytest.mark.parametrize("ended,spare_frames", [(True, 0), (False, decoders.OGG_END_FRAMES)])
def test_only_an_ogg_without_its_end_may_lack_samples(ended, spare_frames, monkeypatch):
    file, given = encoded(wave(4000), 16_000, "vorbis"), []
    last = file.rindex(b"OggS") + 5
    file = file if ended else file[:last] + bytes([file[last] & ~4]) + file[last + 1 :]
    monkeypatch.setattr(decoders, "_sound_blocks", lambda *_, spare_frames: given.append(spare_frames))
    decoders._decode_ogg(Window(io.BytesIO(file), 0, len(file)), None, None, ExitStack(), Report())
    assert given == [spare_frames]
