import random

import pytest

from nemojax.text.formats import FORMATS, Timed, ctm, file_id, srt, stm, tsv, vtt
from nemojax.text.transcript import Transcript, Utterance, Word
from tests.text.test_subtitles import words_of

WORDS = (
    Word("Tom", 1.5, 1.9, 0.875),
    Word("&", 2.0, 2.1, 0.5),
    Word("<Jerry>.", 2.2, 2.6, 1.0),
    Word("Yes.", 3661.0, 3661.08, 0.25),
)
TEXT = "Tom & <Jerry>. Yes."


def transcript(words=WORDS, text=TEXT, utterances=()):
    return Transcript(text, (), (), words, 3662.0, 13, "offline", utterances=utterances)


RESULT = Timed.of("directory/my file.wav", transcript())


def test_srt():
    assert srt(RESULT) == (
        "1\n00:00:01,500 --> 00:00:02,600\nTom & <Jerry>.\n\n2\n01:01:01,000 --> 01:01:01,830\nYes.\n"
    )


def test_vtt():
    assert vtt(RESULT) == (
        "WEBVTT\n\n00:00:01.500 --> 00:00:02.600\nTom <00:00:02.000>&amp; <00:00:02.200>&lt;Jerry&gt;.\n\n"
        "01:01:01.000 --> 01:01:01.830\nYes.\n"
    )


def test_times_within_a_cue_increase_and_lie_in_it():
    (first, *_) = vtt(
        Timed.of("a", transcript([Word("one", 0.1, 0.2, 1.0), Word("two", 0.1, 0.2, 1.0)], "one two"))
    ).split("\n\n")[1:]
    assert first == "00:00:00.100 --> 00:00:00.930\none two\n"


def test_ctm():
    assert ctm(RESULT).splitlines() == [
        "my_file 1 1.500 0.400 Tom 0.8750",
        "my_file 1 2.000 0.100 & 0.5000",
        "my_file 1 2.200 0.400 <Jerry>. 1.0000",
        "my_file 1 3661.000 0.080 Yes. 0.2500",
    ]
    moved = Timed.of("a.wav", transcript(WORDS[:1]), offset_s=10.0, channel=2)
    assert ctm(moved) == "a 2 11.500 0.400 Tom 0.8750\n"


def test_stm():
    assert stm(RESULT) == "my_file 1 my_file 0.000 3662.000 <o,f0,unknown> Tom & <Jerry>. Yes.\n"
    ends = [
        Utterance(0, "Tom & <Jerry>.", WORDS[:3], 1.5, 2.6, 3.4, "silence"),
        Utterance(1, "Yes.", WORDS[3:], 3661.0, 3661.08, 3662.0, "end"),
    ]
    assert stm(Timed.of("a", transcript(utterances=tuple(ends)), 1.0)).splitlines() == [
        "a 1 a 2.500 3.600 <o,f0,unknown> Tom & <Jerry>.",
        "a 1 a 3662.000 3662.080 <o,f0,unknown> Yes.",
    ]


def test_tsv():
    assert tsv(RESULT).splitlines() == [
        "start\tend\ttext\tconfidence",
        "1500\t1900\tTom\t0.8750",
        "2000\t2100\t&\t0.5000",
        "2200\t2600\t<Jerry>.\t1.0000",
        "3661000\t3661080\tYes.\t0.2500",
    ]


def test_silence():
    silence = Timed.of("a", transcript((), ""))
    assert (srt(silence), vtt(silence), ctm(silence), stm(silence)) == ("", "WEBVTT\n", "", "")
    assert tsv(silence) == "start\tend\ttext\tconfidence\n"


def test_the_fields_of_a_job():
    """`text` may be the manifest's; the transcript is `pred_text`."""
    fields = transcript().to_dict("a.wav") | {"text": "what was said", "pred_text": TEXT, "offset": 2.0}
    assert Timed.of_fields(fields) == Timed.of("a.wav", transcript(), 2.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("/a/b.c.wav", "b.c"), ("standard input", "standard_input"), ("a\tb c", "a_b_c"), ("", "-"), (".wav", ".wav")],
)
def test_names_of_recordings(name, expected):
    assert file_id(name) == expected


def test_all_forms_are_listed():
    assert FORMATS == ("txt", "json", "srt", "vtt", "tsv", "ctm", "stm")


def test_other_programs_read_the_cues():
    pysubs2 = pytest.importorskip("pysubs2", reason="an independent reader of subtitles")
    rng = random.Random(0)
    words = words_of(" ".join(rng.choice(["A", "word,", "sentence.", "<b>", "&amp;", "-->"]) for _ in range(200)))
    result = Timed("a", "", words, (), 100.0)
    for form, written in (("srt", srt(result)), ("vtt", vtt(result))):
        read = pysubs2.SSAFile.from_string(written, format_=form, keep_html_tags=True, keep_unknown_html_tags=True)
        starts = [line.start for line in read]
        assert len(read) > 10 and starts == sorted(starts) and all(line.end - line.start >= 830 for line in read)
