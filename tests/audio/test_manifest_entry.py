from pathlib import Path

import pytest

from nemojax.audio import manifest_entry
from nemojax.audio.headers import UnnamedAudioError
from nemojax.audio.manifest import expand_manifest, numbered_entries
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from tests.helpers.manifests import write
from tests.helpers.messages import whole


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), OSError("Input/output error")])
def test_a_text_that_the_system_can_not_read(tmp_path, monkeypatch, error):
    (tmp_path / "a.txt").write_text("a")

    def fail(*arguments):
        raise error

    manifest = write(tmp_path / "m.json", {"audio_filepath": "a.wav", "text_filepath": "a.txt"})
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: fail() if path.suffix == ".txt" else opened(path, *how))
    (entry,) = expand_manifest(manifest)
    assert str(entry) == f"{manifest}: line 1: its text_filepath a.txt can't be read (Input/output error)"


def test_of_several_texts_the_first_kind_counts(tmp_path):
    (tmp_path / "a.txt").write_text("of a file")
    texts = {"text": "its own", "text_filepath": "a.txt", "normalized_text": "normalized"}
    lines = [{"audio_filepath": "a.wav", **dict(list(texts.items())[first:])} for first in range(3)]
    found = expand_manifest(write(tmp_path / "m.json", *lines))
    assert [entry.text for entry in found] == ["its own", "of a file", "normalized"]


@pytest.mark.parametrize(
    "line,message",
    [
        ("{", "it is not JSON ("),
        ('{"a": ' + "9" * 5000 + "}", "it is not JSON that can be read: a number has thousands of digits"),
        ('{"a": ' + "[" * 60 + "]" * 60 + "}", "it is not JSON that can be read: it is nested too deeply"),
        ('{"audio_filepath": "' + "x" * 2**23 + '"}', "it is longer than 8388608 bytes"),
        ("[" * 100_000, "it is not JSON that can be read: it is nested too deeply"),
        ("[1]", "it is list, not a JSON object"),
        ("{}", "its audio_filepath is None, not the name of a file"),
        ({"audio_filepath": 3}, "its audio_filepath is 3, not the name of a file"),
        ({"audio_filepath": ""}, "its audio_filepath is '', not the name of a file"),
        ({"audio_filepath": "a.wav", "offset": -1}, "its offset is -1, not a number of seconds"),
        ({"audio_filepath": "a.wav", "offset": "1"}, "its offset is '1', not a number of seconds"),
        ({"audio_filepath": "a.wav", "duration": True}, "its duration is True, not a number of seconds"),
        ({"audio_filepath": "a.wav", "duration": float("nan")}, "its duration is nan, not a number of seconds"),
        ({"audio_filepath": "a.wav", "duration": float("inf")}, "its duration is inf, not a number of seconds"),
        (
            {"audio_filepath": "a.wav", "offset": 10**400},
            f"its offset is 1{'0' * 99} ... {'0' * 100}, not a number of seconds",
        ),
        ({"audio_filename": "", "duration": 1}, "its audio_filename is '', not the name of a file"),
        ({"audio_filepath": "a\ud800.wav"}, r"'a\ud800.wav' can't be the name of a file"),
        ({"audio_filepath": "a.wav", "text": "\udce4"}, r"its text has characters that are not Unicode: \udce4"),
        ({"audio_filepath": "a.wav", "text": ["a"]}, "its text is ['a'], not a string"),
        ({"audio_filepath": "a.wav", "text_filepath": 7}, "its text_filepath is 7, not the name of a file"),
        (
            {"audio_filepath": "a.wav", "text_filepath": "no.txt"},
            "its text_filepath no.txt can't be read (there is no such file)",
        ),
        ({"audio_filepath": "a.wav", "text_filepath": "."}, "its text_filepath . can't be read (it is not a file)"),
        (
            {"audio_filepath": "a.wav", "text_filepath": "/dev/zero"},
            "its text_filepath /dev/zero can't be read (it is not a file)",
        ),
        (
            {"audio_filepath": "a.wav", "text_filepath": "latin1"},
            "its text_filepath latin1 can't be read (it is not UTF-8)",
        ),
        (
            {"audio_filepath": "a.wav", "text_filepath": "long"},
            "its text_filepath long can't be read (it has more than 1048576 bytes)",
        ),
        ({"audio_filepath": "a.wav", "duration": 0}, "its duration is 0"),
        ({"audio_filepath": "a.wav", "duration": 1e9}, "its duration is 1000000000.0, not a number of seconds"),
        (
            {"audio_filepath": "a.wav", "channel_selector": "left"},
            "'left' does not choose channels: write an index from 0 on, several, or 'average'",
        ),
        ({"audio_filepath": "a.wav", "text": 5}, "its text is 5, not a string"),
    ],
)
def test_an_invalid_line_is_named_and_the_others_are_read(tmp_path, line, message):
    if "text_filepath" in line:
        (tmp_path / "latin1").write_bytes(b"M\xe4dchen")
        (tmp_path / "long").write_bytes(b"x" * (2**20 + 1))
    path = write(tmp_path / "m.json", {"audio_filepath": "a.wav"}, "", line, {"audio_filepath": "b.wav"})
    first, bad, last = expand_manifest(path)
    assert isinstance(first, Recording) and isinstance(last, Recording) and last.name == "b.wav"
    found = str(bad).removeprefix(f"{path}: line 3: ")
    assert isinstance(bad, AudioError) and (found.startswith(message) if message.endswith("(") else found == message)
    assert "\n" not in str(bad) and len(str(bad)) < 1000
    assert [number for number, _ in numbered_entries(path)] == [1, 3, 4]


