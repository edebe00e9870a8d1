"""Shows rows of `compare_accuracy` as a table, and as a plot of accuracy against delay.

Where conditions differ in the search, the plot is that of `search_report`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from experiments.accuracy import search_report
from experiments.accuracy.report import bar
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row

PANELS_IN_A_LINE = 2


def table(rows: Sequence[Row]) -> str:
    """Shows rates in percent and delays in milliseconds. Key words have columns where there are any."""

    def percent(measure: Row | None) -> str:
        if measure is None or measure["rate"] is None:
            return ""
        interval = "" if measure.get("low") is None else f" [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"
        return f"{100 * measure['rate']:.1f}{interval}"

    heads = ["manifest", "condition", "WER, %", "S + D + I", "p", "CER, %", "case, %", "punctuation, %"]
    heads += ["first word, %", "word delay, ms: mean (90 %)", "revisions", "real-time factor"]
    with_key_words = any(row.get("key_words") for row in rows)
    heads += ["key words found, %", "false alarms per 1,000 words"] if with_key_words else []
    lines = []
    for row in rows:
        wer, delay = row["wer"], row.get("delay_ms")
        name = row["condition"] if row["contender"] == "nemojax" else f"{row['contender']}, {row['condition']}"
        cells = [row["label"], name, percent(wer)]
        cells.append(f"{wer['substitutions']} + {wer['deletions']} + {wer['insertions']}")
        cells.append("" if row["p_value"] is None else f"{row['p_value']:.3f}")
        cells += [percent(row[key]) for key in ("cer", "case_error", "punctuation_error")]
        cells.append(percent(row.get("first_word")))
        cells.append("" if delay is None else f"{delay['mean']:.0f} ({delay['p90']:.0f})")
        cells.append(str(row.get("revisions", "")))
        factor = row.get("real_time_factor")
        cells.append("" if factor is None else f"{factor:.3f}")
        lines.append([*cells, *(key_words(row.get("key_words")) if with_key_words else [])])
    return markdown(heads, lines, left=2)


def key_words(measured: Row | None) -> list[str]:
    """Returns the recall in percent with the number of spoken key words, and false alarms over 1,000 words."""
    if measured is None:
        return ["", ""]
    recall, alarms = measured["recall"], measured["false_alarms"]
    found = "" if recall["rate"] is None else f"{_rate(recall, 'rate', 100)} of {measured['spoken']:,}"
    return [found, "" if alarms["per_1000_words"] is None else _rate(alarms, "per_1000_words", 1)]


def _rate(measure: Row, name: str, factor: int) -> str:
    interval = "" if measure["low"] is None else f" [{factor * measure['low']:.1f}, {factor * measure['high']:.1f}]"
    return f"{factor * measure[name]:.1f}{interval}"


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the points that no other beats in both coordinates, ordered by the first."""
    best, found = math.inf, []
    for x, y in sorted(points):
        if y < best:
            best = y
            found.append((x, y))
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots WER with its interval against the mean delay of words, a panel for each manifest.

    A line joins the points of `pareto`. Names of conditions stand above the intervals, at two heights in turn. Where
    conditions differ in the search, it is the plot of `search_report`.
    """
    if search_report.varied(rows):
        search_report.plot(rows, path)
        return
    shown = [row for row in rows if row.get("delay_ms") and row["wer"]["rate"] is not None]
    labels = list(dict.fromkeys(row["label"] for row in shown))
    lines = max(1, -(-len(labels) // PANELS_IN_A_LINE))
    with drawing(path, 9, 0.6 + 2.6 * lines) as figure:
        panels = figure.subplots(lines, min(PANELS_IN_A_LINE, max(1, len(labels))), squeeze=False).flat
        for number, (axes, label) in enumerate(zip(panels, labels, strict=False)):
            here = sorted((row for row in shown if row["label"] == label), key=lambda row: row["delay_ms"]["mean"])
            points = [(row["delay_ms"]["mean"], 100 * row["wer"]["rate"]) for row in here]
            ends = [[bar(row["wer"], end) for row in here] for end in ("low", "high")]
            marker, color = "osD^vPX*"[number % 8], f"C{number}"
            axes.errorbar(*zip(*points, strict=True), ends, fmt=marker, color=color, capsize=3)
            axes.plot(*zip(*pareto(points), strict=True), color=color, alpha=0.5)
            for place, ((x, y), above, row) in enumerate(zip(points, ends[1], here, strict=True)):
                name, points_above = row["condition"].replace("lookahead=", "R = "), 3 + 9 * (place % 2)
                at = {"textcoords": "offset points", "xytext": (0, points_above), "ha": "center"}
                axes.annotate(name, (x, y + above), fontsize=7, **at)
            axes.set_title(label, fontsize=9)
            axes.margins(x=0.12)  # room for the names, and above them
            axes.set_ylim(0, 1.3 * max(y + above for (_, y), above in zip(points, ends[1], strict=True)) or 1)
            axes.grid(alpha=0.3)
        for axes in list(panels)[len(labels) :]:
            axes.set_visible(False)
        figure.supxlabel("mean delay of a word in ms, from its end to its text", fontsize=10)
        figure.supylabel("WER in %", fontsize=10)
