"""LibriSpeech's folders and manifests as sets with published figures."""

import json

import pytest

from experiments.released.known import SETS
from experiments.released.sets import WORDS, find_sets, set_of
from nemojax.errors import ConfigError


@pytest.mark.parametrize(
    "file, name",
    [
        ("test-clean.jsonl", "librispeech-clean"),
        ("librispeech_test.other.json.gz", "librispeech-other"),
        ("AMI_test.jsonl", "ami"),
        ("family.jsonl", "family"),  # its name has "ami" in it
        ("earnings22.jsonl", "earnings22"),
        ("TED-LIUM.jsonl", "tedlium"),
        ("librispeech_dev_clean.jsonl", "librispeech_dev_clean"),  # another part of the corpus
        ("mine.jsonl", "mine"),
    ],
)
def test_a_manifests_name_tells_its_set(file, name):
    assert set_of(file) == name


def test_every_set_has_a_name():
    assert set(WORDS) == set(SETS)


@pytest.mark.parametrize("folder", ["", "LibriSpeech", "LibriSpeech/test-clean"])
def test_librispeech_as_it_is_distributed(tmp_path, folder):
    chapter = tmp_path / "LibriSpeech" / "test-clean" / "121" / "127105"
    chapter.mkdir(parents=True)
    (chapter / "121-127105.trans.txt").write_text("121-127105-0000 HE'S THERE\n121-127105-0001 NO\n")
    (found,) = find_sets([str(tmp_path / folder)], tmp_path)
    assert found.name == "librispeech-clean"
    lines = [json.loads(line) for line in found.manifest.read_text().splitlines()]
    assert [(line["text"], line["speaker"]) for line in lines] == [("he's there", "121"), ("no", "121")]
    assert lines[1]["audio_filepath"] == str(chapter / "121-127105-0001.flac")


def test_manifests_and_names(tmp_path):
    found = find_sets(["ami=some.jsonl", "ami.jsonl.gz", "x=y.jsonl"][:1] + ["voxpopuli.jsonl", "x=y.jsonl"], tmp_path)
    assert [(one.name, str(one.manifest)) for one in found] == [
        ("ami", "some.jsonl"),
        ("voxpopuli", "voxpopuli.jsonl"),
        ("x=y", "x=y.jsonl"),
    ]


def test_what_is_no_set(tmp_path):
    with pytest.raises(ConfigError, match="has no test-clean or test-other, as LibriSpeech is distributed"):
        find_sets([str(tmp_path)], tmp_path)
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(ConfigError, match="has no transcripts"):
        find_sets([str(tmp_path)], tmp_path)
    with pytest.raises(ConfigError, match="the set ami is named twice"):
        find_sets(["ami.jsonl", "ami=other.jsonl"], tmp_path)
