"""Rows of accuracy at a look-ahead: computed from scored utterances, shown as a table, plotted against the delay.

Rates in rows are shares of the reference, not percent. A value that is not defined, such as the interval of a single
utterance, is None. A row needs `label`, `lookahead` and `chunk_ms` to be shown and plotted.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.accuracy.scoring import Scored
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row
from nemojax.metrics import ErrorCounts, bootstrap_interval, compare, punctuation_errors, total

MEASURES = {"wer": "words", "cer": "characters", "case_error": "case", "punctuation_error": "punctuation"}


class Bootstrap(NamedTuple):
    """How intervals and tests are bootstrapped; `blocks` names what each utterance is drawn together with."""

    confidence: float
    resamples: int
    seed: int
    blocks: Sequence[str] | None = None  # of the whole list that was scored; None draws single utterances

    def blocks_at(self, positions: Sequence[int]) -> list[str] | None:
        return None if self.blocks is None else [self.blocks[position] for position in positions]


def measures(scored: Sequence[Scored], bootstrap: Bootstrap) -> Row:
    """Returns rate, interval and counts of each measure; case and punctuation are None where no reference has any."""
    blocks = bootstrap.blocks_at([utterance.position for utterance in scored])
    references = [utterance.reference for utterance in scored]
    defined = {
        "case_error": any(text != text.lower() for text in references),
        "punctuation_error": any(punctuation_errors(text, "").reference for text in references),
    }
    row: Row = {}
    for name, field in MEASURES.items():
        row[name] = None
        if defined.get(name, True):
            counts: list[ErrorCounts] = [getattr(utterance, field) for utterance in scored]
            low, high = bootstrap_interval(counts, *bootstrap[:3], blocks)
            summed = total(counts)
            row[name] = {"rate": finite(summed.rate), "low": finite(low), "high": finite(high), **summed._asdict()}
    return row


def significance(first: Sequence[Scored], second: Sequence[Scored], bootstrap: Bootstrap) -> Row:
    """Compares the second's WER with the first's, on the utterances that both have."""
    common = {utterance.position for utterance in first} & {utterance.position for utterance in second}
    pair = [[utterance.words for utterance in scored if utterance.position in common] for scored in (first, second)]
    found = compare(pair[0], pair[1], *bootstrap[:3], bootstrap.blocks_at(sorted(common)))
    return {
        "wer_difference": {"rate": finite(found.difference), "low": finite(found.low), "high": finite(found.high)},
        "p_value": finite(found.p_value),
    }


def finite(value: float) -> float | None:
    """Returns a value with six decimals; None where it is not finite, which JSON lacks."""
    return round(value, 6) if math.isfinite(value) else None


def table(rows: Sequence[Row]) -> str:
    """Shows rates in percent with their intervals; S, D and I are substitutions, deletions and insertions."""
    confidences = {f"{100 * row['confidence']:g}" for row in rows}
    interval = f" [{' or '.join(sorted(confidences))} %]"
    compared = ", ".join(str(r) for r in dict.fromkeys(row["against"] for row in rows))
    heads = ["manifest", "look-ahead", "delay, ms", "utterances", "WER, %" + interval, "S + D + I, words"]
    heads += ["CER, %" + interval, "case, %" + interval, "punctuation, %" + interval]
    heads += [f"p against {compared}", "real-time factor"]
    lines = []
    for row in rows:
        wer = row["wer"]
        itself = row["lookahead"] == row["against"]
        p_value = "" if itself or row["p_value"] is None else f"{row['p_value']:.3f}"
        utterances = str(row["utterances"]) + (f" ({row['failed']} failed)" if row["failed"] else "")
        cells = [row["label"], str(row["lookahead"]), f"{row['chunk_ms']:.0f}", utterances, _percent(wer)]
        cells.append(f"{wer['substitutions']} + {wer['deletions']} + {wer['insertions']}, {wer['reference']}")
        cells += [_percent(row[name]) for name in MEASURES if name != "wer"]
        factor = row["real_time_factor"]
        lines.append([*cells, p_value, "" if factor is None else f"{factor:.3f}"])
    return markdown(heads, lines)


def _percent(measure: Row | None) -> str:
    if measure is None or measure["rate"] is None:
        return ""
    rate, low, high = (measure[name] for name in ("rate", "low", "high"))
    return f"{100 * rate:.2f}" + ("" if low is None else f" [{100 * low:.2f}, {100 * high:.2f}]")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots WER with its interval against the delay of a chunk, a line for each manifest."""
    with drawing(path, 8, 4.2) as figure:
        axes = figure.add_subplot()
        for number, label in enumerate(dict.fromkeys(row["label"] for row in rows)):
            points = [row for row in rows if row["label"] == label and row["wer"]["rate"] is not None]
            points.sort(key=lambda row: row["chunk_ms"])
            rates = [100 * row["wer"]["rate"] for row in points]
            bars = [[bar(row["wer"], end) for row in points] for end in ("low", "high")]
            marker = "osD^vPX*"[number % 8]
            axes.errorbar([row["chunk_ms"] for row in points], rates, bars, label=label, marker=marker, capsize=3)
        ticks = {row["chunk_ms"]: f"{row['chunk_ms']:.0f}\nR = {row['lookahead']}" for row in rows}
        axes.set_xscale("log")
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("delay of a chunk in ms, and look-ahead R in frames")
        axes.set_ylabel("WER in %")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper")  # beside the lines, which fill the plot


def bar(wer: Row, end: str) -> float:
    """Returns the distance of an interval's end from the rate, in percent; 0 where there is no interval."""
    return 0.0 if wer[end] is None else 100 * abs(wer[end] - wer["rate"])
