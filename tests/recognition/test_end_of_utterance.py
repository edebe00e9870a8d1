"""Ends of utterances: against a plain loop over frames, and the same at any cut."""

import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemojax.config import ModelConfig, TextConfig
from nemojax.errors import ConfigError
from nemojax.recognition.end_of_utterance import EndOfUtterance, Endpointer
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, merged
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.words import is_closing
from tests.helpers.messages import whole
from tests.text.test_tokenizer import KINDS, trained

CONFIG = ModelConfig()
TOKENIZER = Tokenizer(trained(**KINDS["joined"]), TextConfig(events=("<EOU>",)))
PIECES = {TOKENIZER.piece(label): label for label in range(TOKENIZER.size)}
EOU, SPACE, STOP = PIECES["<EOU>"], PIECES["\u2581"], PIECES["."]
DOG, CAT = TOKENIZER.encode("dog"), TOKENIZER.encode("she")
MS = 80


def samples_of(frames):
    """The length of a recording of this many encoder frames."""
    return 0 if not frames else 160 + (frames - 1) * 1280


def spoken(labels, frames, end_of_utterance, cuts=()):
    """Updates of a stream that is cut after some frames, and its transcript; `labels` are (token, frame)."""
    hypothesis = Hypothesis(CONFIG, TOKENIZER, end_of_utterance=end_of_utterance)
    bounds = [0, *sorted(cuts), frames]
    updates = []
    for begin, end in itertools.pairwise(bounds):
        part = [(token, frame) for token, frame in labels if begin <= frame < end]
        tokens, at = [token for token, _ in part], [frame for _, frame in part]
        updates.append(hypothesis.append(tokens, at, [-0.5] * len(part), (), end))
    updates.append(hypothesis.finish(samples_of(frames)))
    return updates, hypothesis.transcript(samples_of(frames), 6, "stream")


def ends(labels, frames, *arguments, **settings):
    """(text, frame at which it was decided, reason) of each utterance; None for the frame at the stream's end."""
    update = merged(spoken(labels, frames, EndOfUtterance(*arguments, **settings))[0])
    at = lambda utterance: None if utterance.reason == "end" else round(utterance.decided_s * 1000 / MS) - 1
    return [(utterance.text, at(utterance), utterance.reason) for utterance in update.final]


def word(tokens, frame):
    return [(token, frame + index) for index, token in enumerate(tokens)]


def test_silence_after_a_word_ends_an_utterance():
    labels = word(DOG, 20) + word(CAT, 60)
    last, length = 20 + len(DOG) - 1, 60 + len(CAT) - 1
    assert ends(labels, 100, 800) == [("dog", last + 10, "silence"), ("she", length + 10, "silence")]
    assert ends(labels, 100, 801) == [("dog", last + 11, "silence"), ("she", length + 11, "silence")]
    assert ends(labels, length + 10, 800)[1:] == [("she", None, "end")]
    assert ends(labels, length + 11, 800)[1:] == [("she", length + 10, "silence")]
    assert ends(labels, 100, 8000) == [("dog she", None, "end")]
    assert ends([], 100, 80) == []  # silence alone ends nothing


def test_times_and_words():
    (update, *_), transcript = spoken(word(DOG, 20), 100, EndOfUtterance(800))
    (utterance,) = update.final
    last = 20 + len(DOG) - 1
    assert (utterance.begin_s, utterance.end_s) == (1.6, round((last + 1) * 0.08, 3))
    assert utterance.decided_s == round((last + 11) * 0.08, 3) and utterance.words == transcript.words
    assert transcript.utterances == (utterance,) and transcript.to_dict("a")["utterances"] == [
        {
            "index": 0,
            "text": "dog",
            "words": [{"word": "dog", "start": 1.6, "end": utterance.end_s, "confidence": 0.6065}],
            "begin": 1.6,
            "end": utterance.end_s,
            "decided": utterance.decided_s,
            "reason": "silence",
        }
    ]


