"""The options of a bulk job, with a recognizer that needs no model."""

import json

import pytest

from nemojax.audio.raw import parse_raw
from nemojax.audio.voice_activity import VoiceActivity
from nemojax.config import PRESETS
from nemojax.decoding.greedy import Greedy
from nemojax.errors import ConfigError
from nemojax.recognition.bulk import JOB, transcribe_manifest
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_graphs import NO_GRAPHS
from nemojax.text.transcript import Transcript
from tests.data.corpora import write_manifest


class StubRecognizer(Recognizer):
    """Transcribes nothing, and records the options."""

    config, parameters, dtype, search, fingerprint = PRESETS["tiny"], 52_201, "float32", Greedy(), "0" * 16
    graphs = NO_GRAPHS
    reproducible = False

    def __init__(self):
        self.options = []

    def transcribe_each(self, sources, lookahead, batch_size, progress, **options):
        self.options.append(options)
        for index, _ in enumerate(sources):
            yield index, Transcript("", (), (), (), 1.0, 6, "offline")


OPTIONS = [
    *({}, {"raw": parse_raw("mulaw,8000")}, {"channel": (0, 1)}, {"channel": 1}),
    *({"vad": True}, {"vad": VoiceActivity(0.5)}, {"end_of_utterance": EndOfUtterance(240)}),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_they_belong_to_the_job(tmp_path, options):
    """They are passed on, and a job resumes with the same ones alone; without any, job.json has no mark of them."""
    manifest, stub = write_manifest(tmp_path / "m.jsonl", [{"audio_filepath": "a.raw"}]), StubRecognizer()
    for _ in range(2):
        assert transcribe_manifest(stub, manifest, tmp_path / "out", **options).done == 1
    assert stub.options == [options]
    names = {name for each in OPTIONS for name in each}
    assert json.loads((tmp_path / "out" / JOB).read_text()).keys() & names == options.keys()
    for other in ({}, {"raw": parse_raw("u8,8000")}, {"channel": 0}, {"vad": VoiceActivity()}):
        if other != options:
            with pytest.raises(ConfigError, match="holds a job with other settings"):
                transcribe_manifest(stub, manifest, tmp_path / "out", **other)
