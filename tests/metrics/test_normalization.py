import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemojax.errors import ConfigError
from nemojax.metrics.normalization import normalizer, plain, tokens, words
from tests.helpers.messages import whole

sentences = st.text(alphabet="aAbé \u2019'-.,?!1 ", max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well-known, isn\u2019t it?", "well known isn't it"),
        ("'Tis  the dogs' o'clock", "tis the dogs o'clock"),
        ("rock 'n' roll... \n(AGAIN)", "rock n roll again"),
        ("He paid $3.50; 100%!", "he paid 3 50 100"),
        ("cafe\u0301 CAFÉ", "café café"),
        ("snake_case", "snake case"),
        ("हिन्दी", "हिन्दी"),  # vowel signs are combining marks
        (" ,.' ", ""),
        ("", ""),
    ],
)
def test_plain(text, expected):
    assert plain(text) == expected


@given(st.text(max_size=30) | sentences)
def test_plain_of_plain_is_the_same(text):
    once = plain(text)
    assert plain(once) == once == once.lower() and once.split(" ") == (once.split() or [""])


def test_normalizers(monkeypatch):
    assert normalizer("none")("A, b") == "A, b" and normalizer("plain") is plain
    with pytest.raises(ConfigError, match=whole("the normalizer must be one of none, plain, whisper, not 'plane'")):
        normalizer("plane")
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    with pytest.raises(
        ConfigError,
        match=whole(
            'the normalizer "whisper" needs the package whisper-normalizer: pip install "nemojax[experiments]"'
        ),
    ):
        normalizer("whisper")


def test_whispers_normalizer():
    pytest.importorskip("whisper_normalizer", reason="whisper-normalizer is in the extra `experiments`")
    assert normalizer("whisper")("Mr. Park's colour: twenty-five") == "mister park is color 25"


def test_words_and_marks():
    assert list(tokens("Well-known, isn\u2019t it?")) == ["Well", "known", ",", "isn't", "it", "?"]
    assert words("Well-known, isn\u2019t it?") == ["Well", "known", "isn't", "it"]
    assert list(tokens("3.5, 10:30. (a)")) == ["3", "5", ",", "10", "30", ".", "a"]