def test_a_long_utterance_ends_between_two_labels():
    labels = [(token, 5 * index) for index, token in enumerate(DOG * 6)]
    found = ends(labels, 5 * len(labels), 8000, max_utterance_s=1.6)
    assert {reason for *_, reason in found[:-1]} == {"length"} and [at for _, at, _ in found[:2]] == [20, 45]
    assert "".join(text for text, *_ in found).replace(" ", "") == "dog" * 6


def test_marks_end_an_utterance_at_once():
    labels = [*word(DOG, 20), (EOU, 30), (EOU, 31), *word(CAT, 32)]
    assert ends(labels, 40, 8000)[0] == ("dog", 30, "<EOU>") and len(ends(labels, 40, 8000)) == 2
    assert len(ends(labels, 40, 8000, marks=())) == 1
    assert ends([(EOU, 3)], 40, 80) == []


def test_punctuation_that_comes_late_belongs_to_the_utterance_before():
    labels = [*word(DOG, 20), (SPACE, 40), (STOP, 41), *word(CAT, 60)]
    updates, transcript = spoken(labels, 100, EndOfUtterance(800), cuts=range(100))
    final, amended = merged(updates).final, merged(updates).amended
    assert [u.text for u in final] == ["dog", "she"] and [u.text for u in amended] == ["dog ."]
    assert amended[0].index == 0 and amended[0].decided_s == final[0].decided_s and amended[0].end_s > final[0].end_s
    assert transcript.utterances == (amended[0], final[1]) and transcript.text == "dog . she"
    assert [update.amended for update in updates].index((amended[0],)) == 42  # with the frame of the full stop


def test_punctuation_at_the_beginning_belongs_to_the_first_utterance():
    assert [text for text, *_ in ends([(STOP, 2), *word(DOG, 20)], 40, 800)] == [". dog"]
    assert [text for text, *_ in ends([(STOP, 2)], 40, 800)] == ["."]


def test_an_early_end_comes_once_for_each_pause():
    labels = word(DOG, 20) + word(CAT, 30) + word(DOG, 60)
    updates, _ = spoken(labels, 100, EndOfUtterance(1600, early_ms=400))
    last = [20 + len(DOG), 30 + len(CAT), 60 + len(DOG)]
    assert [(u.text, u.decided_s) for u in updates[0].early] == [
        ("dog", round((last[0] + 5) * 0.08, 3)),
        ("dog she", round((last[1] + 5) * 0.08, 3)),
        ("dog", round((last[2] + 5) * 0.08, 3)),
    ]
    assert [u.index for u in updates[0].early] == [0, 0, 1] and [u.text for u in updates[0].final] == ["dog she", "dog"]


def test_rivas_and_nemos_parameters():
    assert EndOfUtterance.riva() == EndOfUtterance.riva(-1, -1, 0, 0, -1, -1) == EndOfUtterance(800)
    assert EndOfUtterance.riva(300, 0.2, 600, 0.98, 240, 0.9) == EndOfUtterance(
        600, silence_share=0.98, early_ms=240, early_share=0.9, start_ms=300, start_share=0.2
    )
    assert EndOfUtterance.nemo() == EndOfUtterance(960, silence_share=11 / 12)
    assert EndOfUtterance.nemo(80, 0) == EndOfUtterance.nemo(80, 1) == EndOfUtterance(160)
    last = 20 + len(DOG) - 1
    assert ends(word(DOG, 20), 60, 960, silence_share=11 / 12) == [("dog", last + 11, "silence")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"silence_ms": 0}, "silence_ms must be a positive number of milliseconds, not 0"),
        ({"silence_ms": math.nan}, "silence_ms must be a positive number of milliseconds, not nan"),
        ({"early_ms": -1.0}, "early_ms must be a positive number of milliseconds, not -1.0"),
        ({"start_ms": "1"}, "start_ms must be a positive number of milliseconds, not '1'"),
        ({"silence_share": 0}, "silence_share must be more than 0 and at most 1, not 0"),
        ({"early_share": 1.5}, "early_share must be more than 0 and at most 1, not 1.5"),
        ({"early_share": "1"}, "early_share must be more than 0 and at most 1, not '1'"),
        ({"start_share": True}, "start_share must be more than 0 and at most 1, not True"),
        ({"max_utterance_s": 0}, "max_utterance_s must be more than 0 and at most 1e+09 seconds, not 0"),
    ],
)
def test_settings_that_do_not_fit(arguments, message):
    with pytest.raises(ConfigError, match=whole(message)):
        EndOfUtterance(**arguments)


