"""The table of a run's rows."""

from collections.abc import Sequence

from experiments.harness.output import markdown
from experiments.harness.rows import Row

NAMES = {
    "step": "step",
    "one stream": "one stream, host to host",
    "paced": "paced streams in the engine",
    "offline": "whole recordings",
    "peer": "transformers",
}
MAX_LABELS_PER_FRAME = 1.0  # speech has 0.3; far above it the search takes longer than it ever does for speech


def is_fair(row: Row) -> bool:
    """Returns whether a row is a time of a whole step as `nemojax` runs it.

    It is not if programs were being compiled meanwhile, if the label rate was far above that of speech, or if the step
    was changed for a comparison.
    """
    if row.get("compiling") or (row.get("labels_per_frame") or 0.0) > MAX_LABELS_PER_FRAME:
        return False
    return row["kind"] == "peer" or (row["part"] == "step" and row["buffers"] and row["variant"] in ("plain", "fused"))


def table(rows: Sequence[Row]) -> str:
    """Shows the fair rows of steps, one stream, the engine, whole recordings, and of transformers."""
    lines = []
    shown = [row for row in rows if row["kind"] in NAMES and ("error" not in row or row.get("out_of_memory"))]
    for row in sorted(filter(is_fair, shown), key=lambda row: list(NAMES).index(row["kind"])):
        peer = row["kind"] == "peer"
        name = NAMES[row["kind"]] + (f", {row['part']}" if peer else "")
        streams = row["streams"] if "streams" in row else row["batch"]
        chunk = "" if "batch" in row else f"{80 * (row['lookahead'] + 1)} ms"
        cells = [name, chunk, "" if peer else row["variant"]]
        cells.append(f"{row['active']} of {streams:,}" if row.get("active") else f"{streams:,}")
        if row.get("out_of_memory"):
            lines.append([*cells, "out of memory", "", "", "", ""])
            continue
        cells += [_number(row, key, "{:.1f}") for key in ("p50_ms", "p99_ms", "kernels_ms")]
        lines.append([*cells, _number(row, "labels_per_frame", "{:.2f}"), _number(row, "rtfx", "{:,.0f}")])
    if not lines:
        return "No step was timed alone."
    heads = ["", "chunk", "attention", "streams", "p50, ms", "p99, ms", "kernels, ms"]
    return markdown([*heads, "labels a frame", "times real time"], lines, left=3)


def _number(row: Row, key: str, form: str) -> str:
    return "" if row.get(key) is None else form.format(row[key])
