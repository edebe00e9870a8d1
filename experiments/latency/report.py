"""What a run of `compare_latency` has measured, as tables and a plot. Times in rows are seconds."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.harness.output import markdown, plot_format

PARTS = ("whole", "encoder", "decoder")
PERCENTILES = (50, 95, 99)
Row = dict[str, Any]


def percentiles(steps: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Of each part of a stream's steps, given as (whole, encoder, decoder); a part that is NaN is left out."""
    columns = np.array(steps, float).reshape(-1, len(PARTS)).T
    return {
        part: {f"p{p}": round(float(np.percentile(column, p)), 6) for p in PERCENTILES}
        for part, column in zip(PARTS, columns, strict=True)
        if not np.isnan(column).any()
    }


def of(rows: Iterable[Row], **values: Any) -> list[Row]:
    """Those that have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def names(rows: Iterable[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows if key in row))


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """The median, and the range where it is more than one; nothing of nothing."""
    if not values:
        return ""
    middle = form.format(statistics.median(values))
    low, high = form.format(min(values)), form.format(max(values))
    return middle if low == high else f"{middle} [{low}, {high}]"


def ratios(rows: Sequence[Row], contender: str, against: str, lookahead: int) -> list[float]:
    """How many times as long as `against` its median whole step took, in each repeat."""
    found = []
    for row in of(rows, kind="stream", contender=contender, lookahead=lookahead):
        other = of(rows, kind="stream", contender=against, lookahead=lookahead, repeat=row["repeat"])
        found += [row["whole"]["p50"] / o["whole"]["p50"] for o in other]
    return found


def fastest(rows: Sequence[Row], lookahead: int, ours: bool) -> str | None:
    """The contender, among nemojax's or the others, with the least median whole step."""
    found = of(rows, kind="stream", lookahead=lookahead)
    medians = {
        name: statistics.median(row["whole"]["p50"] for row in of(found, contender=name))
        for name in names(found, "contender")
        if name.startswith("nemojax") == ours
    }
    return min(medians, key=lambda name: medians[name]) if medians else None


def stream_table(rows: Sequence[Row]) -> str:
    """A line for each look-ahead and contender: milliseconds, medians over the repeats with their range."""
    heads = ["look-ahead, contender", "whole step p50, ms", "p95", "p99", "encoder p50", "decoder p50"]
    heads += ["real-time factor", "times ours", "labels a frame", "labels off, %", "peak, GB"]
    lines = []
    for lookahead in names(of(rows, kind="stream"), "lookahead"):
        ours = fastest(rows, lookahead, ours=True)
        for name in names(of(rows, kind="stream", lookahead=lookahead), "contender"):
            found = of(rows, kind="stream", contender=name, lookahead=lookahead)
            ms = lambda part, p, found=found: spread([1000 * row[part][p] for row in found if part in row])
            cells = [f"{lookahead}, {name}", ms("whole", "p50"), ms("whole", "p95"), ms("whole", "p99")]
            cells += [ms("encoder", "p50"), ms("decoder", "p50")]
            cells.append(spread([row["real_time_factor"] for row in found], "{:.3f}"))
            cells.append(spread(ratios(rows, name, ours, lookahead), "{:.2f}") if ours else "")
            cells.append(f"{found[0]['labels'] / max(1, found[0]['frames']):.2f}")
            cells.append("" if found[0]["labels_off"] is None else f"{100 * found[0]['labels_off']:.1f}")
            cells.append(f"{max(row['peak_bytes'] for row in found) / 1e9:.1f}")
            lines.append(cells)
    return markdown(heads, lines)


def start_table(rows: Sequence[Row]) -> str:
    heads = ["contender", "look-ahead", "compiled steps", "loaded after, s", "first labels after, s"]
    lines = []
    for name, lookahead, cache in dict.fromkeys(
        (row["contender"], row["lookahead"], row["cache"]) for row in of(rows, kind="start")
    ):
        found = of(rows, kind="start", contender=name, lookahead=lookahead, cache=cache)
        times = [spread([row[key] for row in found]) for key in ("loaded_s", "first_s")]
        lines.append([name, str(lookahead), cache, *times])
    return markdown(heads, lines)


