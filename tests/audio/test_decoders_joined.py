"""Files that are joined, and what else follows the last sample."""

import numpy as np
import pytest

from nemojax.audio import decoders
from tests.audio.test_decoders import from_file, samples_of
from tests.helpers.sounds import encoded, wav_bytes, wave


@pytest.mark.parametrize("kind", ["wav", "wavulaw", "aiff", "au", "w64", "flac", "mp3", "vorbis", "opus"])
def test_joined_files_are_decoded_one_after_the_other(kind):
    files = [encoded(wave(40_000, seed=seed), 16_000, kind) for seed in (1, 2, 3)]
    decoded = from_file(b"".join(files))
    assert (decoded.frames is None) == (kind != "flac")  # which counts its own
    samples = samples_of(decoded)
    np.testing.assert_array_equal(samples, np.concatenate([samples_of(from_file(file)) for file in files]))
    assert len(samples) == 120_000 and decoded.report.notes == ["several recordings are joined in it: all are used"]
    other = encoded(wave(40_000, 2), 16_000, kind)
    decoded = from_file(files[0] + other)
    assert len(samples_of(decoded)) == 40_000 and decoded.report.incomplete
    assert decoded.report.notes == [f"{len(other)} bytes not used (another recording, at 16000 Hz, channels: 2)"]


def test_a_wav_that_is_joined_after_a_chunk():
    first = wav_bytes(bytes(7000)) + b"LIST\3\0\0\0abc\0"
    decoded = from_file(first + first + first[:-3])
    assert len(samples_of(decoded)) == 10_500
    assert decoded.report.notes[0] == "several recordings are joined in it: all are used"


@pytest.mark.parametrize("kind", ["flac", "mp3", "vorbis"])
def test_what_follows_the_last_sample_is_a_note(kind):
    file = encoded(wave(40_000), 16_000, kind)
    decoded = from_file(file + bytes(60_000))
    assert len(samples_of(decoded)) == 40_000 and len(decoded.report.notes) == 1
    assert "bytes not used" in decoded.report.notes[0]
    tagged = from_file(file + b"TAG" + bytes(125)) if kind != "vorbis" else from_file(file)
    assert len(samples_of(tagged)) == 40_000 and not tagged.report.notes


@pytest.mark.parametrize("before", [-3, 0, 1, 4, 7, 8, 9])
def test_a_joined_flac_is_found_wherever_it_begins(before, monkeypatch):
    """Also across the end of what is read at a time: `before` bytes of it are before that end."""
    monkeypatch.setattr(decoders, "SEARCH_BYTES", search := 1 << 14)
    first, second = (encoded(wave(9000, seed=seed), 16_000, "flac") for seed in (1, 2))
    decoded = from_file(first + bytes(60_000))
    assert len(samples_of(decoded)) == 9000
    unused = int(decoded.report.notes[0].split()[0])
    end = len(first) + 60_000 - unused  # what libsndfile has read, and where the first search ends
    for rounds in (0, 1):  # the second search begins 8 bytes earlier, so that it has all of the mark
        begin = end + rounds * (search - len(decoders.FLAC_MAGIC)) - before
        decoded = from_file(first + bytes(begin - len(first)) + second)
        assert len(samples_of(decoded)) == 18_000
        assert decoded.report.notes == ["several recordings are joined in it: all are used"]


@pytest.mark.parametrize("kind,what", [("flac", "after the samples"), ("mp3", "after the last frame")])
def test_the_size_of_what_follows(kind, what):
    file = encoded(wave(40_000), 16_000, kind)
    decoded = from_file(file + b"x" * 50_001)
    assert len(samples_of(decoded)) == 40_000
    (note,) = decoded.report.notes
    size = int(note.split()[0])
    assert note == f"{size} bytes not used ({what})" and 0 < size <= 50_001 and not decoded.report.incomplete


@pytest.mark.parametrize("kind", ["flac", "mp3", "vorbis"])
def test_a_joined_file_is_closed_before_the_next_one(kind, monkeypatch):
    opened, open_sound = [], decoders._open

    def watched(*arguments):
        assert all(sound.closed for sound in opened[1:])  # the first one belongs to the caller
        opened.append(open_sound(*arguments))
        return opened[-1]

    monkeypatch.setattr(decoders, "_open", watched)
    decoded = from_file(encoded(wave(3000), 16_000, kind) * 4)
    assert (decoded.frames is None) == (kind != "flac")  # which counts its own
    assert len(samples_of(decoded)) == 12_000 and len(opened) == 4
