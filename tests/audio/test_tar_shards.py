"""Which tar file has the audio of a line: NeMo's layouts, Lhotse's, and the manifest's own."""

import pytest

from nemojax.audio import tar_shards
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.tar_index import TarIndex
from nemojax.audio.tar_shards import TarShards
from tests.audio.test_manifest import tarred


def shard(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    tarred(path, dict.fromkeys(names, b"x" * 600))
    return path


def found(manifest, name, shard_id=None):
    member = TarShards(manifest).find(name, shard_id)
    return None if member is None else member.path.resolve()


def test_the_shard_of_a_line(tmp_path):
    zero, one = shard(tmp_path / "audio_0.tar", "a.wav", "b.wav"), shard(tmp_path / "audio_1.tar", "a.wav")
    manifest = tmp_path / "tarred_audio_manifest.json"
    assert [found(manifest, "a.wav", number) for number in (0, 1)] == [zero, one]
    assert found(manifest, "b-sub1.wav", 0) == zero and found(manifest, "a.wav") is None
    for name, number, message in (
        ("b.wav", 1, f"b.wav is neither beside the manifest nor in {one}"),
        ("a.wav", 2, "a.wav is not beside the manifest, and there is no audio_2.tar there or one folder up"),
        (
            "a.wav",
            999_999_999,
            "a.wav is not beside the manifest, and there is no audio_999999999.tar there or one folder up",
        ),
    ):
        with pytest.raises(UnnamedAudioError) as caught:
            found(manifest, name, number)
        assert str(caught.value) == message
    assert found(manifest, "a.wav", 1_000_000_000) is None  # no number of a shard
    shards = TarShards(manifest)
    assert [shards.has_shard(number) for number in (0, 1, 2, None, "0", True)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    for other in (-1, True, "0", 1.0, 10**4000, None, [0]):  # keys of other kinds, with no meaning here
        assert found(manifest, "a.wav", other) is None


def test_sharded_manifests(tmp_path):
    zero, one = shard(tmp_path / "audio_0.tar", "a.wav"), shard(tmp_path / "audio_1.tar", "a.wav")
    folder = tmp_path / "sharded_manifests"
    folder.mkdir()
    for number, path in enumerate((zero, one)):
        for name in (f"manifest_{number}.json", f"manifest_{number}_clean.json.gz", f"manifest_new_{number}.jsonl"):
            assert found(folder / name, "a.wav") == path == found(folder / name, "a.wav", number)
    assert found(folder / "manifest_1.json", "a.wav", 0) == zero  # the line's own number comes first
    assert found(folder / "manifest_7.json", "a.wav") is None
    near = shard(folder / "audio_0.tar", "a.wav")
    assert found(folder / "manifest_0.json", "a.wav") == near


def test_shards_with_longer_names(tmp_path):
    one = shard(tmp_path / "audio_train_1.tar", "a.wav")
    shard(tmp_path / "audio_train_11.tar", "a.wav")
    manifest = tmp_path / "tarred_audio_manifest.json"
    assert found(manifest, "a.wav", 1) == one
    shard(tmp_path / "audio_dev_1.tar", "a.wav")
    with pytest.raises(UnnamedAudioError) as caught:
        found(manifest, "a.wav", 1)
    assert str(caught.value) == "shard 1 is in audio_dev_1.tar or audio_train_1.tar; rename one to audio_1.tar"
    exact = shard(tmp_path / "audio_1.tar", "a.wav")
    assert found(manifest, "a.wav", 1) == exact


def test_the_manifests_own_tar(tmp_path):
    own, lhotse = shard(tmp_path / "dev.tar", "a.wav"), shard(tmp_path / "recording.000003.tar", "cut.flac")
    for name in ("dev.json", "dev.jsonl", "dev.jsonl.gz"):
        assert found(tmp_path / name, "a.wav") == own and found(tmp_path / name, "b.wav") is None
        assert found(tmp_path / name, "a.wav", 5) == own and found(tmp_path / name, "b.wav", 5) is None
    shard(tmp_path / "audio_5.tar", "a.wav", "b.wav")  # the manifest's own comes before a shard
    assert found(tmp_path / "dev.json", "a.wav", 5) == own
    assert found(tmp_path / "dev.json", "b.wav", 5) == tmp_path / "audio_5.tar"
    assert found(tmp_path / "cuts.000003.jsonl.gz", "cut") == lhotse
    assert found(tmp_path / "cuts.000004.jsonl.gz", "cut") is None


def test_a_tar_that_ends_early(tmp_path):
    path = shard(tmp_path / "audio_0.tar", "a.wav", "b.wav")
    path.write_bytes(path.read_bytes()[:1000])
    shards = TarShards(tmp_path / "tarred_audio_manifest.json")
    assert shards.find("a.wav", 0).member == (512, 600)
    with pytest.raises(UnnamedAudioError) as caught:
        shards.find("b.wav", 0)
    assert str(caught.value) == (
        f"b.wav is not beside the manifest, and {path} can't be read to its end (it ends after 1000 bytes, without the "
        "mark of its end)"
    )


def test_a_tar_file_is_indexed_once(tmp_path, monkeypatch):
    shard(tmp_path / "audio_0.tar", "a.wav", "b.wav")
    indexed = []
    monkeypatch.setattr(tar_shards, "TarIndex", lambda path: indexed.append(path) or TarIndex(path))
    shards = TarShards(tmp_path / "tarred_audio_manifest.json")
    assert shards.find("a.wav", 0) is not None and shards.find("b.wav", 0) is not None and len(indexed) == 1


def test_words_before_the_names_of_shards(tmp_path):
    """NeMo finds a number anywhere in a name, as with a prefix for each bucket."""
    one = shard(tmp_path / "bucket3_audio_1.tar", "a.wav")
    assert found(tmp_path / "tarred_audio_manifest.json", "a.wav", 1) == one
    assert found(tmp_path / "bucket3_manifest_1.json", "a.wav") == one
