"""Errors listed by word."""

from experiments.accuracy.word_edits import PLACES, Edit, by_word, edits, shown_words


def test_each_kind_of_error_has_its_place():
    words = shown_words([("The", 0.1), ("quick,", 0.5), ("fox", 0.9), ("leaps", 1.3), ("on", 1.5), ("high.", 1.7)])
    found = list(edits("The quick brown fox jumps on", words))
    assert found == [
        Edit("deletion", "brown", "", 0.5),  # after the word before it
        Edit("substitution", "jumps", "leaps", 1.3),
        Edit("insertion", "", "high", 1.7),
    ]
    assert list(edits("A fox", shown_words([("a", None), ("FOX!", None)]))) == []
    assert list(edits("one", [])) == [Edit("deletion", "one", "", 0.0)]


def test_a_word_may_become_several_or_none():
    assert [(one.word, one.at_s) for one in shown_words([("well-known", 2.0), ("-", 3.0)])] == [
        ("well", 2.0),
        ("known", 2.0),
    ]


def test_the_most_frequent_come_first_with_their_places():
    often, once = Edit("substitution", "a", "the", 1.234), Edit("deletion", "b", "", None)
    found = by_word([("x.wav", once), *[(f"{number}.wav", often) for number in range(PLACES + 5)]])
    assert [(row["reference"], row["recognized"], row["count"]) for row in found] == [("a", "the", 25), ("b", "", 1)]
    assert len(found[0]["places"]) == PLACES and found[0]["places"][0] == {"audio": "0.wav", "at_s": 1.23}
    assert found[1]["places"] == [{"audio": "x.wav", "at_s": None}]
