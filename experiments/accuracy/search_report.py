"""Shows accuracy over what the conditions of a search differ in: beam width, weight of the language model, boost."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.accuracy.conditions import parse
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIGNIFICANT = 0.05
GREEDY = -1.0  # its place on the axis of beam widths, whose logarithms begin with 0
VARIABLES: dict[str, tuple[str, dict[str, Any]]] = {  # of a condition: the name of the axis, and the value without it
    "beam": ("beam width", {"beam": None}),
    "lm_weight": ("weight of the language model", {"lm": None, "lm_weight": 0.0}),
    "boost": ("boost of key words", {"boost": 0.0}),
}


class Point(NamedTuple):
    """A measured value with its interval, whose ends are the value where it has none."""

    value: float
    low: float
    high: float
    differs: bool  # from the first condition of the study, beyond chance

    def __str__(self) -> str:
        interval = f" [{self.low:.1f}, {self.high:.1f}]" if self.low < self.high else ""
        return f"{self.value:.1f}{interval}{' †' * self.differs}"


class Line(NamedTuple):
    """The rows of a manifest under conditions that differ in one variable."""

    label: str
    others: str  # what the conditions have in common, apart from the look-ahead
    rows: list[Row]

    @property
    def speech(self) -> str:
        """The manifest, and what else the conditions have in common, apart from the beam."""
        return ", ".join(
            [self.label, *(part for part in self.others.split(",") if part and not part.startswith("beam="))]
        )

    @property
    def name(self) -> str:
        beam = [f"beam of {self.rows[0]['beam']}"] if "beam=" in self.others else []
        return ", ".join([self.speech, *beam])


def _point(measure: Row | None, name: str, factor: int, p_value: float | None) -> Point | None:
    if measure is None or measure[name] is None:
        return None
    ends = [measure[name] if measure[end] is None else measure[end] for end in ("low", "high")]
    differs = p_value is not None and p_value < SIGNIFICANT
    return Point(factor * measure[name], factor * ends[0], factor * ends[1], differs)


def _wer(row: Row) -> Point | None:
    return _point(row["wer"], "rate", 100, row["p_value"])


def _recall(row: Row) -> Point | None:
    found = row.get("key_words")
    return None if found is None else _point(found["recall"], "rate", 100, found["p_value"])


def _false_alarms(row: Row) -> Point | None:
    found = row.get("key_words")
    return None if found is None else _point(found["false_alarms"], "per_1000_words", 1, None)


def _delay(row: Row) -> Point | None:
    delay = row.get("delay_ms")
    return None if delay is None else Point(delay["mean"], delay["mean"], delay["mean"], False)


MEASURES: dict[str, Callable[[Row], Point | None]] = {
    "WER, %": _wer,
    "key words found, %": _recall,
    "false alarms per 1,000 words": _false_alarms,
    "mean delay of a word, ms": _delay,
}
SHOWN = {  # over each variable
    "beam": ("WER, %", "mean delay of a word, ms"),
    "lm_weight": ("WER, %", "key words found, %"),
    "boost": ("WER, %", "key words found, %", "false alarms per 1,000 words"),
}


def varied(rows: Sequence[Row]) -> list[str]:
    """Returns the variables in which conditions of a manifest differ while all else is the same."""
    return [variable for variable in VARIABLES if lines(rows, variable)]


def lines(rows: Sequence[Row], variable: str) -> list[Line]:
    """Returns the rows that differ in one variable, a line for each manifest and what else its conditions have.

    Rows of a study count for its own variable alone.
    """
    found: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["contender"] == "nemojax" and row["study"] in (None, variable.replace("_", "-")):
            condition = dataclasses.replace(parse(row["condition"]), **VARIABLES[variable][1])
            found[row["label"], str(condition).partition(",")[2]].append(row)
    return [
        Line(label, others, group)
        for (label, others), group in found.items()
        if len({row.get(variable) for row in group}) > 1
    ]


def table(rows: Sequence[Row], variable: str) -> str:
    """Shows measures over a variable; † where WER or recall differ beyond chance from the study's first condition."""
    drawn = lines(rows, variable)
    values = sorted({row.get(variable) or 0 for line in drawn for row in line.rows})
    shown = []
    for line in drawn:
        at = {row.get(variable) or 0: row for row in line.rows}
        for measure in SHOWN[variable]:
            of = MEASURES[measure]
            points = [None if value not in at else of(at[value]) for value in values]
            if any(points):
                shown.append([line.name, measure, *("" if point is None else str(point) for point in points)])
    heads = [f"{value:g}" if value or variable != "beam" else "greedy" for value in values]
    heads[0] = f"{VARIABLES[variable][0]}: {heads[0]}"
    return markdown(["", "", *heads], shown, left=2)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws a panel for each variable and measure, with a line for each manifest: dashed where a beam searches."""
    drawn = {variable: lines(rows, variable) for variable in varied(rows)}
    panels = {
        (down, across): (variable, measure)
        for down, variable in enumerate(drawn)
        for across, measure in enumerate(SHOWN[variable])
        if any(MEASURES[measure](row) for line in drawn[variable] for row in line.rows)
    }
    speech = list(dict.fromkeys(line.speech for found in drawn.values() for line in found))
    across = 1 + max(place for _, place in panels)
    with drawing(path, max(4.5, 3.4 * across), 0.9 + 2.9 * len(drawn)) as figure:
        places = figure.subplots(len(drawn), across, squeeze=False)
        for place, axes in np.ndenumerate(places):
            if place not in panels:
                axes.set_visible(False)
                continue
            variable, measure = panels[place]
            for line in drawn[variable]:
                _draw(axes, line, variable, MEASURES[measure], speech.index(line.speech))
            axes.set_title(measure, fontsize=9)
            axes.set_xlabel(VARIABLES[variable][0], fontsize=9)
            if variable == "beam":
                widths = sorted({row["beam"] or 0 for line in drawn[variable] for row in line.rows})
                axes.set_xticks([_place(variable, width) for width in widths], [str(w or "greedy") for w in widths])
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        handles: dict[str, Any] = {}
        for axes in places.flat:
            handles |= {name: handle for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=across, fontsize=8)


def _place(variable: str, value: float | None) -> float:
    """Returns where a value of a variable lies on its axis."""
    if variable == "beam":
        return math.log2(value) if value else GREEDY
    return value or 0.0


def _draw(axes: "Axes", line: Line, variable: str, of: Callable[[Row], Point | None], color: int) -> None:
    points = {_place(variable, row.get(variable)): measured for row in line.rows if (measured := of(row)) is not None}
    shown = sorted(points.items())
    axes.errorbar(
        [place for place, _ in shown],
        [measured.value for _, measured in shown],
        [
            # a narrow interval may lie beside its value
            [max(measured.value - measured.low, 0.0) for _, measured in shown],
            [max(measured.high - measured.value, 0.0) for _, measured in shown],
        ],
        label=line.name,
        color=f"C{color}",
        marker="osD^vPX*"[color % 8],
        markersize=4,
        linestyle="--" if "beam=" in line.others else "-",
        capsize=3,
        alpha=0.8,
    )
