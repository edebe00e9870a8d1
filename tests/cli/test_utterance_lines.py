import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.cli.utterance_lines import UtteranceLines
from nemojax.recognition.end_of_utterance import EndOfUtterance
from tests.recognition.test_end_of_utterance import CAT, DOG, STOP, TOKENS, spoken, word


def printed(labels, frames, cuts, prefix="", normalize=None):
    """What is printed of a stream, update by update; the last cut is that of the stream's end."""
    updates, transcript = spoken(labels, frames, EndOfUtterance(400), cuts)
    lines, seen = UtteranceLines(prefix, normalize), updates[:-2]
    shown = [lines.add(update.text, update.final, update.amended) for update in seen]
    rest = transcript.text.removeprefix("".join(update.text for update in seen))
    return [*shown, lines.finish(rest, transcript)], transcript


def test_a_line_grows_and_ends_when_the_next_one_begins():
    labels = [*word(DOG, 3), (STOP, 20), *word(CAT, 30)]
    shown, _ = printed(labels, 50, range(50))
    assert "".join(shown) == "dog.\nshe\n" and "".join(shown[:20]) == "dog" and shown[21] == "."
    assert "".join(shown[:30]) == "dog."  # the line is open while punctuation may come


def test_names_stand_before_each_line():
    assert "".join(printed(word(DOG, 3) + word(CAT, 30), 50, [9], "a: ")[0]) == "a: dog\na: she\n"


def test_a_changed_text_is_printed_at_its_end():
    upper = lambda utterance: dataclasses.replace(utterance, text=utterance.text.upper())
    shown, _ = printed([*word(DOG, 3), (STOP, 20), *word(CAT, 30)], 50, range(50), normalize=upper)
    assert "".join(shown) == "DOG.\nSHE\n" and not "".join(shown[:10])


def test_punctuation_of_the_last_chunk_ends_its_line():
    labels = [*word(DOG, 3), (STOP, 20)]
    shown, _ = printed(labels, 30, [15])
    assert shown == ["dog", ".\n"]


def test_silence_is_an_empty_line():
    assert "".join(printed([], 20, [3])[0]) == "\n"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TOKENS, st.integers(0, 12)), max_size=20), st.lists(st.integers(0, 100), max_size=9))
def test_all_of_the_text_is_printed_in_lines(steps, cuts):
    labels, frame = [], 0
    for token, gap in steps:
        frame += gap
        labels.append((token, frame))
    shown, transcript = printed(labels, frame + 5, [cut for cut in cuts if cut <= frame + 5])
    bare = lambda text: text.replace(" ", "")
    assert bare("".join(shown)) == bare("\n".join(utterance.text for utterance in transcript.utterances)) + "\n"
