import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.text import subtitles
from nemojax.text.subtitles import CueRules, cues, wrapped
from nemojax.text.transcript import Word


def words_of(text, word_s=0.3, gaps=None):
    """Words one after the other; `gaps` are the pauses in seconds after words, by their texts."""
    words, now = [], 0.0
    for one in text.split():
        words.append(Word(one, round(now, 3), round(now + word_s, 3), 1.0))
        now += word_s + (gaps or {}).get(one, 0.0)
    return words


def texts(words, **rules):
    return [cue.text for cue in cues(words, rules=CueRules(**rules))]


def test_a_cue_ends_with_a_sentence():
    words = words_of("The first one is here. Then there comes another one.")
    assert texts(words) == ["The first one is here.", "Then there comes another one."]


def test_else_with_a_clause():
    words = words_of(
        "We went to the market on the other side of the river, and there we bought apples and some bread for us"
    )
    assert texts(words)[0] == "We went to the market on the other side of the river,"


def test_else_before_a_pause():
    words = words_of(
        "we went to the market on the other side of the river and there we bought apples and some bread for us",
        gaps={"river": 0.8},
    )
    assert texts(words)[0] == "we went to the market on the other side of the river"
    assert texts(words_of("one two three", gaps={"two": 5.0})) == ["one two", "three"]
    assert texts(words_of("one two three", word_s=1.0)) == ["one two three"]  # slow words are no pauses


@pytest.mark.parametrize("begins_s, sizes", [((0.0, 1.4, 2.0), [1, 2]), ((0.0, 0.2, 3.0), [2, 1])])
def test_else_where_the_cue_before_it_lacks_the_least_time_to_be_read(begins_s, sizes):
    words = [Word("x" * 29 + ".", begin_s, begin_s + 0.1, 1.0) for begin_s in begins_s]
    assert [len(cue.words) for cue in cues(words)] == sizes


def test_a_number_with_a_point_and_a_small_letter_end_no_sentence():
    assert texts(words_of("It is about 3.5 miles approx. from here")) == ["It is about 3.5 miles approx. from here"]


def test_lines_are_about_as_long_and_end_with_punctuation():
    assert wrapped(["a", "short", "line"]) == ("a short line",)
    assert wrapped(
        ["When", "the", "rain", "had", "stopped", "at", "last,", "we", "went", "out", "to", "the", "garden."]
    ) == (
        "When the rain had stopped at last,",
        "we went out to the garden.",
    )
    assert wrapped(["x" * 42, "y" * 43]) is None and wrapped(["x" * 30, "y" * 30, "z" * 30]) is None
    assert wrapped(["x" * 30, "y" * 30, "z" * 30], CueRules(lines=3)) == ("x" * 30, "y" * 30, "z" * 30)


def test_a_short_cue_stays_until_it_is_read():
    (cue,) = cues([Word("Yes.", 1.0, 1.1, 1.0)], 10.0)
    assert (cue.begin_ms, cue.end_ms) == (1000, 1830)
    (cue,) = cues([Word("Yes.", 9.7, 9.8, 1.0)], 10.0)  # the recording ends: it begins earlier
    assert (cue.begin_ms, cue.end_ms) == (9200, 10_030)


def test_reading_time_is_no_shorter_than_the_rules_have_it():
    rules = CueRules(characters_per_s=17.0, longest_s=4.1235)
    assert [rules.reading_ms(characters) for characters in (1, 17, 40, 1000)] == [830, 1000, 2353, 4124]


def test_the_next_cue_waits_while_speech_is_faster_than_reading():
    first, second = cues([Word("x" * 42, 0.0, 0.5, 1.0), Word("y" * 42, 0.5, 1.0, 1.0), Word("z" * 42, 1.0, 1.5, 1.0)])
    assert sorted([len(first.lines), len(second.lines)]) == [1, 2]
    assert (
        first.end_ms == 50 * len(first.text) == second.begin_ms
        and second.end_ms - 50 * len(second.text) == first.end_ms
    )


def test_no_words_no_cues():
    assert cues([], 3.0) == []


def test_a_word_longer_than_a_line_is_cut():
    (word,) = words_of("あ" * 100, word_s=10.0)
    found = cues([word], 10.0)
    assert "".join("".join(cue.lines) for cue in found) == "あ" * 100
    assert max(len(line) for cue in found for line in cue.lines) <= 42 and found[-1].end_ms == 10_000


WORD = st.tuples(
    st.sampled_from(["a", "to", "word", "sentence.", "Clause,", "Incomprehensibilities", "x" * 60, "Yes!", "I"]),
    st.floats(0, 1.5),
    st.one_of(st.just(0.0), st.floats(0, 12)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WORD, max_size=60), st.booleans())
def test_the_rules_hold_for_any_words(parts, known):
    words, now = [], 0.0
    for text, length, gap in parts:
        words.append(Word(text, round(now, 3), round(now + length, 3), 1.0))
        now += length + gap
    found, rules = cues(words, now if known else float("inf")), CueRules()
    assert "".join(cue.text for cue in found).replace(" ", "") == "".join(word.text for word in words)
    for cue in found:
        assert 1 <= len(cue.lines) <= 2 and max(map(len, cue.lines)) <= 42
        assert 830 <= cue.end_ms - cue.begin_ms <= 7000
        assert cue.end_ms - cue.begin_ms >= 1000 * len(cue.text) / rules.characters_per_s
        assert len(cue.words) == len(cue.text.split(" "))
    for cue, after in itertools.pairwise(found):
        assert cue.begin_ms >= 0 and cue.end_ms <= after.begin_ms
        begin_ms = 1000 * after.words[0].start_s
        assert after.begin_ms == cue.end_ms or abs(after.begin_ms - begin_ms) <= 501


def cost_of(words, cut, rules):
    """The cost of cuts, as its definition has it; None where they break a rule."""
    total = 0.0
    for first, end in itertools.pairwise([0, *cut, len(words)]):
        texts = [word.text for word in words[first:end]]
        if wrapped(texts, rules) is None or (end - first > 1 and words[end - 1].end_s - words[first].start_s > 7):
            return None
        characters = len(" ".join(texts))
        total += (
            subtitles.CUE + subtitles.FULLNESS * (characters / 84) ** 2 + subtitles._cost_of_cut(words, end - 1, rules)
        )
        total += subtitles._shortage(words, first, end, characters, rules)
        for index in range(first, end - 1):
            total += subtitles.SENTENCE_WITHIN * (subtitles._cost_of_cut(words, index, rules) == 0)
            total += subtitles.PAUSE_WITHIN * subtitles._pauses(words, index, rules)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_no_other_cuts_cost_less(seed):
    rng, rules = random.Random(seed), CueRules()
    text = " ".join(rng.choice(["apples", "oranges,", "end.", "Incomprehensible", "The"]) for _ in range(11))
    words = words_of(text, word_s=0.4, gaps={"apples": 0.9 * rng.random()})
    found = list(itertools.accumulate(len(cue.words) for cue in cues(words)))[:-1]
    every = [
        cost
        for count in range(len(words))
        for cut in itertools.combinations(range(1, len(words)), count)
        if (cost := cost_of(words, cut, rules)) is not None
    ]
    assert cost_of(words, found, rules) == pytest.approx(min(every))
