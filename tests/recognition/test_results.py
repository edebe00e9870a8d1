"""The fields of a result: its request, and the transcript or the error."""

from pathlib import Path

import pytest

from nemojax.audio.manifest import Request
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.recognition.results import result_fields
from nemojax.text.transcript import Transcript

TRANSCRIPT = Transcript("bin blew", (1, 2), (3, 4), (), 2.9, 6, "offline", ("resampled from 8000 Hz",))
FOUND = {name: value for name, value in TRANSCRIPT.to_dict("").items() if name not in ("audio", "text")}


def request_of(reference=None, offset_s=0.0, **keys):
    recording = Recording(Path("/data/a.wav"), "a.wav", offset_s, 2.9, text=reference)
    return Request(7, recording, {"audio_filepath": "a.wav", **keys})


def test_a_transcript_beside_the_manifests_own_keys():
    request = request_of("bin blue", 1.5, offset=1.5, duration=2.9, text="bin blue", utt_id="u1", lang="en", more=[1])
    assert result_fields(request, TRANSCRIPT, "m.jsonl") == {
        "line": 7,
        "audio": "a.wav",
        "offset": 1.5,
        "audio_filepath": "a.wav",
        "utt_id": "u1",
        "lang": "en",
        "more": [1],
        "text": "bin blue",
        "pred_text": "bin blew",
        "reference": "bin blue",
        **FOUND,
    }


def test_without_a_reference_the_text_is_the_transcript():
    for keys in ({}, {"text": None}):
        fields = result_fields(request_of(**keys), TRANSCRIPT, "m.jsonl")
        assert fields["text"] == fields["pred_text"] == "bin blew" and fields["reference"] is None
        assert "request" not in fields
    fields = result_fields(request_of("", text=""), TRANSCRIPT, "m.jsonl")  # an empty reference is one
    assert (fields["text"], fields["reference"], fields["pred_text"]) == ("", "", "bin blew")


def test_keys_with_the_name_of_a_field_are_kept_apart():
    keys = {"pred_text": "of another model", "words": ["bin"], "error": "none", "duration": 3.0, "request": 1}
    fields = result_fields(request_of(**keys), TRANSCRIPT, "m.jsonl")
    assert fields["request"] == keys and "error" not in fields  # a field `error` would be a failure
    assert fields["pred_text"] == "bin blew" and fields["duration"] == 2.9


def test_a_failure_has_its_request():
    request = request_of("bin blue", 100.0, offset=100.0, duration=1.0, text="bin blue", utt_id="u2", error="none")
    assert result_fields(request, AudioError("a.wav: too short"), "m.jsonl") == {
        "line": 7,
        "audio": "a.wav",
        "offset": 100.0,
        "audio_filepath": "a.wav",
        "duration": 1.0,
        "text": "bin blue",
        "utt_id": "u2",
        "error": "a.wav: too short",
        "request": {"error": "none"},
    }


@pytest.mark.parametrize("keys", [{}, {"audio_filepath": "a.wav", "duration": -1, "utt_id": "u3"}])
def test_an_invalid_line(keys):
    error = AudioError("m.jsonl: line 2: its duration is -1")
    fields = result_fields(Request(2, error, keys), error, "m.jsonl")
    assert fields == {"line": 2, "audio": "m.jsonl: line 2", **keys, "error": str(error)}
