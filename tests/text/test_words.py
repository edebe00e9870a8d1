import math

import pytest

from nemojax.config import TextConfig
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.words import Labels, frame_time_s, is_closing, timed_words
from tests.text.test_tokenizer import KINDS, trained


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(trained(**KINDS["joined"]), TextConfig(events=("<EOU>",), join_punctuation=True))


@pytest.mark.parametrize("text", [".", " ,", "?!", "…", ")", " 。 "])
def test_closing_punctuation(text):
    assert is_closing(text)


@pytest.mark.parametrize("text", ["", " ", "a.", "'", '"', "(", "¿", "-", "%"])
def test_what_is_none(text):
    assert not is_closing(text)


def labels_of(tokenizer, *parts):
    """Labels of (text, first frame, frames between two labels), each of confidence 1 less a tenth for its place."""
    labels = Labels([], [], [])
    for text, frame, gap in parts:
        for index, token in enumerate(tokenizer.encode(text)):
            labels.append(token, frame + gap * index, 1 - index / 10)
    return labels


def test_a_late_full_stop_does_not_stretch_its_word(tokenizer):
    dog = len(tokenizer.encode("dog"))
    labels = labels_of(tokenizer, ("dog", 10, 1))
    labels.append(tokenizer.encode(".")[-1], 40, 0.25)
    (word,) = timed_words(tokenizer, labels, 80.0, math.inf)
    assert (word.text, word.start_s, word.end_s) == ("dog.", 0.8, frame_time_s(10 + dog, 80.0))
    assert word.confidence == 0.25  # the punctuation is a part of the word


def test_punctuation_alone_has_its_own_times(tokenizer):
    labels = Labels(tokenizer.encode(".")[-1:], [40], [0.5])
    (word,) = timed_words(tokenizer, labels, 80.0, math.inf)
    assert (word.text, word.start_s, word.end_s, word.confidence) == (".", 3.2, 3.28, 0.5)


def test_words_are_those_of_the_text_and_end_with_the_recording(tokenizer):
    labels = labels_of(tokenizer, ("the dog, she said.", 0, 3))
    words = timed_words(tokenizer, labels, 80.0, 1.0001, lambda values: sum(values) / len(values))
    assert [word.text for word in words] == tokenizer.decode(labels.tokens).split(" ")
    assert max(word.end_s for word in words) == 1.0
    count = len(tokenizer.encode("the"))
    assert words[0].confidence == round(sum(labels.confidences[:count]) / count, 4)
