"""Shows the rows of `compare_latency` as tables and a plot. Times in rows are in seconds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from experiments.harness.output import drawing, markdown, median_and_range
from experiments.harness.rows import Row, distinct, select

PARTS = ("whole", "encoder", "decoder")
PERCENTILES = (50, 95, 99)


def percentiles(steps: Sequence[Sequence[float]]) -> dict[str, dict[str, float]]:
    """Returns percentiles of each part of steps, given as (whole, encoder, decoder); a part with NaN is left out."""
    columns = np.array(steps, float).reshape(-1, len(PARTS)).T
    return {
        part: {f"p{p}": round(float(np.percentile(column, p)), 6) for p in PERCENTILES}
        for part, column in zip(PARTS, columns, strict=True)
        if not np.isnan(column).any()
    }


def ratios(rows: Sequence[Row], contender: str, against: str, lookahead: int) -> list[float]:
    """Returns, for each repeat, a contender's median whole step divided by that of `against`."""
    found = []
    for row in select(rows, kind="stream", contender=contender, lookahead=lookahead):
        other = select(rows, kind="stream", contender=against, lookahead=lookahead, repeat=row["repeat"])
        found += [row["whole"]["p50"] / o["whole"]["p50"] for o in other]
    return found


def fastest(rows: Sequence[Row], lookahead: int, ours: bool) -> str | None:
    """Returns the contender with the least median whole step, among nemojax's or among its peers."""
    found = select(rows, kind="stream", lookahead=lookahead)
    medians = {
        name: median(row["whole"]["p50"] for row in select(found, contender=name))
        for name in distinct(found, "contender")
        if name.startswith("nemojax") == ours
    }
    return min(medians, key=lambda name: medians[name]) if medians else None


def stream_table(rows: Sequence[Row]) -> str:
    """Shows each look-ahead and contender in milliseconds, medians over the repeats with their range."""
    heads = ["look-ahead, contender", "whole step p50, ms", "p95", "p99", "encoder p50", "decoder p50"]
    heads += ["real-time factor", "times ours", "labels a frame", "labels off, %", "peak, GB"]
    lines = []
    for lookahead in distinct(select(rows, kind="stream"), "lookahead"):
        ours = fastest(rows, lookahead, ours=True)
        for name in distinct(select(rows, kind="stream", lookahead=lookahead), "contender"):
            found = select(rows, kind="stream", contender=name, lookahead=lookahead)
            parts = [("whole", "p50"), ("whole", "p95"), ("whole", "p99"), ("encoder", "p50"), ("decoder", "p50")]
            cells = [f"{lookahead}, {name}"]
            cells += [median_and_range([1000 * row[part][p] for row in found if part in row]) for part, p in parts]
            cells.append(median_and_range([row["real_time_factor"] for row in found], "{:.3f}"))
            cells.append(median_and_range(ratios(rows, name, ours, lookahead), "{:.2f}") if ours else "")
            cells.append(f"{found[0]['labels'] / max(1, found[0]['frames']):.2f}")
            cells.append("" if found[0]["labels_off"] is None else f"{100 * found[0]['labels_off']:.1f}")
            cells.append(f"{max(row['peak_bytes'] for row in found) / 1e9:.1f}")
            lines.append(cells)
    return markdown(heads, lines)


def start_table(rows: Sequence[Row]) -> str:
    heads = ["contender", "look-ahead", "compiled steps"]
    heads += ["loaded after, s", "first labels after, s", "resident then, GB"]
    lines = []
    for name, lookahead, cache in dict.fromkeys(
        (row["contender"], row["lookahead"], row["cache"]) for row in select(rows, kind="start")
    ):
        found = select(rows, kind="start", contender=name, lookahead=lookahead, cache=cache)
        times = [median_and_range([row[key] for row in found]) for key in ("loaded_s", "first_s")]
        resident = [row["resident_bytes"] / 1e9 for row in found if "resident_bytes" in row]  # earlier rows have none
        lines.append([name, str(lookahead), cache, *times, median_and_range(resident, "{:.2f}")])
    return markdown(heads, lines)


