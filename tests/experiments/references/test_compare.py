import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import soundfile

from experiments.references import compare as compare_references
from experiments.references.compare import compare, read_recordings, streamed, whole_chunks
from nemojax.errors import AudioError
from tests.experiments.references.decodings import REFERENCE

LOOKAHEAD = 6


class Itself:
    """A reference that is nemojax, except for the labels of one recording."""

    name, blank = "itself", 64

    def __init__(self, recognizer, wrong: np.ndarray, streams: bool = True):
        self._recognizer, self._wrong, self._streams = recognizer, wrong, streams

    def shown(self, text):
        return text.upper()

    def offline(self, samples, lookahead):
        hypothesis = streamed(self._recognizer, samples, lookahead)
        if samples is self._wrong:
            hypothesis = hypothesis._replace(tokens=hypothesis.tokens[:-1])
        return hypothesis._replace(text=hypothesis.text.upper()), lambda: REFERENCE

    def stream(self, samples, lookahead):
        assert (len(samples) + 1080) % (1280 * (lookahead + 1)) == 0
        return self.offline(samples, lookahead) if self._streams else None


def test_what_is_compared(recognizer, speech):
    x = np.asarray(speech)
    recordings = [("short", x[:9000]), ("long", x[9000:60_000])]
    wrong, done = recordings[1][1], []
    found = list(compare(recognizer, [Itself(recognizer, wrong)], recordings, LOOKAHEAD, lambda: done.append(1)))
    assert [(c.recording, c.mode, c.nemojax) for c in found] == [
        (name, *modes)
        for name in ("short", "long")
        for modes in [("offline", "offline"), ("offline", "stream"), ("stream", "stream")]
    ]
    assert [c.difference is None for c in found] == [True, True, True, False, False, True]
    assert len(done) == 2 and found[5].labels > 3
    without = compare(recognizer, [Itself(recognizer, wrong, streams=False)], recordings, LOOKAHEAD)
    assert [c.mode for c in without] == ["offline"] * 4


def test_texts_are_compared_as_the_tokenizer_makes_them(recognizer, speech, monkeypatch):
    """Whether or not nemojax joins punctuation to the word before: `shown` has the library's own rule."""
    text = dataclasses.replace(recognizer.config.text, join_punctuation=True)
    joining, joined = recognizer.with_config(dataclasses.replace(recognizer.config, text=text)), []

    def noted(recognizer, samples, lookahead):
        joined.append(recognizer.tokenizer.settings.join_punctuation)
        return streamed(recognizer, samples, lookahead)

    monkeypatch.setattr(compare_references, "streamed", noted)
    recordings = [("one", np.asarray(speech)[:9000])]
    list(compare(joining, [Itself(recognizer, recordings[0][1])], recordings, LOOKAHEAD))
    assert joined == [False, False]


@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
@pytest.mark.parametrize("samples", [160, 16_000, 16_840, 16_841])
def test_silence_to_the_end_of_a_chunk(tiny_config, lookahead, samples):
    padded = whole_chunks(np.ones(samples, np.float32), tiny_config, lookahead)
    assert padded.sum() == samples and len(padded) - samples < 1280 * (lookahead + 1)
    # the references' chunks end with log-mel frame 8 R, and each other 8 (R + 1) later
    assert (tiny_config.log_mel_frames(len(padded)) - 8 * lookahead - 1) % (8 * (lookahead + 1)) == 0


def test_recordings_that_can_not_be_compared_are_reported(tmp_path, tiny_config):
    for name, samples in ("good", 16_000), ("short", 100):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(samples, np.float32), 16_000)
    names = ["good.wav", "short.wav", "absent.wav"]
    manifest = tmp_path / "some.jsonl"
    manifest.write_text("".join(json.dumps({"audio_filepath": name}) + "\n" for name in names) + "{\n")
    errors: list[AudioError] = []
    found = read_recordings(manifest, None, tiny_config, errors.append)
    assert [(name, len(samples)) for name, samples in found] == [("good.wav", 16_000)]
    assert [part in str(error) for part, error in zip(["short", "absent", "line 4"], errors, strict=True)] == [True] * 3


def test_without_the_references_the_extra_is_named(monkeypatch, capsys, checkpoint_directory, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nemo" else find(name))
    command = [str(checkpoint_directory), "any.jsonl", "--output", str(tmp_path / "rows.jsonl")]
    assert compare_references.main(command) == 2
    error = capsys.readouterr().err
    assert "nemo" in error and "nemojax[parity]" in error and "Traceback" not in error
    assert not (tmp_path / "rows.jsonl").exists()


def test_settings_that_are_wrong(capsys, tmp_path):
    assert compare_references.main([str(tmp_path), "any.jsonl", "--limit", "0"]) == 2
    assert "--limit must be at least 1" in capsys.readouterr().err
