"""Shows rows of `compare_accuracy` as a table, and as a plot of accuracy against delay."""

import math
from collections.abc import Sequence
from pathlib import Path

from experiments.accuracy.report import bar
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row


def table(rows: Sequence[Row]) -> str:
    """Shows rates in percent and delays in milliseconds."""

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
    """Returns the points that no other beats in both coordinates, ordered by the first."""
    best, found = math.inf, []
    for x, y in sorted(points):
        if y < best:
            best = y
            found.append((x, y))
    return found


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots WER with its interval against the mean delay of words; a line joins the points of `pareto`."""
    shown = [row for row in rows if row.get("delay_ms") and row["wer"]["rate"] is not None]
    with drawing(path, 8, 4.6) as figure:
        axes = figure.add_subplot()
        for number, label in enumerate(dict.fromkeys(row["label"] for row in shown)):
            here = [row for row in shown if row["label"] == label]
            points = [(row["delay_ms"]["mean"], 100 * row["wer"]["rate"]) for row in here]
            ends = [[bar(row["wer"], end) for row in here] for end in ("low", "high")]
            marker, color = "osD^vPX*"[number % 8], f"C{number}"
            x_values, y_values = zip(*points, strict=True)
            axes.errorbar(x_values, y_values, ends, fmt=marker, color=color, capsize=3, label=label)
            axes.plot(*zip(*pareto(points), strict=True), color=color, alpha=0.5)
            for (x, y), row in zip(points, here, strict=True):
                name = row["condition"].replace("lookahead=", "R = ")
                axes.annotate(name, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set_xlabel("mean delay of a word in ms, from its end to its text")
        axes.set_ylabel("WER in %")
        axes.margins(x=0.1)  # room for the names of the last points
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper")
