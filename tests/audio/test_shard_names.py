"""Names with a range of numbers."""

from pathlib import Path

import pytest

from nemojax.audio.manifest import numbered_entries
from nemojax.audio.shard_names import manifest_paths
from nemojax.errors import AudioError
from tests.data.corpora import write_manifest


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("data/manifest_{0..2}.json", ["data/manifest_0.json", "data/manifest_1.json", "data/manifest_2.json"]),
        ("manifest__OP_9..11_CL_.json", ["manifest_9.json", "manifest_10.json", "manifest_11.json"]),
        ("m_[008..010].jsonl.gz", ["m_008.jsonl.gz", "m_009.jsonl.gz", "m_010.jsonl.gz"]),
        ("b{1..2}/m_<0..1>.json", ["b1/m_0.json", "b1/m_1.json", "b2/m_0.json", "b2/m_1.json"]),
        ("m_{3..1}.json", ["m_{3..1}.json"]),
        ("m_{a,b}.json", ["m_{a,b}.json"]),
        ("../m.json", ["../m.json"]),
    ],
)
def test_a_name_stands_for_its_shards(name, expected):
    assert manifest_paths(name) == manifest_paths(Path(name)) == [Path(path) for path in expected]


def test_a_file_with_such_a_name_is_itself(tmp_path):
    path = tmp_path / "m_{0..2}.json"
    path.write_text("")
    assert manifest_paths(path) == [path]


def test_too_many_shards_are_one_error():
    assert len(manifest_paths("m_{5000..14999}.json")) == len(manifest_paths("{0..99}{1..100}")) == 10_000
    for name in ("m_{5000..15000}.json", "{0..99}{0..100}"):
        with pytest.raises(AudioError, match=r"the name stands for more than 10000 manifests$"):
            manifest_paths(name)
    for name in ("m_{0..999999}.json", "{0..99}{0..99}{0..99}.json"):
        (line,) = numbered_entries(name)
        assert line.number == 0 and str(line.recording) == f"{name}: the name stands for more than 10000 manifests"


def test_the_lines_of_all_shards(tmp_path):
    """A shard that can't be read is one error, in its place."""
    for shard in (0, 2):
        names = [{"audio_filepath": f"{shard}{part}.wav"} for part in "ab"]
        write_manifest(tmp_path / f"manifest_{shard}.json", names)
    lines = numbered_entries(tmp_path / "manifest__OP_0..2_CL_.json")
    assert [line.number for line in lines] == [1, 2, 0, 1, 2]
    assert [line.recording.name for line in (*lines[:2], *lines[3:])] == ["0a.wav", "0b.wav", "2a.wav", "2b.wav"]
    assert "manifest_1.json: the manifest can't be read (No such file" in str(lines[2].recording)
