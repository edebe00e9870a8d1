"""Cuts as Lhotse writes them, and cuts that can't be read."""

import gzip
import json

import numpy as np
import pytest

from nemojax.audio.lhotse_cut import is_cut
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import read_all
from nemojax.errors import AudioError
from tests.audio.test_manifest import tarred
from tests.helpers.messages import whole
from tests.helpers.sounds import encoded, wave


def recording(source, channels=(0,), kind="file", **others):
    sources = [{"type": kind, "channels": list(channels), "source": str(source)}]
    return {"id": "r", "sources": sources, "sampling_rate": 16000, "num_samples": 16000, "duration": 1.0, **others}


def cut(audio, start=0.0, duration=1.0, texts=(), channel=0, kind="MonoCut", **others):
    supervisions = [
        {"id": f"s{at}", "recording_id": "r", "start": at, "duration": 0.1, "channel": 0, "text": text}
        for at, text in texts
    ]
    entry = {"id": "c", "start": start, "duration": duration, "channel": channel, "supervisions": supervisions}
    return {**entry, "recording": audio, "type": kind, **others}


def entries(tmp_path, *cuts, name="cuts.jsonl.gz"):
    content = "".join(json.dumps(entry) + "\n" for entry in cuts).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    return expand_manifest(tmp_path / name)


def test_parts_and_texts(tmp_path):
    (tmp_path / "a.wav").write_bytes(encoded(wave(16_000), 16_000))
    whole, part, silent, multi = entries(
        tmp_path,
        cut(recording(tmp_path / "a.wav"), texts=[(0.5, "two"), (0.0, "one"), (0.7, None)]),
        cut(recording("a.wav"), 0.25, 0.5, texts=[(0, "")]),
        {**cut(recording("a.wav", transforms=[])), "supervisions": None, "type": None},
        cut(recording("a.wav", (0, 1)), channel=[0, 1], kind="MultiCut"),
    )
    assert [entry.text for entry in (whole, part, silent, multi)] == ["one two", "", None, None]
    np.testing.assert_array_equal(read_all(part), read_all(whole)[4000:12_000])
    assert len(read_all(silent)) == len(read_all(multi)) == 16_000


def test_a_channel_of_a_file_of_several(tmp_path):
    left, right = wave(8000), 0.5 * wave(8000)
    (tmp_path / "a.wav").write_bytes(encoded(np.stack([left, right], axis=1), 16_000))
    first, second = entries(tmp_path, *(cut(recording("a.wav", (2, 4)), 0.0, 0.5, channel=n) for n in (2, 4)))
    assert (first.channel, second.channel) == (0, 1)
    np.testing.assert_allclose(read_all(second), right, atol=1e-4)


def test_the_file_of_a_channel(tmp_path):
    """As of meetings: each microphone in a file of its own."""
    sources = [{"type": "file", "channels": [n], "source": f"{n}.wav"} for n in range(3)]
    one, all_channels, none = entries(
        tmp_path,
        *(cut({"sources": sources}, channel=channel) for channel in (2, [0, 1, 2], 3)),
    )
    assert one.name == "2.wav"
    assert "its channels are in several files" in str(all_channels) and "has channel 3" in str(none)


def test_channels_of_a_file(tmp_path):
    samples = wave(16_000, channels=3)
    (tmp_path / "a.wav").write_bytes(encoded(samples, 16_000))
    chosen = [(1, [1]), (7, [2]), ([0, 7], [0, 2]), ([7, 1, 0], [0, 1, 2])]
    found = entries(tmp_path, *(cut(recording("a.wav", (0, 1, 7)), channel=channel) for channel, _ in chosen))
    for entry, (_, columns) in zip(found, chosen, strict=True):
        np.testing.assert_allclose(read_all(entry), samples[:, columns].mean(axis=1), atol=1e-4)
    error, both = entries(
        tmp_path, *(cut(recording("a.wav", (0, 1)), channel=channels) for channels in ([0, 2, 3], [1, 0]))
    )
    assert str(error).endswith(": line 1: its recording has no channel 2") and both.channel is None


