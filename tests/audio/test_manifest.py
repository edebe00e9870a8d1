import gzip
import json
import os

import numpy as np
import pytest

from nemojax.audio import manifest as manifest_module
from nemojax.audio.manifest import Manifest, expand_manifest, numbered_entries
from nemojax.audio.source import Recording, open_audio, read_all
from nemojax.errors import AudioError
from tests.helpers.manifests import tarred, write
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wave


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
    with pytest.raises(AudioError, match=whole("no: there is no such file")):
        open_audio(entries[5])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3.flac", "dev.jsonl", "dev.tar"]  # nothing is unpacked


def test_names_of_members_begin_with_or_without_the_directory(tmp_path):
    files = {"./a.wav": 100, ".a.wav": 200, "b/./c.wav": 300}
    tarred(tmp_path / "m.tar", {name: encoded(wave(frames), 16_000) for name, frames in files.items()})
    names = ["a.wav", "./a.wav", ".a.wav", "./.a.wav", "b/./c.wav"]
    entries = expand_manifest(write(tmp_path / "m.jsonl", *({"audio_filepath": name} for name in names)))
    assert [len(read_all(entry)) for entry in entries] == [100, 100, 200, 200, 300]


def test_files_elsewhere(tmp_path, monkeypatch):
    """Beside the manifest first; then in the working directory, or in the user's, as NeMo does."""
    for folder in ("here", "data", "home"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.wav").write_bytes(b"x")
        (tmp_path / folder / f"{folder}.txt").write_text(folder)
    (tmp_path / "here" / "data.wav").write_bytes(b"x")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lines = [{"audio_filepath": f"{name}.wav", "text_filepath": f"{name}.txt"} for name in ("data", "here", "~/home")]
    entries = expand_manifest(write(tmp_path / "data" / "m.jsonl", *lines))
    assert [(entry.path.resolve().parent.name, entry.text) for entry in entries] == [
        (n, n) for n in ("data", "here", "home")
    ]


def test_nemos_tarred_dataset(tmp_path):
    """As NeMo's script writes it: parts of one recording have one member, and `-subK` in their names."""
    sounds = [wave(16_000 + 1000 * number, seed=number) for number in range(3)]
    tarred(tmp_path / "audio_0.tar", {"d_a.wav": encoded(sounds[0], 16_000), "d_b.wav": encoded(sounds[1], 16_000)})
    tarred(tmp_path / "audio_1.tar", {"d_a.wav": encoded(sounds[2], 16_000)})
    lines = [
        {"audio_filepath": "d_a.wav", "offset": 0.0, "duration": 0.5, "text": "a", "shard_id": 0},
        {"audio_filepath": "d_a-sub1.wav", "offset": 0.5, "duration": 0.25, "text": "b", "shard_id": 0},
        {"audio_filepath": "d_b.wav", "duration": 17_000 / 16_000, "text": "c", "shard_id": 0},
        {"audio_filepath": "d_a.wav", "duration": 18_000 / 16_000, "text": "d", "shard_id": 1},
        {"audio_filepath": "d_b.wav", "duration": 1.0, "text": "e", "shard_id": 1},
    ]
    (tmp_path / "d_a.wav").write_bytes(encoded(wave(50), 16_000))  # what is in a shard comes first
    (tmp_path / "sharded_manifests").mkdir()
    whole = expand_manifest(write(tmp_path / "tarred_audio_manifest.json", *lines))
    shards = [
        expand_manifest(write(tmp_path / "sharded_manifests" / f"manifest_{n}.json", *part))
        for n, part in enumerate((lines[:3], lines[3:]))
    ]
    for entries in (whole, [*shards[0], *shards[1]]):
        assert [entry.text for entry in entries[:4]] == list("abcd")
        expected = [sounds[0][:8000], sounds[0][8000:12_000], sounds[1], sounds[2]]
        for entry, samples in zip(entries, expected, strict=False):
            np.testing.assert_allclose(read_all(entry), samples, atol=1e-4)
        assert "d_b.wav is neither beside the manifest nor in" in str(entries[4])


def test_a_line_is_read_again_where_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "MAX_LINE_BYTES", 50)
    names = ["a.wav", "a" * 200 + ".wav", "b.wav", "b" * 45 + ".wav", "c.wav"]
    path = tmp_path / "m.jsonl"
    path.write_text("\n" + "\n".join(json.dumps({"audio_filepath": name}) for name in names))
    manifest = Manifest(path)
    read = [manifest.read(number, offset) for number, offset, _ in manifest.contents()]
    assert [request.number for request in read] == [2, 3, 4, 5, 6]
    assert [request.keys for request in read] == [{"audio_filepath": name} if len(name) < 10 else {} for name in names]