def test_nemo_without_an_end_is_refused():
    message = "stop_history_eou must be a positive number of milliseconds, not -1"
    with pytest.raises(ConfigError, match=whole(message)):
        EndOfUtterance.nemo(-1)


def window_of(milliseconds, share):
    """Frames, and how many of them must be blank."""
    frames = math.ceil(milliseconds / MS)
    return frames, math.ceil(share * frames - 1e-9)


def by_frames(labels, frames, settings):
    """The definition, frame by frame: (frame, reason, tokens) of each end, the tokens of punctuation for each, and
    (frame, tokens) of each early end.
    """
    silence = window_of(settings.silence_ms, settings.silence_share)
    pause = None if settings.early_ms is None else window_of(settings.early_ms, settings.early_share)
    longest = math.inf if settings.max_utterance_s is None else math.ceil(settings.max_utterance_s * 1000 / MS)
    found, late, early, taken, begin, has_label, reported = [], [], [], [], None, [], False

    def blank(window, blanks):
        return frame - begin >= window and has_label[-window:].count(False) >= blanks

    def end(frame, reason):
        nonlocal taken, begin
        found.append((frame, reason, taken))
        late.append([])
        taken, begin = [], None

    for frame in range(frames):
        has_label.append(False)
        for token in (token for token, at in labels if at == frame):
            if token == EOU:
                if begin is not None:
                    end(frame, "<EOU>")
                    has_label = [False] * len(has_label)
                continue
            has_label[-1] = True
            text = TOKENIZER.continuation(token)
            is_word = text is None or (text.strip(" ") and not is_closing(text))
            if begin is None and found and not is_word and text.strip(" "):
                late[-1] += [*taken, token]
                taken = []
                continue
            taken = [*taken, token] if begin is not None or is_word or text.strip(" ") else [*drop(taken), token]
            begin, reported = frame if begin is None and is_word else begin, False
        if begin is None:
            continue
        silent = blank(*silence)
        if silent or frame - begin >= longest:
            end(frame, "silence" if silent else "length")
        elif pause is not None and not reported and blank(*pause):
            early.append((frame, taken))
            reported = True
    if begin is not None or any(TOKENIZER.continuation(token).strip(" ") for token in taken):
        end(None, "end")
    return found, late, early


def drop(tokens):
    """Labels without those that show only a space: they may precede any word."""
    return [token for token in tokens if TOKENIZER.continuation(token).strip(" ")]


TOKENS = st.sampled_from([*DOG, *CAT, SPACE, STOP, EOU])
STREAMS = st.lists(st.tuples(TOKENS, st.integers(0, 12)), max_size=24)


