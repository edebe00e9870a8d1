"""Verdicts, tables and the page of `released`."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, distinct, select
from experiments.released.known import DIFFERENT, EQUAL, SETS, SIZES, SPEEDS, UNKNOWN, Check, Release

ROUNDING = 0.005  # of published figures, in percent
AGREES, BETTER, WORSE, OPEN = "agrees", "better", "worse", ""
NO_FIGURE = "RTFx and the delay of words have no verdict: there is no published figure of this model."
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #24292f }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .7rem; border-bottom: 1px solid #d0d7de }
td { text-align: right } td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto }
.worse, .different { background: #ffebe9 } .agrees, .better, .equal { background: #dafbe1 }
"""


class Table(NamedTuple):
    """A table of the page; `note` says how to read it."""

    title: str
    note: str
    heads: list[str]
    lines: list[list[str]]


def title(name: str) -> str:
    """Returns the name of a set as it is shown."""
    return SETS.get(name, name)


def published(row: Row, release: Release) -> float | None:
    """Returns the published WER in percent of a row's set and chunk; None where there is none."""
    return release.wer.get(row["set"], {}).get(round(row["chunk_ms"]))


def verdict(row: Row, release: Release) -> str:
    """Compares a measured WER with the published one: it agrees where that lies in the interval of the measured one."""
    expected, wer = published(row, release), row["wer"]
    if expected is None or wer is None or wer["low"] is None:
        return OPEN
    if 100 * wer["low"] > expected + ROUNDING:
        return WORSE
    return BETTER if 100 * wer["high"] < expected - ROUNDING else AGREES


def sentences(rows: Sequence[Row], checks: Sequence[Check], release: Release) -> Iterator[str]:
    """Yields the conclusions, the most important first."""
    found = [check.verdict for check in checks]
    if DIFFERENT in found:
        yield (
            f"These are not the files of {release.title}: {found.count(DIFFERENT)} of {len(found)} facts are "
            "different. What follows says nothing about the release."
        )
    elif EQUAL not in found:
        yield f"Whether these are the weights of {release.title} is not known."
    else:
        unknown = found.count(UNKNOWN)
        rest = f", and {unknown} can't be compared" if unknown else ""
        yield f"These are the files of {release.title}: {found.count(EQUAL)} facts are equal{rest}."
    verdicts = [verdict(row, release) for row in rows]
    compared = [one for one in verdicts if one]
    if compared:
        counts = ", ".join(f"{name} {compared.count(name)}" for name in (AGREES, BETTER, WORSE))
        yield f"WER against the published figures, at {len(compared)} points: {counts}."
    else:
        yield "No WER could be compared with a published figure."
    streamed = [row for row in rows if row.get("streamed")]
    if streamed:
        same, count = (sum(row[key] for row in streamed) for key in ("same_text", "streamed"))
        yield f"Streamed, {same:,} of {count:,} recordings have the same text as offline."
    yield NO_FIGURE


def line(row: Row, release: Release) -> str:
    """Returns a set's WER at a chunk in a line, beside the published one."""
    rate, expected = row["wer"]["rate"], published(row, release)
    parts = [f"WER {100 * rate:.2f} %" if rate is not None else "no WER"]
    if expected is not None:
        parts.append(f"published {expected:.2f} %")
    return f"{title(row['set'])}, {row['chunk_ms']:.0f} ms: {', '.join(parts)}"


def tables(rows: Sequence[Row], checks: Sequence[Check], release: Release) -> list[Table]:
    """Returns all tables of the page."""
    return [_accuracy(rows, release), _streaming(rows), _identity(checks), _speeds()]


def _accuracy(rows: Sequence[Row], release: Release) -> Table:
    lines: list[list[str]] = []
    for row in rows:
        wer, expected = row["wer"], published(row, release)
        count = f"{row['utterances']:,}"
        if row["set"] in SIZES and row["utterances"] < SIZES[row["set"]]:
            count += f" of {SIZES[row['set']]:,}"
        cells = [title(row["set"]), f"{row['chunk_ms']:.0f}", count, f"{wer['reference']:,}"]
        interval = "" if wer["low"] is None else f" [{100 * wer['low']:.2f}, {100 * wer['high']:.2f}]"
        cells.append("" if wer["rate"] is None else f"{100 * wer['rate']:.2f}{interval}")
        cells += ["" if expected is None else f"{expected:.2f}", verdict(row, release)]
        lines.append([*cells, "" if not row["real_time_factor"] else f"{1 / row['real_time_factor']:,.1f}"])
    lines += _means(rows, release)
    heads = ["set", "chunk, ms", "utterances", "words", "WER, % [interval]", "published", "verdict", "RTFx"]
    note = (
        "Whisper's normalizer. The verdict is agrees where the published figure lies in the interval of the measured "
        "one. RTFx: seconds of audio per second, from files to text."
    )
    return Table("Accuracy and speed, offline", note, heads, lines)