def test_gzip(tmp_path):
    lines = [{"audio_filepath": f"{n}.wav", "duration": n} for n in range(1, 300)]
    plain = write(tmp_path / "m.jsonl", *lines)
    packed, content = tmp_path / "m.jsonl.gz", plain.read_bytes()
    packed.write_bytes(gzip.compress(content[:4000]) + gzip.compress(content[4000:]))  # in two members
    assert expand_manifest(packed) == expand_manifest(plain)
    manifest = Manifest(packed)
    for number, offset, line in manifest.contents():  # lines are read while others are counted
        assert manifest.read(number, offset) == manifest.parse(number, line) and line in content
    (error,) = expand_manifest(write(tmp_path / "no.jsonl.gz", "\x1f"))
    assert "it is not JSON" in str(error)
    data = packed.read_bytes()
    for word, damaged in [
        ("cut short", data[:-9]),
        ("damaged", data[:-8] + bytes(8)),  # not of that sum
        ("damaged", data[:10] + b"\xff" * 20 + data[30:]),  # no blocks
    ]:
        packed.write_bytes(damaged)
        (error,) = expand_manifest(packed)
        assert str(error) == f"{packed}: the manifest can't be read (its gzip data are {word})"


def test_gzip_that_decompresses_to_far_more(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest_module, "MAX_EXTRA_BYTES", 2**20)
    packed = tmp_path / "m.jsonl.gz"
    packed.write_bytes(gzip.compress(bytes(2**22)))
    (error,) = expand_manifest(packed)
    assert str(error) == f"{packed}: the manifest can't be read (it decompresses to more than 50 times its size)"


def test_files_that_are_no_json_lines(tmp_path, monkeypatch):
    path, entry = tmp_path / "m.json", {"audio_filepath": "a.wav"}
    for text in (json.dumps([entry]), json.dumps([entry], indent=1), json.dumps(entry, indent=1)):
        (error,) = expand_manifest(write(path, text))
        assert "the manifest is one JSON text; write each recording as one line" in str(error)
    path.write_text(json.dumps(entry), encoding="utf-16")
    (error,) = expand_manifest(path)
    assert "the manifest is UTF-16; save it as UTF-8" in str(error)
    monkeypatch.setattr(manifest_module, "MAX_SKIPPED_BYTES", 2**24)
    path.write_bytes(b"{}\n" + bytes(2**24 + 1))
    (error,) = expand_manifest(path)
    assert "the manifest can't be read (line 2 is longer than 16777216 bytes)" in str(error)
    path.unlink()
    os.mkfifo(path)
    (error,) = expand_manifest(path)
    assert "the manifest can't be read (it is not a regular file)" in str(error)


def test_a_request_has_all_keys_of_its_line(tmp_path):
    lines = [{"audio_filepath": "a.wav", "utt_id": 7, "x": [None, {"é": 1.5}]}, {"audio_filepath": 3, "utt_id": 8}]
    good, bad, ugly = Manifest(write(tmp_path / "m.jsonl", *lines, "[")).requests()
    assert good.keys == lines[0] and good.recording.name == "a.wav" and bad.keys == lines[1] and ugly.keys == {}
    assert [request.number for request in (good, bad, ugly)] == [1, 2, 3]


def test_byte_order_marks_and_invalid_utf8(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"audio_filepath": "a"}\r\n{"audio_filepath": "\xff"}\r\n{"audio_filepath": "b\\u0000"}\n'
        b'{"audio_filepath": "\\ud800"}'
    )
    first, second, strange, surrogate = expand_manifest(path)
    assert str(surrogate) == f"{path}: line 4: '\\ud800' can't be the name of a file"
    assert isinstance(first, Recording) and first.name == "a"
    assert isinstance(second, Recording) and os.fsencode(second.path) == os.fsencode(tmp_path) + b"/\xff"
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
