import json

import pytest

from experiments.references import agreement
from experiments.references.agreement import Comparison, Difference, Hypothesis, Parting, listing, parting, table, tally
from tests.experiments.references.decodings import BLANK, REFERENCE

THEIRS = Hypothesis("one two", (1, 2), (0, 2))


@pytest.mark.parametrize(
    "ours, expected",
    [
        (Hypothesis("two two", (2, 2), (0, 2)), Parting(0, 2, 1, 5.0)),  # another label at the first look
        (Hypothesis("", (), ()), Parting(0, BLANK, 1, 0.5)),  # blank for a label
        (Hypothesis("one two", (1, 2), (0, 1)), Parting(1, 2, BLANK, 0.25)),  # the same label a frame early
        (Hypothesis("one", (1,), (0,)), Parting(2, BLANK, 2, 3.0)),  # it ends early
        (Hypothesis("one two one", (1, 2, 1), (0, 2, 2)), Parting(2, 1, BLANK, 6.0)),  # it continues
        (Hypothesis("one two", (1, 2), (0, 2)), None),
    ],
)
def test_where_two_hypotheses_part(ours, expected):
    assert parting(ours, THEIRS, REFERENCE, BLANK) == expected
    without_frames = THEIRS._replace(frames=None)  # those of the decoding, which has the same labels
    assert parting(ours, without_frames, REFERENCE, BLANK) == expected


def test_no_gap_where_the_references_layers_lead_elsewhere():
    ours = Hypothesis("two two", (2, 2), (0, 2))
    assert parting(ours, Hypothesis("one", (1,), None), REFERENCE, BLANK) is None
    # both have label 2 at frame 0, unlike the layers; they differ later
    assert parting(ours, Hypothesis("two", (2,), (0,)), REFERENCE, BLANK) is None


GAPS = [None, 0.9 * agreement.NEAR_TIE, 2.0]  # identical, a near-tie, another text


def comparisons(reference: str, lookahead: int) -> list[Comparison]:
    differences = [None if gap is None else Difference("a b", "a c", Parting(7, 1, 2, gap)) for gap in GAPS]
    where = reference, "offline", "stream", lookahead
    return [Comparison(*where, f"{number}.wav", 10 + number, d) for number, d in enumerate(differences)]


def test_table_and_listing():
    made = [*comparisons("NeMo", 13), *comparisons("transformers", 1)[:1]]
    assert table(made).splitlines()[2:] == [
        "| NeMo | offline | stream | 13 | 3 | 33 | 1 | 2 (1 by a near-tie) |",
        "| transformers | offline | stream | 1 | 1 | 10 | 1 | 0 |",
    ]
    assert listing(made).splitlines() == [
        "1.wav, look-ahead 13, nemojax stream against NeMo offline: "
        "label 1 for 2 at frame 7, logits 9.0e-05 apart, a near-tie",
        "    nemojax:   a b",
        "    reference: a c",
        "",
        "2.wav, look-ahead 13, nemojax stream against NeMo offline: "
        "label 1 for 2 at frame 7, logits 2.0e+00 apart, not a near-tie",
        "    nemojax:   a b",
        "    reference: a c",
    ]


def test_a_gap_that_is_not_known_is_no_near_tie():
    difference = Difference("a b", "a c", None)
    assert not difference.near_tie
    assert "not known" in listing([Comparison("NeMo", "stream", "stream", 1, "0.wav", 2, difference)])


def test_rows_are_json():
    [row] = json.loads(json.dumps(tally(comparisons("NeMo", 13))))
    assert (row["recordings"], row["labels"], row["identical"], row["near_ties"]) == (3, 33, 1, 1)
    assert [d["recording"] for d in row["differences"]] == ["1.wav", "2.wav"]
    assert row["differences"][1]["parting"] == {"frame": 7, "ours": 1, "theirs": 2, "gap": 2.0}