def test_limits_of_lines(tmp_path, monkeypatch):
    """Of their length, of their depth, and of a text in a file of its own."""
    line = '{"audio_filepath": "a.wav"}'
    monkeypatch.setattr(manifest_entry, "MAX_LINE_BYTES", len(line))
    assert manifest_entry.parse_entry(line.encode()) == {"audio_filepath": "a.wav"}
    with pytest.raises(UnnamedAudioError, match=f"it is longer than {len(line)} bytes"):
        manifest_entry.parse_entry(line.encode() + b" ")
    monkeypatch.undo()
    nested = lambda depth: ('{"a": ' + "[" * depth + "]" * depth + "}").encode()
    assert manifest_entry.parse_entry(nested(49))
    with pytest.raises(UnnamedAudioError, match=whole("it is not JSON that can be read: it is nested too deeply")):
        manifest_entry.parse_entry(nested(50))
    objects = b'{"a": ' * 49 + b"1" + b"}" * 49
    assert manifest_entry.parse_entry(objects)
    with pytest.raises(UnnamedAudioError, match=whole("it is not JSON that can be read: it is nested too deeply")):
        manifest_entry.parse_entry(b'{"a": ' + objects + b"}")
    (tmp_path / "long").write_bytes(b"x" * 2**20)
    (entry,) = expand_manifest(write(tmp_path / "m.json", {"audio_filepath": "a.wav", "text_filepath": "long"}))
    assert entry.text == "x" * 2**20
    times = {"audio_filepath": "a.wav", "offset": 999_999_999.9, "duration": 1e-9, "channel_selector": [1, 0]}
    (entry,) = expand_manifest(write(tmp_path / "m.json", times))
    assert (entry.offset_s, entry.duration_s, entry.channel) == (999_999_999.9, 1e-9, (1, 0))


def test_durations_of_lines():
    for content, seconds in (
        ('{"duration": 3}', 3.0),
        ('{"duration": 0}', 0.0),
        ('{"duration": "x"}', None),
        ("{}", None),
        ("[", None),
    ):
        assert manifest_entry.duration_s(content.encode()) == seconds


def test_nemos_other_keys(tmp_path):
    (tmp_path / "t.txt").write_bytes("\ufeffone\n  two, é\n".encode())
    path = write(
        tmp_path / "m.json",
        {"audio_filename": "a.wav", "text_filepath": "t.txt"},
        {
            "audio_filename": "id7",
            "audio_filepath": "b.wav",
            "text": "x",
            "text_filepath": "no",
            "normalized_text": "y",
        },
        {"audio_filepath": "c.wav", "normalized_text": "y", "text": None, "shard_id": "x", "duration": 1},
        {"audio_filepath": "d.wav", "_skipme": True},
        {"audio_filepath": "e.wav", "_skipme": False, "text": "_skipme"},
        {"audio_filepath": "f.wav", "_skipme": 1},
        {"audio_filepath": "g.wav", "custom": {"_skipme": 1}},
        '{"audio_filepath": "h.wav", "_skipme"',
    )
    lines = numbered_entries(path)
    assert [line.number for line in lines] == [1, 2, 3, 5, 8] and isinstance(lines[-1].recording, AudioError)
    read = [(line.recording.name, line.recording.text) for line in lines[:-1]]
    assert read == [("a.wav", "one two, é"), ("b.wav", "x"), ("c.wav", "y"), ("e.wav", "_skipme")]
