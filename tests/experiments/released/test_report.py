"""Verdicts, conclusions and the page."""

import pytest

from experiments.released.known import DIFFERENT, EQUAL, RELEASES, SETS, UNKNOWN, Check
from experiments.released.report import AGREES, BETTER, OPEN, WORSE, line, page, sentences, tables, text, verdict

MARCH = RELEASES["march"]


def row(low, high, name="librispeech-clean", chunk_ms=1120.0, **values):
    rate = None if low is None else (low + high) / 2
    wer = {"rate": rate, "low": low, "high": high, "reference": 50_000}
    counts = {"utterances": 2620, "real_time_factor": 0.01, "streamed": 0}
    return {"set": name, "chunk_ms": chunk_ms, "wer": wer, **counts, **values}


@pytest.mark.parametrize(
    "low, high, found",
    [
        (0.0225, 0.0240, AGREES),  # published: 2.32 %
        (0.023251, 0.0250, WORSE),
        (0.02324, 0.0250, AGREES),  # the published figure is rounded
        (0.0210, 0.02314, BETTER),
        (None, None, OPEN),
    ],
)
def test_the_verdict_is_that_of_the_interval(low, high, found):
    assert verdict(row(low, high), MARCH) == found


def test_what_was_not_published_has_no_verdict():
    assert verdict(row(0.1, 0.2, name="mine"), MARCH) == OPEN
    assert verdict(row(0.1, 0.2, chunk_ms=240.0), MARCH) == OPEN
    assert verdict(row(0.1, 0.2, chunk_ms=80.0), RELEASES["january"]) == OPEN


def test_the_first_sentence_is_about_the_files():
    def first(*verdicts):
        checks = [Check("a", "b", "c", verdict) for verdict in verdicts]
        return next(sentences([], checks, MARCH))

    title = MARCH.title
    assert first(EQUAL, DIFFERENT) == (
        f"These are not the files of {title}: 1 of 2 facts are different. What follows says nothing about the release."
    )
    assert first(UNKNOWN) == f"Whether these are the weights of {title} is not known."
    assert (
        first(EQUAL, EQUAL, UNKNOWN) == f"These are the files of {title}: 2 facts are equal, and 1 can't be compared."
    )


def test_the_mean_needs_all_sets():
    rows = [row(0.01, 0.03, name) for name in SETS]
    assert ["mean of all", "1120", "", "", "2.00", "6.93", "", ""] in tables(rows, [], MARCH)[0].lines
    assert not [line for line in tables(rows[1:], [], MARCH)[0].lines if line[0].startswith("mean")]


def test_a_line_for_each_set_and_chunk():
    assert line(row(0.02, 0.03), MARCH) == "LibriSpeech test-clean, 1120 ms: WER 2.50 %, published 2.32 %"
    assert line(row(None, None, name="mine"), MARCH) == "mine, 1120 ms: no WER"


def test_a_part_of_a_set_says_so():
    (cells,) = tables([row(0.02, 0.03, utterances=8)], [], MARCH)[0].lines
    assert cells == [
        "LibriSpeech test-clean",
        "1120",
        "8 of 2,620",
        "50,000",
        "2.50 [2.00, 3.00]",
        "2.32",
        AGREES,
        "100.0",
    ]


def test_the_page_has_everything_and_escapes_it():
    streamed = {"streamed": 3, "same_text": 2, "delay_ms": {"mean": 470.0, "p90": 890.0}, "step_ms": {"p50": 9.5}}
    rows = [row(0.02, 0.03, rtfx_streamed=12.5, **streamed), row(None, None, name="a<b")]
    made = page(rows, [Check("x<y", "1", "2", DIFFERENT)], MARCH, {"cpu": "a & b"}, "<svg></svg>")
    assert "a&lt;b" in made and "x&lt;y" in made and "a &amp; b" in made and "<svg></svg>" in made
    assert "<td class=plain>2 of 3</td><td class=plain>470</td><td class=plain>890</td>" in made
    shown = text(rows, [], MARCH)
    assert "Streamed, 2 of 3 recordings have the same text as offline." in shown
    assert "WER against the published figures, at 1 points: agrees 1, better 0, worse 0." in shown
    absent = "RTFx and the delay of words have no verdict: there is no published figure of this model."
    assert absent in shown and absent in made
