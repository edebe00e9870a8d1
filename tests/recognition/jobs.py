"""Bulk jobs with a recognizer that needs no model."""

import json

from nemojax.audio.source import Recording
from nemojax.config import PRESETS
from nemojax.decoding.greedy import Greedy
from nemojax.errors import AudioError
from nemojax.recognition.bulk import FAILURES, TRANSCRIPTS
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_graphs import NO_GRAPHS
from nemojax.text.transcript import Transcript
from tests.data.corpora import write_manifest

LOOKAHEAD = 6
COUNT = 12
FAILED = [4, 9, COUNT + 4]  # lines of the manifest; line 6 is blank
TRICKY = 'with "error": in it'


class StubRecognizer(Recognizer):
    """Transcribes a recording as its name. Each batch is completed in reverse order; broken.wav fails."""

    config, parameters, dtype, search, fingerprint = PRESETS["tiny"], 52_201, "float32", Greedy(), "0" * 16
    graphs = NO_GRAPHS
    reproducible = False

    def __init__(self):
        self.calls, self.batches = [], []  # names of each call; (look-ahead, batch size) of each call

    def transcribe_each(self, sources, lookahead=None, batch_size=8, sample_rate_hz=16_000, progress=lambda s: None):
        self.calls.append([])
        self.batches.append((lookahead, batch_size))
        batch = []
        for index, source in enumerate(sources):
            batch.append((index, source))
            if len(batch) == batch_size:
                yield from self._results(batch, progress)
                batch = []
        yield from self._results(batch, progress)

    def _results(self, batch, progress):
        for index, source in reversed(batch):
            self.calls[-1].append(source.name if isinstance(source, Recording) else str(source))
            if isinstance(source, AudioError):
                yield index, source
            elif source.name == "broken.wav":
                yield index, AudioError("broken.wav: it is not audio")
            else:
                progress(1.5)
                yield index, Transcript(f"{TRICKY} {source.name}", (3, 5), (0, 2), (), 1.5, LOOKAHEAD, "offline")


def write_corpus(directory, seconds):
    """Writes a manifest of recordings: two thirds with a duration, two that fail, a blank line, an invalid line."""
    entries = [
        {"audio_filepath": f"{number}.wav", **({"duration": duration} if number % 3 else {})}
        for number, duration in enumerate(seconds)
    ]
    entries.insert(3, {"audio_filepath": "broken.wav"})
    entries.insert(7, {"audio_filepath": "broken.wav", "text": TRICKY})
    path = write_manifest(directory / "corpus.jsonl", entries)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "", *lines[5:], "{not json"]) + "\n")
    return path


def merged(output):
    return (output / TRANSCRIPTS).read_text(), (output / FAILURES).read_text()


def rows(text):
    return [json.loads(line) for line in text.splitlines()]
