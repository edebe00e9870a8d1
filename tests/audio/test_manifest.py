import io
import json
import tarfile

import numpy as np
import pytest

from nemojax.audio.manifest import expand_manifest, numbered_entries
from nemojax.audio.source import Recording, open_audio, read_all
from nemojax.errors import AudioError
from tests.helpers.sounds import encoded, wave


def write(path, *entries):
    lines = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def tarred(path, files: dict[str, bytes], **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_files_beside_the_manifest(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "é.wav").write_bytes(encoded(wave(16_000), 16_000))
    path = write(
        tmp_path / "all.jsonl",
        {"audio_filepath": "sub/é.wav", "duration": 1.0, "text": "it is said", "speaker": 7},
        "",
        {"audio_filepath": str(tmp_path / "sub" / "é.wav"), "offset": 0.25, "duration": 0.5},
        {"audio_filepath": "sub/é.wav", "offset": None, "duration": None, "text": None},
    )
    entries = expand_manifest(str(path))
    file = tmp_path / "sub" / "é.wav"
    assert entries == [
        Recording(file, "sub/é.wav", 0.0, 1.0, text="it is said"),
        Recording(file, str(file), 0.25, 0.5),
        Recording(file, "sub/é.wav"),
    ]
    whole, part, again = map(read_all, entries)
    np.testing.assert_array_equal(part, whole[4000:12_000])
    np.testing.assert_array_equal(again, whole)


def test_members_of_the_tar_file_beside_the_manifest(tmp_path):
    sounds = {f"{i}.flac": wave(3000 + i, seed=i) for i in range(5)}
    files = {name: encoded(samples, 16_000, "flac") for name, samples in sounds.items()}
    tarred(tmp_path / "dev.tar", {"./" + name: content for name, content in files.items()} | {"x" * 150: b"?"})
    (tmp_path / "3.flac").write_bytes(encoded(wave(50), 16_000, "flac"))
    entries = expand_manifest(write(tmp_path / "dev.jsonl", *({"audio_filepath": name} for name in [*sounds, "no"])))
    for entry, (name, samples) in zip(entries, sounds.items(), strict=False):
        assert isinstance(entry, Recording) and entry.name == name
        if name == "3.flac":  # the plain file comes first
            assert len(read_all(entry)) == 50
        else:
            np.testing.assert_allclose(read_all(entry), samples, atol=1e-4)
    with pytest.raises(AudioError, match="no: there is no such file"):
        open_audio(entries[5])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3.flac", "dev.jsonl", "dev.tar"]  # nothing is unpacked


def test_names_of_members_begin_with_or_without_the_directory(tmp_path):
    files = {"./a.wav": 100, ".a.wav": 200, "b/./c.wav": 300}
    tarred(tmp_path / "m.tar", {name: encoded(wave(frames), 16_000) for name, frames in files.items()})
    names = ["a.wav", "./a.wav", ".a.wav", "./.a.wav", "b/./c.wav"]
    entries = expand_manifest(write(tmp_path / "m.jsonl", *({"audio_filepath": name} for name in names)))
    assert [len(read_all(entry)) for entry in entries] == [100, 100, 200, 200, 300]


@pytest.mark.parametrize(
    "line,message",
    [
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "it is list, not a JSON object"),
        ("{}", "its audio_filepath is None, not the name of a file"),
        ({"audio_filepath": 3}, "its audio_filepath is 3"),
        ({"audio_filepath": ""}, "its audio_filepath is ''"),
        ({"audio_filepath": "a.wav", "offset": -1}, "its offset is -1, not a number of seconds"),
        ({"audio_filepath": "a.wav", "offset": "1"}, "its offset is '1', not"),
        ({"audio_filepath": "a.wav", "duration": True}, "its duration is True, not"),
        ({"audio_filepath": "a.wav", "duration": float("nan")}, "its duration is nan, not"),
        ({"audio_filepath": "a.wav", "duration": float("inf")}, "its duration is inf, not"),
        ({"audio_filepath": "a.wav", "offset": 10**400}, "its offset is 10"),
        ({"audio_filepath": "a.wav", "duration": 0}, "its duration is 0"),
        ({"audio_filepath": "a.wav", "text": 5}, "its text is 5, not a string"),
    ],
)
def test_an_invalid_line_is_named_and_the_others_are_read(tmp_path, line, message):
    path = write(tmp_path / "m.json", {"audio_filepath": "a.wav"}, "", line, {"audio_filepath": "b.wav"})
    first, bad, last = expand_manifest(path)
    assert isinstance(first, Recording) and isinstance(last, Recording) and last.name == "b.wav"
    assert isinstance(bad, AudioError) and str(bad).startswith(f"{path}: line 3: {message}")
    assert [number for number, _ in numbered_entries(path)] == [1, 3, 4]


def test_byte_order_marks_and_invalid_utf8(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"audio_filepath": "a"}\r\n{"audio_filepath": "\xff"}\r\n{"audio_filepath": "b\\u0000"}'
    )
    first, bad, strange = expand_manifest(path)
    assert isinstance(first, Recording) and first.name == "a"
    assert isinstance(bad, AudioError) and "line 2: it is not JSON" in str(bad)
    with pytest.raises(AudioError, match="null byte"):
        open_audio(strange)


def test_unreadable_manifests(tmp_path):
    (error,) = expand_manifest(tmp_path / "missing.jsonl")
    assert str(error) == f"{tmp_path / 'missing.jsonl'}: the manifest can't be read (No such file or directory)"
    assert [number for number, _ in numbered_entries(tmp_path / "missing.jsonl")] == [0]
    (error,) = expand_manifest(tmp_path)
    assert isinstance(error, AudioError) and "Is a directory" in str(error)
    (error,) = expand_manifest(write(tmp_path / "empty.jsonl", ""))
    assert str(error) == f"{tmp_path / 'empty.jsonl'}: the manifest names no recording"


def test_damaged_tar_files(tmp_path):
    files = {f"{i}.wav": encoded(wave(3000), 16_000) for i in range(3)}
    tarred(tmp_path / "cut.tar", files)
    whole = (tmp_path / "cut.tar").read_bytes()
    manifest = write(tmp_path / "cut.jsonl", *({"audio_filepath": name} for name in files))
    (tmp_path / "cut.tar").write_bytes(whole[:9000])  # inside the second of three
    good, cut, gone = expand_manifest(manifest)
    assert len(read_all(good)) == 3000
    with pytest.raises(AudioError, match=r"1\.wav: truncated: .*cut\.tar ends inside it"):
        open_audio(cut)
    assert isinstance(gone, AudioError) and "line 3: 2.wav is not beside the manifest" in str(gone)
    for content in (b"junk" * 1000, whole[:100], b""):
        (tmp_path / "cut.tar").write_bytes(content)
        errors = expand_manifest(manifest)
        assert len(errors) == 3 and all("can't be read to its end" in str(error) for error in errors), content[:9]