def batch_table(rows: Sequence[Row]) -> str:
    heads = ["contender", "recordings", "look-ahead", "batch", "seconds", "times real time", "labels off, %"]
    lines = []
    for name, what, batch in dict.fromkeys((row["contender"], row["what"], row["batch_size"]) for row in _batch(rows)):
        found = of(_batch(rows), contender=name, what=what, batch_size=batch)
        off = found[0]["labels_off"]
        cells = [name, what, str(found[0]["lookahead"]), str(batch)]
        cells.append(spread([row["seconds"] for row in found], "{:.2f}"))
        cells.append(spread([row["audio_s"] / row["seconds"] for row in found], "{:.1f}"))
        lines.append([*cells, "" if off is None else f"{100 * off:.1f}"])
    return markdown(heads, lines)


def _batch(rows: Sequence[Row]) -> list[Row]:
    return of(rows, kind="batch")


def floor(rows: Sequence[Row]) -> str:
    """How long a step must take at least: its weights have to be read."""
    found = of(rows, kind="floor")[0]
    rate, parameters = found["bytes_per_second"], found["encoder_parameters"]
    times = ", ".join(
        f"{1000 * parameters * width / rate:.1f} ms in {name}"
        for name, width in (("float32", 4), ("bfloat16", 2), ("int8", 1))
    )
    return f"floor: {parameters / 1e6:.0f}M weights of the encoder, read once a step at {rate / 1e9:.1f} GB/s: {times}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """How the fastest of ours compares with the fastest peer, look-ahead by look-ahead."""
    lines = []
    for lookahead in names(of(rows, kind="stream"), "lookahead"):
        ours, theirs = (fastest(rows, lookahead, ours=flag) for flag in (True, False))
        if ours and theirs:
            times = spread(ratios(rows, theirs, ours, lookahead), "{:.2f}")
            lines.append(f"look-ahead {lookahead}: the fastest peer, {theirs}, takes {times} times as long as {ours}")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """The whole step's median and 95th percentile of every contender, at each look-ahead, and what is real time."""
    kind = plot_format(path)
    import matplotlib
    from matplotlib.figure import Figure

    found = of(rows, kind="stream")
    lookaheads = sorted(names(found, "lookahead"))
    contenders = names(found, "contender")
    width = 0.8 / len(contenders)
    with matplotlib.rc_context({"svg.hashsalt": "nemojax", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for number, name in enumerate(contenders):
            there = [r for r in lookaheads if of(found, contender=name, lookahead=r)]
            median = {
                p: [
                    1000 * statistics.median(x["whole"][p] for x in of(found, contender=name, lookahead=r))
                    for r in there
                ]
                for p in ("p50", "p95")
            }
            places = [lookaheads.index(r) + (number - (len(contenders) - 1) / 2) * width for r in there]
            above = [max(0.0, high - low) for low, high in zip(median["p50"], median["p95"], strict=True)]
            axes.bar(places, median["p50"], width, yerr=[[0] * len(there), above], capsize=2, label=name)
        for index, lookahead in enumerate(lookaheads):
            chunk_ms = of(found, lookahead=lookahead)[0]["chunk_ms"]
            axes.hlines(chunk_ms, index - 0.45, index + 0.45, colors="black", linestyles="dashed", linewidth=1)
        axes.set_yscale("log")
        axes.set_xticks(
            range(len(lookaheads)),
            [f"R = {r}\n{of(found, lookahead=r)[0]['chunk_ms']:.0f} ms" for r in lookaheads],
        )
        axes.set_ylabel("whole step in ms: median, and 95th percentile")
        axes.set_xlabel("look-ahead and chunk; dashed: the chunk's own duration")
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize=8)
        figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