def test_members_of_lhotses_tar_files(tmp_path):
    sound = encoded(wave(16_000), 16_000, "flac")
    tarred(tmp_path / "recording.000001.tar", {"a.b.flac": sound, "a.b.json": b"{}"})
    found, lost = entries(
        tmp_path,
        cut(recording("", kind="shar"), id="a.b"),
        cut(recording("", kind="shar"), id="b"),
        name="cuts.000001.jsonl.gz",
    )
    assert found.name == "a.b" and len(read_all(found)) == 16_000
    with pytest.raises(AudioError, match=whole("b: there is no such file")):
        read_all(lost)


@pytest.mark.parametrize(
    "entry, message",
    [
        (
            {"type": "MixedCut", "tracks": []},
            "it is a MixedCut without a recording of its own; only MonoCut and MultiCut can be read",
        ),
        (
            {"type": "PaddingCut", "duration": 1.0},
            "it is a PaddingCut without a recording of its own; only MonoCut and MultiCut can be read",
        ),
        (
            cut(recording("a.wav", transforms=[{"name": "Speed"}])),
            "its recording has transforms; save the transformed audio to files first",
        ),
        (
            cut(recording("cat a.wav", kind="command")),
            "the source of its recording is 'command', not a file; save the audio to files",
        ),
        (
            cut({"sources": [{"type": "file", "channels": [0], "source": 5}]}),
            "the source of its recording is 5, not the name of a file",
        ),
        (cut({"sources": [{"type": "file", "channels": 0}]}), "the channels of its source are not a list of numbers"),
        (cut(recording(5, kind=None)), "the source of its recording is None, not a file; save the audio to files"),
        (cut(recording("")), "the source of its recording is '', not the name of a file"),
        (cut(recording("a.wav", ("0",))), "the channels of its source are not a list of numbers"),
        (cut(recording("a.wav"), channel=[0, "1"]), "its channel is [0, '1'], not a number or a list of numbers"),
        (cut(recording("a.wav"), channel=True), "its channel is True, not a number or a list of numbers"),
        (cut(recording("a.wav"), channel=1000), "its channel is 1000, not a number or a list of numbers"),
        (cut(recording("a.wav"), channel=999), "no source of its recording has channel 999"),
        (cut({"sources": []}), "its recording has no sources"),
        (cut({"sources": ["a.wav"]}), "its recording has no sources"),
        (cut({}), "its recording has no sources"),
        (cut(recording("a.wav"), channel="0"), "its channel is '0', not a number or a list of numbers"),
        (cut(recording("a.wav"), start="x"), "its offset is 'x', not a number of seconds"),
        (cut(recording("a.wav"), texts=[(0, 5)]), "a text of its supervisions is 5, not a string"),
        (cut(recording("", kind="shar"), id=5), "its id is 5, not the name of a member of a tar file"),
    ],
)
def test_cuts_that_can_not_be_read(tmp_path, entry, message):
    first, bad, last = entries(tmp_path, cut(recording("a.wav")), entry, cut(recording("b.wav")))
    assert (first.name, last.name) == ("a.wav", "b.wav")
    assert isinstance(bad, AudioError) and str(bad) == f"{tmp_path / 'cuts.jsonl.gz'}: line 2: {message}"


def test_texts_are_in_the_order_of_their_times(tmp_path):
    """A supervision without a time of its own comes first; two at one time stay in their order."""
    one = cut(recording("a.wav"), texts=[(2.0, "d"), (1, "b"), (1.0, "c")])
    one["supervisions"] += [{"text": "a", "start": "soon"}, "no supervision", {"start": 9.0}]
    (entry,) = entries(tmp_path, one)
    assert entry.text == "a b c d"
    for supervisions in ([], "x", [{}]):
        assert entries(tmp_path, {**one, "supervisions": supervisions})[0].text is None


def test_what_is_a_cut():
    named, audio = {"audio_filepath": "a.wav"}, {"recording": {}}
    for entry, found in (
        ({"type": "MonoCut"}, True),
        ({"type": "PaddingCut"}, True),
        (audio, True),
        ({"recording": "a.wav"}, False),
        ({"type": "Cutlet"}, False),
        ({"type": 5}, False),
        (named | audio | {"type": "MonoCut"}, False),
    ):
        assert is_cut(entry) is found, entry
