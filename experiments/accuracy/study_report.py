"""Rows of `compare_accuracy` as a table and as a plot of accuracy against delay."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.accuracy.report import bar
from experiments.harness.output import markdown, plot_format

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Markdown: percent, and milliseconds of delay."""

    def percent(measure: Row | None) -> str:
        if measure is None or measure["rate"] is None:
            return ""
        interval = "" if measure.get("low") is None else f" [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"
        return f"{100 * measure['rate']:.1f}{interval}"

    heads = ["manifest", "condition", "WER, %", "S + D + I", "p", "CER, %", "case, %", "punctuation, %"]
    heads += ["first word, %", "word delay, ms: mean (90 %)", "revisions", "real-time factor"]
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
        lines.append([*cells, "" if factor is None else f"{factor:.3f}"])
    return markdown(heads, lines, left=2)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both, by the first coordinate."""
    best, found = math.inf, []
    for x, y in sorted(points):
        if y < best:
            best = y
            found.append((x, y))
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """WER with its interval against the mean delay of words, a colour for each manifest; lines join the unbeaten."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.get("delay_ms") and row["wer"]["rate"] is not None]
    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for number, label in enumerate(dict.fromkeys(row["label"] for row in shown)):
            here = [row for row in shown if row["label"] == label]
            points = [(row["delay_ms"]["mean"], 100 * row["wer"]["rate"]) for row in here]
            ends = [[bar(row["wer"], end) for row in here] for end in ("low", "high")]
            style = {"fmt": "osD^vPX*"[number % 8], "color": f"C{number}"}
            axes.errorbar(*zip(*points, strict=True), yerr=ends, capsize=3, label=label, **style)
            axes.plot(*zip(*pareto(points), strict=True), color=style["color"], alpha=0.5)
            for (x, y), row in zip(points, here, strict=True):
                name = row["condition"].replace("lookahead=", "R = ")
                axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set_xlabel("mean delay of a word in ms, from its end to its text")
        axes.set_ylabel("WER in %")
        axes.margins(x=0.1)  # for the last points' names
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper")
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