def batch_table(rows: Sequence[Row]) -> str:
    heads = ["contender", "recordings", "look-ahead", "batch", "seconds", "times real time", "labels off, %"]
    lines = []
    batches = select(rows, kind="batch")
    for name, what, batch in dict.fromkeys((row["contender"], row["what"], row["batch_size"]) for row in batches):
        found = select(batches, contender=name, what=what, batch_size=batch)
        off = found[0]["labels_off"]
        cells = [name, what, str(found[0]["lookahead"]), str(batch)]
        cells.append(median_and_range([row["seconds"] for row in found], "{:.2f}"))
        cells.append(median_and_range([row["audio_s"] / row["seconds"] for row in found], "{:.1f}"))
        lines.append([*cells, "" if off is None else f"{100 * off:.1f}"])
    return markdown(heads, lines)


def floor(rows: Sequence[Row]) -> str:
    """Returns a sentence on the least time of a step: that of reading its weights."""
    found = select(rows, kind="floor")[0]
    rate, parameters = found["bytes_per_second"], found["encoder_parameters"]
    times = ", ".join(
        f"{1000 * parameters * width / rate:.1f} ms in {name}"
        for name, width in (("float32", 4), ("bfloat16", 2), ("int8", 1))
    )
    return f"floor: {parameters / 1e6:.0f}M weights of the encoder, read once a step at {rate / 1e9:.1f} GB/s: {times}"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Returns a sentence for each look-ahead: the fastest peer's time against our fastest."""
    lines = []
    for lookahead in distinct(select(rows, kind="stream"), "lookahead"):
        ours, theirs = (fastest(rows, lookahead, ours=flag) for flag in (True, False))
        if ours and theirs:
            times = median_and_range(ratios(rows, theirs, ours, lookahead), "{:.2f}")
            lines.append(f"look-ahead {lookahead}: the fastest peer, {theirs}, takes {times} times as long as {ours}")
    return lines


def tables(rows: Sequence[Row]) -> str:
    """Shows all tables of a run, its floor and its verdicts."""
    parts = [stream_table(rows), batch_table(rows), start_table(rows), "\n".join([floor(rows), *verdicts(rows)])]
    return "\n\n".join(parts)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots median and 95th percentile of each contender's whole step at each look-ahead, and the chunk's duration."""
    found = select(rows, kind="stream")
    lookaheads = sorted(distinct(found, "lookahead"))
    contenders = distinct(found, "contender")
    width = 0.8 / len(contenders)
    with drawing(path, 9, 4.6) as figure:
        axes = figure.add_subplot()
        for number, name in enumerate(contenders):
            measured = [r for r in lookaheads if select(found, contender=name, lookahead=r)]
            p50, p95 = (
                [1000 * median(row["whole"][p] for row in select(found, contender=name, lookahead=r)) for r in measured]
                for p in ("p50", "p95")
            )
            places = [lookaheads.index(r) + (number - (len(contenders) - 1) / 2) * width for r in measured]
            above = [max(0.0, high - low) for low, high in zip(p50, p95, strict=True)]
            axes.bar(places, p50, width, yerr=[[0.0] * len(measured), above], capsize=2, label=name)
        for index, lookahead in enumerate(lookaheads):
            chunk_ms = select(found, lookahead=lookahead)[0]["chunk_ms"]
            axes.hlines(chunk_ms, index - 0.45, index + 0.45, colors="black", linestyles="dashed", linewidth=1)
        axes.set_yscale("log")
        axes.set_xticks(
            range(len(lookaheads)),
            [f"R = {r}\n{select(found, lookahead=r)[0]['chunk_ms']:.0f} ms" for r in lookaheads],
        )
        axes.set_ylabel("whole step in ms: median, and 95th percentile")
        axes.set_xlabel("look-ahead and chunk; dashed: the chunk's own duration")
        axes.grid(axis="y", alpha=0.3)
        figure.legend(fontsize=8, loc="outside right upper")  # beside the bars, which it would hide
