"""Data sets of Hugging Face as manifests, with a stand-in for the library."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from experiments.harness.hf_dataset import manifest_of
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.errors import ConfigError


class Audio:
    def __init__(self, decode=True):
        self.decode = decode


class Rows:
    """A data set of the library: columns, and rows whose audio is not decoded after a cast."""

    def __init__(self, rows, features):
        self.rows, self.features = rows, features

    def cast_column(self, name, feature):
        assert isinstance(self.features[name], Audio) and not feature.decode
        return self

    def rename_column(self, name, new):
        assert new not in self.features
        features = {new if key == name else key: value for key, value in self.features.items()}
        return Rows([{new if key == name else key: value for key, value in row.items()} for row in self.rows], features)

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture
def library(monkeypatch, tmp_path):
    for name, level in (("a", 0.1), ("b", 0.2)):
        soundfile.write(tmp_path / f"{name}.flac", np.full(1600, level, np.float32), 16_000)
    rows = [
        {"speech": {"bytes": (tmp_path / "a.flac").read_bytes(), "path": None}, "sentence": "one é"},
        {"speech": {"bytes": None, "path": str(tmp_path / "b.flac")}, "sentence": "two"},
    ]
    given = []

    def load_dataset(*place, split):
        given.append((place, split))
        return Rows(rows, {"speech": Audio(), "sentence": "text"})

    module = SimpleNamespace(
        Audio=Audio, load_dataset=load_dataset, load_from_disk=lambda name: {"train": 1, "test": 2}
    )
    monkeypatch.setitem(sys.modules, "datasets", module)
    return given


def test_a_data_set_is_a_tarred_manifest(library, tmp_path):
    manifest = manifest_of("datasets:owner/speech,clean,test[:2]", tmp_path)
    assert manifest == tmp_path / "owner_speech_clean_test_2.jsonl"
    assert library == [(("owner/speech", "clean"), "test[:2]")]
    entries = expand_manifest(manifest)
    assert [entry.text for entry in entries] == ["one é", "two"]
    assert [round(float(read_all(entry).max()), 2) for entry in entries] == [0.1, 0.2]
    assert manifest_of("datasets:owner/speech,clean,test[:2]", tmp_path) == manifest and len(library) == 1


def test_what_is_wrong_is_a_sentence(library, tmp_path, monkeypatch):
    def error(name):
        with pytest.raises(ConfigError) as caught:
            manifest_of(name, tmp_path)
        return str(caught.value)

    where = f"the data set {tmp_path} can't be loaded: "
    assert error(f"datasets:{tmp_path}") == where + "it has the splits train, test; name one after a comma"
    sentence = "there is no such directory; a data set on the hub has its split after a comma"
    assert error("datasets:nothing") == f"the data set nothing can't be loaded: {sentence}"
    loaded = Rows([], {"speech": Audio(), "words": "text"})
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda *place, split: loaded)
    assert error("datasets:x,test") == (
        "datasets:x,test has no column of text (text, sentence, transcription, transcript, normalized_text), but "
        "audio, words"
    )
    loaded.features = {"words": "text"}
    assert error("datasets:x,test") == "the data set x,test can't be loaded: it has no column of audio, but words"
    assert not list(tmp_path.glob("*.jsonl"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert error("datasets:x,test") == 'datasets is not installed: pip install "nemojax[datasets]"'