def _means(rows: Sequence[Row], release: Release) -> Iterator[list[str]]:
    """Yields the mean over the sets of the leaderboard at each chunk, where all were measured."""
    for chunk_ms in distinct(rows, "chunk_ms"):
        rates = {row["set"]: row["wer"]["rate"] for row in select(rows, chunk_ms=chunk_ms) if row["set"] in SETS}
        if len(rates) == len(SETS) and None not in rates.values():
            expected = [
                value for figures in release.wer.values() if (value := figures.get(round(chunk_ms))) is not None
            ]
            shown = f"{mean(expected):.2f}" if len(expected) == len(SETS) else ""
            yield ["mean of all", f"{chunk_ms:.0f}", "", "", f"{100 * mean(rates.values()):.2f}", shown, "", ""]


def _streaming(rows: Sequence[Row]) -> Table:
    lines: list[list[str]] = []
    for row in (row for row in rows if row.get("streamed")):
        delay, step = row["delay_ms"], row["step_ms"]
        cells = [title(row["set"]), f"{row['chunk_ms']:.0f}", f"{row['same_text']} of {row['streamed']}"]
        cells += ["", ""] if delay is None else [f"{delay['mean']:.0f}", f"{delay['p90']:.0f}"]
        cells.append("" if step is None else f"{step['p50']:.1f}")
        lines.append([*cells, "" if row["rtfx_streamed"] is None else f"{row['rtfx_streamed']:.1f}"])
    heads = [
        "set",
        "chunk, ms",
        "same text as offline",
        "delay of a word, ms: mean",
        "90 %",
        "step, ms",
        "RTFx, one stream",
    ]
    note = (
        "The delay is counted in audio: from the end of a word, by the model's largest look-ahead, to the end of the "
        "chunk that shows its text. The time of a step comes on top."
    )
    return Table("Streamed", note, heads, lines)


def _identity(checks: Sequence[Check]) -> Table:
    return Table(
        "The files",
        "Of a checksum, the digits that are known are compared.",
        ["what", "here", "released", "verdict"],
        [list(check) for check in checks],
    )


def _speeds() -> Table:
    return Table(
        "Published speeds",
        "These were measured on other machines and under other conditions, so they have no verdict.",
        ["what", "figure", "source"],
        [list(line) for line in SPEEDS],
    )


def text(rows: Sequence[Row], checks: Sequence[Check], release: Release) -> str:
    """Returns conclusions and tables in markdown."""
    parts = ["\n".join(sentences(rows, checks, release))]
    parts += [f"{table.title}\n\n{markdown(table.heads, table.lines)}" for table in tables(rows, checks, release)[:3]]
    return "\n\n".join(parts)


def page(rows: Sequence[Row], checks: Sequence[Check], release: Release, facts: Row, drawn: str) -> str:
    """Returns the report as a page without anything outside it.

    Args:
      facts: about the machine, by name.
      drawn: a plot as SVG, or "".
    """
    body = ["<h1>The released weights in nemojax</h1>"]
    body += [f"<p>{html.escape(sentence)}</p>" for sentence in sentences(rows, checks, release)]
    body.append(drawn)
    for table in tables(rows, checks, release):
        body += [f"<h2>{html.escape(table.title)}</h2><p>{html.escape(table.note)}</p>", _table(table)]
    body.append(_table(Table("", "", ["machine", ""], [[name, str(value)] for name, value in facts.items()])))
    head = f'<meta charset="utf-8"><title>The released weights in nemojax</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _table(table: Table) -> str:
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in table.heads)
    lines = ("".join(f"<td class={_class(cell)}>{html.escape(cell)}</td>" for cell in line) for line in table.lines)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _class(cell: str) -> str:
    return cell if cell in (AGREES, BETTER, WORSE, EQUAL, DIFFERENT) else "plain"


def plot(rows: Sequence[Row], release: Release, path: Path) -> None:
    """Draws the WER of each set with its interval against the chunk, and the published one as a cross."""
    with drawing(path, 9, 4.2) as figure:
        axes: Any = figure.add_subplot()
        for number, name in enumerate(distinct(rows, "set")):
            here = [row for row in select(rows, set=name) if row["wer"]["rate"] is not None]
            here.sort(key=lambda row: row["chunk_ms"])
            ends = [
                [abs(100 * ((row["wer"][end] or row["wer"]["rate"]) - row["wer"]["rate"])) for row in here]
                for end in ("low", "high")
            ]
            chunks, color = [row["chunk_ms"] for row in here], f"C{number}"
            rates = [100 * row["wer"]["rate"] for row in here]
            axes.errorbar(chunks, rates, ends, marker="o", capsize=3, color=color, label=title(name))
            known = [(row["chunk_ms"], value) for row in here if (value := published(row, release)) is not None]
            if known:
                axes.plot(*zip(*known, strict=True), "x", color=color, markersize=9)
        ticks = distinct(rows, "chunk_ms")
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("chunk in ms")
        axes.set_ylabel("WER in %; crosses: published")
        axes.grid(alpha=0.3)
        figure.legend(fontsize=8, loc="outside right upper")
