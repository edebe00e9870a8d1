"""Inverse text normalization; the grammars are wetext's."""

import sys

import pytest

from nemojax.errors import ConfigError
from nemojax.text.inverse import MAX_WORDS, InverseNormalizer, text_of
from nemojax.text.transcript import Transcript, Utterance, Word
from tests.helpers.messages import whole


@pytest.fixture(scope="module")
def normalizer():
    pytest.importorskip("wetext", reason="wetext is not installed")
    return InverseNormalizer()


def words_of(text):
    """A word every second, 0.5 s long; each less sure than the one before."""
    return [Word(one, float(i), i + 0.5, round(1 - i / 100, 2)) for i, one in enumerate(text.split())]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("we have twenty four apples", "we have 24 apples"),
        ("Twenty twenty four was warm.", "2024 was warm."),  # the grammars know lower case alone
        ("It grew by ten percent .", "It grew by 10%."),
        ("ten percent, then twenty.", "10%, then 20."),
        ("He paid twenty three dollars and fifty cents, and left.", "He paid $23.50, and left."),
        ('"Twenty-one," he said.', '"21," he said.'),
        ("Mister Smith called five five five one two three four.", "Mr. Smith called 5551234."),
        ("They met at two thirty p m.", "They met at 02:30 p.m."),
        ("Three, two, one.", "Three, two, one."),  # a mark of punctuation ends a number
        ("a<b> [c] twenty one {d}", "a<b> [c] 21 {d}"),  # what the grammars refuse stays
        ("a twenty-one-year-old", "a twenty-one-year-old"),
        ("ÜBER İstanbul: dog .", "ÜBER İstanbul: dog ."),
        ("", ""),
    ],
)
def test_texts(normalizer, spoken, written):
    assert text_of(normalizer.words(words_of(spoken))) == written


def test_a_span_has_the_times_of_its_words_and_the_least_confidence(normalizer):
    words = normalizer.words(words_of("on july fourth nineteen ninety nine, two thirty p m here"))
    assert words[0] == Word("on", 0.0, 0.5, 1.0) and words[-1] == Word("here", 10.0, 10.5, 0.9)
    date = [word for word in words if 0.5 < word.start_s < 5.9]
    assert (date[0].start_s, date[-1].end_s) == (1.0, 5.5) and text_of(date).endswith("1999,")
    time, half = words[-3:-1]
    assert (time.text, half.text) == ("02:30", "p.m.") and (time.start_s, half.end_s) == (6.0, 9.5)
    assert time.end_s <= half.start_s and time.confidence == half.confidence == 0.91


def test_transcripts_and_utterances(normalizer):
    words = tuple(words_of("we have twenty four apples"))
    utterance = Utterance(0, "we have twenty four apples", words, 0.0, 4.5, 5.0, "end")
    before = Transcript(utterance.text, (1, 2), (3, 4), words, 6.0, 1, "offline", utterances=(utterance,))
    after = normalizer.transcript(before)
    assert after.text == after.utterances[0].text == "we have 24 apples" and after.words == after.utterances[0].words
    assert (after.tokens, after.frames, after.duration_s) == ((1, 2), (3, 4), 6.0)


def test_a_long_text_without_punctuation_is_cut(normalizer):
    text = "one hundred and five " * MAX_WORDS
    assert text_of(normalizer.words(words_of(text))).split()[0] == "105"
    assert normalizer.words(words_of(text))[-1].end_s == 4 * MAX_WORDS - 0.5


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wetext", None)
    message = 'inverse text normalization needs wetext, which is not installed: pip install "nemojax[itn]"'
    with pytest.raises(ConfigError, match=whole(message)):
        InverseNormalizer()
