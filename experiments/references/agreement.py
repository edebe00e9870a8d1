"""Compares a reference's hypotheses with nemojax's: the first choice on which two differ, by how much, and tallies."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.harness.output import markdown
from experiments.references.traces import Decoding

NEAR_TIE = 1e-4  # between two logits; float32's rounding moves one by 1e-5


class Hypothesis(NamedTuple):
    """A model's text of a recording, with its labels."""

    text: str
    tokens: tuple[int, ...]
    frames: tuple[int, ...] | None  # encoder frame of each token; None where the decoder does not return it


class Parting(NamedTuple):
    """The first choice on which two hypotheses differ."""

    frame: int
    ours: int  # label
    theirs: int
    gap: float  # between the reference's logits of the two labels


class Difference(NamedTuple):
    ours: str
    theirs: str
    parting: Parting | None

    @property
    def near_tie(self) -> bool:
        """Whether rounding alone may have made the difference."""
        return self.parting is not None and self.parting.gap <= NEAR_TIE


class Comparison(NamedTuple):
    """One recording transcribed by a reference in one mode, and by nemojax in one."""

    reference: str
    mode: str  # of the reference: offline or stream
    nemojax: str  # the mode of nemojax
    lookahead: int
    recording: str
    labels: int  # of the reference's text
    difference: Difference | None  # None where text and labels are the same


def parting(ours: Hypothesis, theirs: Hypothesis, decoding: Decoding, blank: int) -> Parting | None:
    """Finds the first choice on which a hypothesis differs from the reference's.

    Args:
      ours: with frames.
      theirs: of the reference's own decoder; without frames it gets those of `decoding` if the labels are the same.
      decoding: of the same encoding on the reference's layers, with all logits.

    Returns:
      None where the two do not differ, or `decoding` differs from both before that choice.
    """
    frames = theirs.frames
    if frames is None and theirs.tokens == tuple(decoding.tokens.tolist()):
        frames = tuple(decoding.frames.tolist())
    if frames is None or ours.frames is None:
        return None
    for (frame, before), logits in zip(decoding.looked.tolist(), decoding.logits, strict=True):
        our_label = _choice(ours.tokens, ours.frames, frame, before, blank)
        their_label = _choice(theirs.tokens, frames, frame, before, blank)
        if our_label != their_label:
            return Parting(frame, our_label, their_label, abs(float(logits[their_label]) - float(logits[our_label])))
        if our_label != int(logits.argmax()):
            return None  # from here on, `decoding` has other labels before it
    return None


def _choice(tokens: Sequence[int], frames: Sequence[int], frame: int, before: int, blank: int) -> int:
    """Returns the label chosen at a frame after `before` tokens."""
    return tokens[before] if before < len(tokens) and frames[before] == frame else blank


def tally(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Returns a row for each reference, pair of modes and look-ahead, in the order of their first comparison."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for comparison in comparisons:
        key = {name: getattr(comparison, name) for name in ("reference", "mode", "nemojax", "lookahead")}
        start = {**key, "recordings": 0, "labels": 0, "identical": 0, "near_ties": 0, "differences": []}
        row, difference = rows.setdefault(tuple(key.values()), start), comparison.difference
        row["recordings"] += 1
        row["labels"] += comparison.labels
        if difference is None:
            row["identical"] += 1
        else:
            row["near_ties"] += difference.near_tie
            found = difference.parting
            fields = {**difference._asdict(), "parting": found and found._asdict(), "near_tie": difference.near_tie}
            row["differences"].append({"recording": comparison.recording, **fields})
    return list(rows.values())


def table(comparisons: Sequence[Comparison]) -> str:
    """Shows the tallies in markdown."""
    heads = ["reference", "its mode", "nemojax", "look-ahead", "recordings", "labels", "identical", "differing"]
    lines = []
    for row in tally(comparisons):
        differing, near_ties = len(row["differences"]), row["near_ties"]
        cells = [str(row[name]) for name in ("reference", "mode", "nemojax", "lookahead", "recordings", "labels")]
        cells += [str(row["identical"]), f"{differing}" + (f" ({near_ties} by a near-tie)" if near_ties else "")]
        lines.append(cells)
    return markdown(heads, lines, left=3)


def listing(comparisons: Sequence[Comparison]) -> str:
    """Describes each difference in a paragraph: where, the gap between the logits, and both texts."""
    paragraphs = []
    for comparison in comparisons:
        if (difference := comparison.difference) is not None:
            where = f"{comparison.recording}, look-ahead {comparison.lookahead}, nemojax {comparison.nemojax} against "
            where += f"{comparison.reference} {comparison.mode}: {_gap(difference)}"
            paragraphs.append(f"{where}\n    nemojax:   {difference.ours}\n    reference: {difference.theirs}")
    return "\n\n".join(paragraphs)


def _gap(difference: Difference) -> str:
    if (found := difference.parting) is None:
        return "the gap is not known, because the reference's layers do not lead to both texts"
    kind = "a near-tie" if difference.near_tie else "not a near-tie"
    return f"label {found.ours} for {found.theirs} at frame {found.frame}, logits {found.gap:.1e} apart, {kind}"
