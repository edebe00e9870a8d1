"""Manifests: the same texts and samples as NeMo's readers and Lhotse's, on data sets made here."""

import numpy as np
import pytest

from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording, read_all
from tests.audio.test_manifest import tarred, write
from tests.helpers.sounds import encoded, wave

pytestmark = pytest.mark.parity

LINES = [
    {"audio_filepath": "d_a.wav", "offset": 0.0, "duration": 0.5, "text": "one", "shard_id": 0},
    {"audio_filepath": "d_a-sub1.wav", "offset": 0.5, "duration": 0.25, "text": "two", "shard_id": 0},
    {"audio_filepath": "d_a-sub2.wav", "offset": 0.6, "duration": 0.25, "text": "bad", "shard_id": 0, "_skipme": True},
    {"audio_filepath": "d_b.flac", "duration": 1.5, "text": "three", "shard_id": 0},
    {"audio_filepath": "d_a.wav", "offset": 0.25, "duration": 1.0, "text": "four", "shard_id": 1},
]


@pytest.fixture
def dataset(tmp_path):
    files = [{"d_a.wav": (32_000, "wav"), "d_b.flac": (24_000, "flac")}, {"d_a.wav": (48_000, "wav")}]
    (tmp_path / "sharded_manifests").mkdir()
    for number, members in enumerate(files):
        sounds = {name: encoded(wave(n, seed=n + number), 16_000, kind) for name, (n, kind) in members.items()}
        tarred(tmp_path / f"audio_{number}.tar", sounds)
        own = [line for line in LINES if line["shard_id"] == number]
        write(tmp_path / "sharded_manifests" / f"manifest_{number}.json", *own)
        for name, content in sounds.items() if number == 0 else ():
            (tmp_path / name).write_bytes(content)
    write(tmp_path / "tarred_audio_manifest.json", *LINES)
    return tmp_path


def assert_same(cuts, path):
    """The order of tarred cuts is that of the members."""
    ours = [(entry.text, read_all(entry)) for entry in expand_manifest(path) if isinstance(entry, Recording)]
    theirs = [(" ".join(s.text for s in cut.supervisions), cut.load_audio()[0]) for cut in cuts]
    assert len(ours) == len(theirs) and ours
    for (text, samples), (expected_text, expected) in zip(sorted(ours), sorted(theirs), strict=True):
        assert text == expected_text
        np.testing.assert_array_equal(samples, expected)


def test_a_tarred_dataset(dataset):
    from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoTarredIterator

    tars = str(dataset / "audio__OP_0..1_CL_.tar")
    for name in ("tarred_audio_manifest.json", "sharded_manifests/manifest__OP_0..1_CL_.json"):
        assert_same(LazyNeMoTarredIterator(str(dataset / name), tars), dataset / name)


def test_files_beside_a_manifest(dataset):
    from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoIterator

    path = write(dataset / "plain.json", LINES[0], LINES[2], LINES[3], {**LINES[1], "audio_filepath": "d_a.wav"})
    assert_same(LazyNeMoIterator(str(path)), path)


def test_lhotse_cuts(dataset):
    from lhotse import CutSet, MonoCut, SupervisionSegment
    from lhotse import Recording as LhotseRecording

    stereo = np.stack([wave(32_000), wave(32_000, seed=1)], axis=1)
    (dataset / "stereo.wav").write_bytes(encoded(stereo, 16_000))
    recording = LhotseRecording.from_file(dataset / "stereo.wav")
    words = [SupervisionSegment(f"s{n}", recording.id, 0.1 * n, 0.1, text=f"w{n}") for n in range(2)]
    cuts = CutSet.from_cuts(
        MonoCut(f"c{channel}.x", 0.5, 1.0, channel, recording=recording, supervisions=words[: 1 + channel])
        for channel in range(2)
    )
    cuts.to_file(dataset / "cuts.jsonl.gz")
    assert_same(cuts, dataset / "cuts.jsonl.gz")
    cuts.to_shar(dataset, fields={"recording": "flac"}, shard_size=10)
    shar = {
        name: [str(dataset / f"{name}.000000.{kind}")] for name, kind in (("cuts", "jsonl.gz"), ("recording", "tar"))
    }
    assert_same(CutSet.from_shar(shar), dataset / "cuts.000000.jsonl.gz")
