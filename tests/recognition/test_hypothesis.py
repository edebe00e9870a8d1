import numpy as np
import pytest

from nemojax.config import ModelConfig, TextConfig
from nemojax.decoding.state import Emission
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Event
from tests.text.test_tokenizer import KINDS, trained

CONFIG = ModelConfig()


def emission(*rows):
    """Rows of (label, frame, log-probability)."""
    size = max(map(len, rows))
    field = lambda index, kind: np.array([[x[index] for x in row] + [99] * (size - len(row)) for row in rows], kind)
    length = np.array([len(row) for row in rows], np.int32)
    return Emission(field(0, np.int32), field(1, np.int32), field(2, np.float32), length)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(trained(**KINDS["bpe-bytes"]))


@pytest.fixture(scope="module")
def byte(tokenizer):
    """Labels of the byte pieces."""
    return {tokenizer.byte(i): i for i in range(tokenizer.size) if tokenizer.is_byte(i)}


def test_rows_add_up(tokenizer):
    labels = tokenizer.encode("the dog and the cat")
    first, rest = (
        [(label, 3 * i, -0.5) for i, label in enumerate(labels[:3])],
        [(label, 40, -2.0) for label in labels[3:]],
    )
    hypothesis = Hypothesis(CONFIG, tokenizer)
    updates = [hypothesis.extend(emission(rest * 2, first), 1), hypothesis.extend(emission(rest, []), 0)]
    assert [update.tokens for update in updates] == [tuple(labels[:3]), tuple(labels[3:])]
    assert updates[0].frames == (0, 3, 6) and updates[0].tentative == ""
    assert "".join(update.text for update in updates) + hypothesis.finish().text == hypothesis.text
    transcript = hypothesis.transcript(80_000, 6, "stream", ["a note"])
    assert transcript.text == hypothesis.text == "the dog and the cat" and transcript.tokens == tuple(labels)
    assert transcript.frames == (0, 3, 6, *[40] * len(rest))
    assert (transcript.duration_s, transcript.lookahead, transcript.mode) == (5.0, 6, "stream")
    assert transcript.notes == ("a note",)
    assert [word.text for word in transcript.words] == ["the", "dog", "and", "the", "cat"]
    assert transcript.words[0].start_s == 0.0 and transcript.words[-1].end_s == pytest.approx(41 * 0.08)
    assert transcript.words[0].confidence == pytest.approx(np.exp(-0.5), abs=1e-4)
    assert transcript.words[-1].confidence == pytest.approx(np.exp(-2.0), abs=1e-4)  # of its least probable label


def test_a_word_ends_with_the_recording(tokenizer):
    hypothesis = Hypothesis(CONFIG, tokenizer)
    hypothesis.extend(emission([(label, 10, 0.0) for label in tokenizer.encode("dog")]), 0)
    assert hypothesis.transcript(13_000, 6, "offline").words[0].end_s == pytest.approx(13_000 / 16_000, abs=1e-3)


def test_nothing_new_is_the_shared_empty_update(tokenizer):
    hypothesis = Hypothesis(CONFIG, tokenizer)
    assert hypothesis.extend(emission([]), 0) is NOTHING and hypothesis.finish() is NOTHING
    assert hypothesis.transcript(0, 0, "stream").text == ""


def test_an_incomplete_character_ends_the_text(tokenizer, byte):
    """Its bytes wait for more until the stream is finished; no update loses them."""
    hypothesis = Hypothesis(CONFIG, tokenizer)
    first = hypothesis.extend(emission([(byte[0xE2], 0, 0.0)]), 0)
    assert first.tokens == (byte[0xE2],) and first.text == hypothesis.text == ""
    assert hypothesis.finish() == Update("\ufffd") and hypothesis.text == "\ufffd"
    assert hypothesis.transcript(1280, 0, "stream").text == "\ufffd"


def test_events_stay_in_the_labels_and_out_of_the_text():
    tokenizer = Tokenizer(trained(**KINDS["joined"]), TextConfig(events=("<EOU>",)))
    dog = tokenizer.encode("dog")
    end = next(i for i in range(tokenizer.size) if tokenizer.piece(i) == "<EOU>")
    hypothesis = Hypothesis(CONFIG, tokenizer)
    row = [(label, 10, -0.5) for label in dog[:-1]] + [(end, 12, -3.0), (dog[-1], 14, -0.5), (end, 20, -3.0)]
    update = hypothesis.extend(emission(row[:-2]), 0) + hypothesis.extend(emission(row[-2:]), 0)
    events = (Event("<EOU>", 0.96), Event("<EOU>", 1.6))
    assert update.text == "dog" and update.tokens == (*dog[:-1], end, dog[-1], end)
    assert update.events == events and (Update("", (end,), (9,), "", events[:1]) + update).events == events[:1] + events
    transcript = hypothesis.transcript(48_000, 6, "stream")
    assert transcript.events == events and transcript.tokens == update.tokens and transcript.text == "dog"
    (word,) = transcript.words
    assert (word.text, word.start_s, word.end_s) == ("dog", 0.8, 1.2)
    assert word.confidence == pytest.approx(np.exp(-0.5), abs=1e-4)  # of its own labels
    assert transcript.to_dict("a.wav")["events"] == [{"event": "<EOU>", "time": t} for t in (0.96, 1.6)]


def test_what_no_caller_has_seen_is_in_the_transcript():
    """A hypothesis that forgot what its updates had keeps the last one, and what comes after it."""
    tokenizer = Tokenizer(trained(**KINDS["joined"]), TextConfig(events=("<EOU>",)))
    dog = tokenizer.encode("dog")
    end = next(i for i in range(tokenizer.size) if tokenizer.piece(i) == "<EOU>")
    stop = next(i for i in range(tokenizer.size) if tokenizer.piece(i) == ".")
    seen, unseen, later = ([(label, frame) for label in [*dog, end]] for frame in (10, 20, 30))
    later.insert(0, (stop, 25))  # of the utterance before
    hypothesis = Hypothesis(CONFIG, tokenizer, keep=False, end_of_utterance=EndOfUtterance(8000))
    added = []
    for labels in (seen, unseen, later):
        tokens, frames = map(list, zip(*labels, strict=True))
        added.append(hypothesis.append(tokens, frames, [-0.5] * len(tokens), [0.25] * len(tokens), frames[-1] + 1))
        if labels is unseen:
            hypothesis.keep(added[-1])
    transcript, expected = hypothesis.transcript(48_000, 6, "stream"), added[1] + added[2]
    assert transcript.text == expected.text == " dog. dog" and len(transcript.words) == 2
    assert (transcript.tokens, transcript.frames) == (expected.tokens, expected.frames)
    assert (transcript.events, transcript.confidences) == (expected.events, expected.confidences)
    assert [utterance.text for utterance in transcript.utterances] == ["dog.", "dog"]
    assert transcript.utterances == (*expected.amended, expected.final[1])


def test_updates_merge():
    """Final text adds up; tentative text is replaced by that of the later update."""
    first, second = Update("a", (1,), (5,), "maybe"), Update("b", (2, 3), (6, 7))
    assert first + second == Update("ab", (1, 2, 3), (5, 6, 7), "")
    assert second + first == Update("ba", (2, 3, 1), (6, 7, 5), "maybe")
    assert NOTHING + first is first and second + NOTHING is second and NOTHING + NOTHING is NOTHING
    assert first + NOTHING == first + Update() == Update("a", (1,), (5,), "")  # tentative text may be taken back
