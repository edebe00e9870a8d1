import json
import math

import numpy as np
import pytest

from nemojax.decoding.confidence import Confidence
from nemojax.decoding.state import Emission
from nemojax.recognition.hypothesis import Hypothesis
from nemojax.text.tokenizer import Tokenizer


@pytest.fixture
def tokenizer(pieces):
    return Tokenizer(pieces)


def emission(labels, frames, log_probs):
    """An emission of one segment for two streams: the labels are in row 1, and row 0 is empty."""
    array = lambda values, fill: np.array([[fill] * 9, values + [fill] * (9 - len(values))])
    return Emission(array(labels, 64), array(frames, 0), array(log_probs, 0.0), np.array([0, len(labels)]))


def test_words_times_and_confidence(tokenizer, tiny_config):
    labels, hypothesis = tokenizer.encode("the fox jumps"), Hypothesis(tiny_config, tokenizer)
    frames = [3 + 2 * i for i in range(len(labels))]
    log_probs = [-0.1 * (i + 1) for i in range(len(labels))]
    for part in (slice(0, 4), slice(4, None)):  # in two segments
        new = hypothesis.extend(emission(labels[part], frames[part], log_probs[part]), 1)
        assert (new.tokens, new.frames) == (tuple(labels[part]), tuple(frames[part]))
    transcript = hypothesis.transcript(48_000, 13, "offline", ["resampled"])
    assert transcript.text == "the fox jumps" and transcript.duration_s == 3.0
    assert list(transcript.tokens) == labels and list(transcript.frames) == frames
    first = 0
    for word, text in zip(transcript.words, ("the", "fox", "jumps"), strict=True):
        last = first + len(tokenizer.encode(text)) - 1
        assert word.text == text
        assert word.start_s == pytest.approx(frames[first] * 0.08)
        assert word.end_s == pytest.approx((frames[last] + 1) * 0.08)
        assert word.confidence == pytest.approx(math.exp(log_probs[last]), abs=1e-4)
        first = last + 1


def test_a_word_ends_with_the_recording(tokenizer, tiny_config):
    hypothesis = Hypothesis(tiny_config, tokenizer)
    labels = tokenizer.encode("the")
    hypothesis.extend(emission(labels, [5] * len(labels), [-0.1] * len(labels)), 1)
    transcript = hypothesis.transcript(6500, 1, "stream")
    assert transcript.words[0].end_s == pytest.approx(6500 / 16_000, abs=1e-3)


def test_json(tokenizer, tiny_config):
    hypothesis = Hypothesis(tiny_config, tokenizer)
    labels = tokenizer.encode("the")
    hypothesis.extend(emission(labels, list(range(len(labels))), [0.0] * len(labels)), 1)
    transcript = hypothesis.transcript(16_003, 1, "stream")
    line = transcript.to_json("übung.wav")
    assert '"übung.wav"' in line
    assert "\n" not in line and json.loads(line) == transcript.to_dict("übung.wav") == {
        "audio": "übung.wav",
        "text": "the",
        "tokens": labels,
        "frames": list(range(len(labels))),
        "words": [{"word": "the", "start": 0.0, "end": round(0.08 * len(labels), 3), "confidence": 1.0}],
        "events": [],
        "duration": 1.0001875,
        "lookahead": 1,
        "mode": "stream",
        "notes": [],
    }


def test_an_empty_transcript(tokenizer, tiny_config):
    transcript = Hypothesis(tiny_config, tokenizer).transcript(0, 13, "offline")
    assert (transcript.text, transcript.tokens, transcript.words, transcript.duration_s) == ("", (), (), 0.0)


def test_an_alignment_has_a_blank_at_each_frame_that_is_not_full(tokenizer, tiny_config):
    """As a search over five frames has chosen them; a frame of ten labels has no blank."""
    hypothesis = Hypothesis(tiny_config, tokenizer)
    labels, frames = [*range(3, 14), 20], [1] * 10 + [2, 4]
    hypothesis.append(labels, frames, [-0.1] * 12)
    transcript = hypothesis.transcript(160 + 5 * 1280, 1, "stream")
    full = [(1, label) for label in labels[:10]]
    assert transcript.encoder_frames == 6
    assert transcript.alignment() == [(0, None), *full, (2, 13), (2, None), (3, None), (4, 20), (4, None), (5, None)]


def test_confidences_of_labels_are_those_of_words(tokenizer, tiny_config):
    hypothesis = Hypothesis(tiny_config, tokenizer, confidence=Confidence(words="mean"))
    labels = tokenizer.encode("the fox")
    confidences = [1 - index / 10 for index in range(len(labels))]
    update = hypothesis.append(labels, [*range(len(labels))], [-9.0] * len(labels), confidences)
    assert update.confidences == tuple(confidences) and update.log_probs == (-9.0,) * len(labels)
    transcript = hypothesis.transcript(48_000, 13, "offline")
    the = confidences[: len(tokenizer.encode("the"))]
    assert transcript.words[0].confidence == pytest.approx(sum(the) / len(the), abs=1e-4)
    assert transcript.confidences == tuple(confidences) and transcript.to_dict("a")["confidences"] == confidences
