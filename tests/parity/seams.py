"""What is compared, how closely, and what came of it: one line per seam in a table at the end of the run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.references import MAX_SYMBOLS_PER_FRAME
from experiments.references.traces import Decoding, Trace

# Worst absolute difference allowed at each seam, in float32. Log-mel is the logarithm of sums that two FFTs round
# differently: what rounding does to a bin grows as the bin falls below the loudest of its frame, and from 65 dB down
# float32 leaves 1e-3 of the logarithm uncertain, in the references as in nemojax. Where the input is scaled, so is its
# error, by the square root of the width. Each block ends with a LayerNorm, so the encoder's values are about 1. A logit
# sums the joint network's units with weights of a few units each.
BARS = {
    "log_mel": 1e-3,
    "log_mel 65 dB down": 5e-3,
    "subsampling": 1e-4,
    "scaled": 5e-4,
    "block.attention": 1e-4,
    "block.convolution": 1e-4,
    "block": 1e-4,
    "encoder": 1e-4,
    # the subsampling's first stage keeps a log-mel frame, the next two sums of such bins
    "cache.log_mel": 5e-3,
    "cache.subsampling": 2e-3,
    "cache.keys": 1e-4,
    "cache.values": 1e-4,
    "cache.convolution": 1e-4,
    "prediction.outputs": 1e-5,
    "prediction.hidden": 1e-5,
    "prediction.cell": 1e-5,
    "joint.projected": 5e-4,
    "joint.predictions": 1e-4,
    "joint.logits": 2e-3,
}
LOG_MEL_MEAN = 1e-5
FAINT = 6.5 * np.log(10.0)  # 65 dB, as a difference of logarithms of power
TIE_GAP = 1e-4  # two logits as close as that may change places by rounding
MAX_TIES = 2  # in a run


@dataclass
class Line:
    tensors: int = 0
    values: int = 0
    worst: float = 0.0


@dataclass
class Seams:
    """The comparisons of one run."""

    lines: dict[tuple[str, str], Line] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    ties: list[str] = field(default_factory=list)

    def compare(self, reference: str, seam: str, ours: np.ndarray, theirs: np.ndarray, where: str) -> None:
        """One tensor. Raises AssertionError where shapes differ or a value is off by more than the seam's bar."""
        assert ours.shape == theirs.shape, f"{where}: {seam} has the shape {ours.shape}, {reference}'s {theirs.shape}"
        assert np.isfinite(theirs).all(), f"{where}: {reference}'s {seam} is not finite"
        if seam == "log_mel":
            faint = theirs.max(1, keepdims=True) - theirs > FAINT
            if faint.any():
                self.compare(reference, "log_mel 65 dB down", ours[faint], theirs[faint], where)
                ours, theirs = ours[~faint], theirs[~faint]
        difference = np.abs(ours.astype(np.float64) - theirs)
        worst = float(difference.max(initial=0.0))
        line = self.lines.setdefault((seam, reference), Line())
        line.tensors, line.values, line.worst = line.tensors + 1, line.values + ours.size, max(line.worst, worst)
        assert worst <= BARS[seam], f"{where}: {seam} is {worst:.2e} off {reference}'s, more than {BARS[seam]:.0e}"

    def compare_traces(self, reference: str, ours: Trace, theirs: Trace, where: str) -> None:
        """Every seam of `theirs`."""
        assert theirs
        for name, values in theirs.items():
            seam = re.sub(r"^block\d+", "block", name)
            self.compare(reference, seam, ours[name], values, f"{where}, {name}")

    def compare_caches(self, reference: str, ours: Trace, theirs: Trace, where: str) -> None:
        """Every cache of `theirs`."""
        assert theirs
        for name, values in theirs.items():
            seam = "log_mel" if name == "subsampling0" else re.sub(r"^block\d+\.|\d+$", "", name)
            self.compare(reference, f"cache.{seam}", ours[name], values, f"{where}, cache of {name}")

    def compare_tokens(
        self, label: str, reference: Decoding, blank: int, tokens: Sequence[int], frames: Sequence[int], where: str
    ) -> None:
        """Tokens and their frames are those of the reference, up to the first tie if there is one.

        A decision that differs is a tie where the reference's logits of the two labels are within TIE_GAP. It is
        noted with its gap; what follows it can't be compared. More than MAX_TIES of them in a run are an error.
        """
        expected = reference.logits.argmax(-1)
        found = decisions(tokens, frames, len(reference.projected), blank)
        if [*expected] == found:
            self.tokens[label] = self.tokens.get(label, 0) + len(tokens)
            return
        at = next(
            (i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]),
            min(len(expected), len(found)),
        )
        assert at < min(len(expected), len(found)), f"{where}: {label} made {len(found)} decisions, not {len(expected)}"
        frame, before = reference.looked[at]
        gap = float(reference.logits[at, expected[at]] - reference.logits[at, found[at]])
        what = f"{where}: {label} chose {found[at]}, not {expected[at]}, at frame {frame} after {before} tokens"
        what += f"; their logits are {gap:.1e} apart"
        assert gap <= TIE_GAP, what
        self.ties.append(what)
        self.tokens[label] = self.tokens.get(label, 0) + int(before)
        assert len(self.ties) <= MAX_TIES, f"{len(self.ties)} ties in one run: {self.ties}"

    def table(self) -> list[str]:
        rows = [f"{'seam':<20} {'reference':<20} {'tensors':>8} {'values':>13} {'worst error':>12} {'bar':>8}"]
        for (seam, reference), line in sorted(self.lines.items(), key=lambda item: [*BARS].index(item[0][0])):
            counts = f"{line.tensors:>8,} {line.values:>13,}"
            rows.append(f"{seam:<20} {reference:<20} {counts} {line.worst:>12.1e} {BARS[seam]:>8.0e}")
        rows += [f"identical tokens and frames: {label}: {count:,}" for label, count in self.tokens.items()]
        return rows + [f"near-ties: {len(self.ties)} of at most {MAX_TIES}"] + [f"  {tie}" for tie in self.ties]


def decisions(tokens: Sequence[int], frames: Sequence[int], length: int, blank: int) -> list[int]:
    """The labels chosen one after another by greedy decoding that gave these tokens at these frames."""
    assert list(frames) == sorted(frames) and all(0 <= frame < length for frame in frames), f"frames {list(frames)}"
    chosen: list[int] = []
    for frame in range(length):
        here = [int(token) for token, at in zip(tokens, frames, strict=True) if at == frame]
        chosen += here if len(here) == MAX_SYMBOLS_PER_FRAME else [*here, blank]
    return chosen


def until(decoding: Decoding, frames: int) -> Decoding:
    """Returns the decoding of the first frames alone."""
    looked = decoding.looked[:, 0] < frames
    tokens = int((decoding.frames < frames).sum())
    return decoding._replace(
        tokens=decoding.tokens[:tokens],
        frames=decoding.frames[:tokens],
        projected=decoding.projected[:frames],
        looked=decoding.looked[looked],
        logits=decoding.logits[looked],
    )
