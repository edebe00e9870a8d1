"""Rows of accuracy at a look-ahead: made from scored utterances, shown as a table, drawn against the delay.

Rates in rows are shares of the reference, not percent; what can't be given, such as the interval of a single
utterance, is None. A row needs `label`, `lookahead` and `chunk_ms` to be shown and drawn.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.harness.output import markdown, plot_format
from nemojax.metrics import ErrorCounts, bootstrap_interval, compare, punctuation_errors, total

MEASURES = {"wer": "words", "cer": "characters", "case_error": "case", "punctuation_error": "punctuation"}


def measures(
    scored: Sequence[Any], blocks: Sequence[str] | None, confidence: float, resamples: int, seed: int
) -> dict[str, Any]:
    """Rate, interval and counts of each measure; case and punctuation are None where no reference has any.

    Args:
      scored: utterances, as `experiments.accuracy.evaluate.evaluate` gives them.
      blocks: of the list that was evaluated, what each utterance is drawn together with.
    """
    drawn = None if blocks is None else [blocks[utterance.position] for utterance in scored]
    references = [utterance.reference for utterance in scored]
    there = {
        "case_error": any(text != text.lower() for text in references),
        "punctuation_error": any(punctuation_errors(text, "").reference for text in references),
    }
    row: dict[str, Any] = {}
    for name, field in MEASURES.items():
        row[name] = None
        if there.get(name, True):
            counts: list[ErrorCounts] = [getattr(utterance, field) for utterance in scored]
            low, high = bootstrap_interval(counts, confidence, resamples, seed, drawn)
            summed = total(counts)
            row[name] = {"rate": _finite(summed.rate), "low": _finite(low), "high": _finite(high), **summed._asdict()}
    return row


def significance(
    first: Sequence[Any],
    second: Sequence[Any],
    blocks: Sequence[str] | None,
    confidence: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """How the second's WER differs from the first's, on the utterances that both have."""
    common = {utterance.position for utterance in first} & {utterance.position for utterance in second}
    pair = [[utterance.words for utterance in scored if utterance.position in common] for scored in (first, second)]
    drawn = None if blocks is None else [blocks[index] for index in sorted(common)]
    found = compare(pair[0], pair[1], confidence, resamples, seed, drawn)
    return {
        "wer_difference": {"rate": _finite(found.difference), "low": _finite(found.low), "high": _finite(found.high)},
        "p_value": _finite(found.p_value),
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, rates in percent with their intervals; S, D and I are substitutions, deletions and insertions."""
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


def _percent(measure: dict[str, Any] | None) -> str:
    if measure is None or measure["rate"] is None:
        return ""
    rate, low, high = (measure[name] for name in ("rate", "low", "high"))
    return f"{100 * rate:.2f}" + ("" if low is None else f" [{100 * low:.2f}, {100 * high:.2f}]")


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """WER against the delay of a chunk, a line for each manifest, with intervals. The same rows give the same file."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
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
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)


def bar(wer: dict[str, Any], end: str) -> float:
    """How far an end of the interval is from the rate, in percent; 0 where there is no interval."""
    return 0.0 if wer[end] is None else 100 * abs(wer[end] - wer["rate"])