@settings(max_examples=100, deadline=None)
@given(
    steps=STREAMS,
    tail=st.integers(0, 20),
    silence=st.integers(1, 8),
    share=st.sampled_from([1.0, 0.8, 0.5]),
    longest=st.sampled_from([None, 0.4, 1.6]),
    early=st.sampled_from([None, (160.0, 1.0), (400.0, 0.6)]),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
@example([(DOG[0], 0), (DOG[1], 1), (CAT[0], 9)], 3, 4, 0.5, None, None, [])
@example([(DOG[0], 0), (DOG[0], 2), (DOG[0], 2), (DOG[0], 2)], 20, 2, 1.0, None, (400.0, 0.6), [])
@example([(DOG[0], 0), (DOG[0], 2), (DOG[0], 0), (DOG[0], 0)], 20, 4, 0.5, None, None, [])
@example([(DOG[0], 0), (DOG[0], 2), (DOG[0], 1), (DOG[0], 9)], 9, 8, 1.0, None, (160.0, 1.0), [])
def test_any_cut_gives_the_decisions_of_a_loop_over_frames(steps, tail, silence, share, longest, early, cuts):
    labels, frame = [], 0
    for token, gap in steps:
        frame += gap
        labels.append((token, frame))
    frames = frame + 1 + tail
    early_ms, early_share = early or (None, 1.0)
    chosen = EndOfUtterance(silence * MS, longest, silence_share=share, early_ms=early_ms, early_share=early_share)
    updates, transcript = spoken(labels, frames, chosen, [cut for cut in cuts if cut <= frames])
    whole_updates, whole_transcript = spoken(labels, frames, chosen)
    plain_updates, plain = spoken(labels, frames, None)

    cut, uncut, without = merged(updates), merged(whole_updates), merged(plain_updates)
    assert (cut.final, cut.amended, cut.early) == (uncut.final, uncut.amended, uncut.early)
    assert transcript == whole_transcript and cut[:7] == without[:7] and transcript.tokens == plain.tokens

    found, late, pauses = by_frames(labels, frames, chosen)
    bare = lambda text: text.replace(" ", "")  # the definition drops labels of spaces alone
    expected = [(bare(TOKENIZER.decode(tokens)), reason) for _, reason, tokens in found]
    assert [(bare(u.text), u.reason) for u in cut.final] == expected
    at = [round((frame + 1) * 0.08, 3) for frame, *_ in found if frame is not None]
    assert [u.decided_s for u in cut.final][: len(at)] == at
    expected_early = [(bare(TOKENIZER.decode(tokens)), round((frame + 1) * 0.08, 3)) for frame, tokens in pauses]
    assert [(bare(u.text), u.decided_s) for u in cut.early] == expected_early
    complete = [bare(TOKENIZER.decode(tokens + more)) for (*_, tokens), more in zip(found, late, strict=True)]
    assert [bare(u.text) for u in transcript.utterances] == complete
    assert "".join(complete).replace(" ", "") == transcript.text.replace(" ", "")


def test_an_end_in_the_last_frames_is_in_the_last_update():
    hypothesis = Hypothesis(CONFIG, TOKENIZER, end_of_utterance=EndOfUtterance(400))
    tokens, frames = map(list, zip(*word(DOG, 0), strict=True))
    assert hypothesis.append(tokens, frames, [0.0] * len(tokens), (), len(tokens)).final == ()
    last = hypothesis.finish(samples_of(30))
    assert [(u.text, u.reason) for u in last.final] == [("dog", "silence")]
    assert hypothesis.transcript(samples_of(30), 6, "stream").utterances == last.final


def test_a_stream_that_forgets_has_the_utterances_in_its_updates():
    hypothesis = Hypothesis(CONFIG, TOKENIZER, keep=False, end_of_utterance=EndOfUtterance(400))
    tokens, frames = zip(*word(DOG, 0), strict=True)
    update = hypothesis.append(list(tokens), list(frames), [0.0] * len(tokens), (), 30)
    assert [u.text for u in update.final] == ["dog"] and hypothesis.utterances == []
    assert hypothesis.append([], [], [], (), 60) is NOTHING and hypothesis.decide(10) is NOTHING


def test_a_preview_changes_no_decision():
    previewed, plain = (Endpointer(EndOfUtterance(400), TOKENIZER, MS, lambda labels, until_s: ()) for _ in range(2))
    for endpointer in (previewed, plain):
        endpointer.take(DOG[:1], [0], [0.0], 1)
    ends = previewed.preview(DOG[1:2], [3], [0.0], 20)
    assert [utterance.decided_s for utterance in ends.final] == [round((3 + 5 + 1) * MS / 1000, 3)]
    assert previewed.take([], [], [], 20) == plain.take([], [], [], 20)
    late = [STOP], [22], [0.0], 24  # of the utterance that has ended
    assert previewed.preview(*late) == previewed.preview(*late) == previewed.take(*late) == plain.take(*late)
