"""Makes the tables and plots that README and the model card quote, again, from the rows in `experiments/results`.

    python -m experiments.record [--check]

A document says where a table goes:

    <!-- record: small-wer -->
    <!-- end of record -->

What is between the two lines is replaced; where there are no rows yet, the document says so. With --check nothing is
written. Exit codes: 0, all was as it should be, or now is; 1, with --check: something is not what the rows make it;
2, a document names a table that is not known here.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from experiments import tradeoff
from experiments.accuracy import markdown, plot
from experiments.latency import report
from nemojax.config import ConfigError

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments/results"
DOCUMENTS = (ROOT / "README.md", ROOT / "nemojax/small/README.md", ROOT / "experiments/README.md")
PLOTS = {
    "small": (plot, ROOT / "experiments/figures/small.svg"),
    "ablations": (
        lambda found, path: tradeoff.plot([row for row in found if row["study"] == "lookahead"], path),
        ROOT / "experiments/figures/accuracy.svg",
    ),
    "compare_latency": (report.plot, ROOT / "experiments/figures/latency.svg"),
}
BLOCK = re.compile(r"(<!-- record: ([\w-]+) -->\n).*?(<!-- end of record -->)", re.S)
NAMES = {
    "grid": "GRID dev",
    "fsdd": "digits dev",
    "synthetic_dev": "synthetic, new sentences",
    "synthetic_new_voice": "synthetic, new sentences and voices",
    "ljspeech": "LJ Speech dev",
    "librispeech_clean": "LibriSpeech dev",
    "librispeech_other": "LibriSpeech test-other",
    "kept": "the new speaker",
}
RUNS = {  # by the name of their rows' file: the question, and the command that answers it
    "small": (
        "How often is the small model wrong, on held-out speech?",
        "python -m experiments.evaluate nemojax/small MANIFEST... --stream",
    ),
    "compare_references": (
        "Do NeMo and transformers say the same on its weights?",
        "python -m experiments.compare_references nemojax/small MANIFEST...",
    ),
    "ablations": ("On what does its accuracy depend?", "experiments/ablations.sh SPEECH OUT"),
    "fine_tune": ("Does it learn a new speaker?", "experiments/fine_tune.sh SPEECH OUT"),
    "compare_latency": (
        "How long does a step take, here and in the peers?",
        "python -m experiments.compare_latency WORK --manifests MANIFEST --repeats 3 --steps 12 --seconds 14 "
        "--batch-seconds 30 2 5 --starts 2",
    ),
}
SIGNIFICANT = 0.05
NOT_YET = "*Not measured yet.*"
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]


def rate(measure: Row | None) -> str:
    """In percent, with its interval."""
    if measure is None or measure["rate"] is None:
        return ""
    interval = "" if measure["low"] is None else f" [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"
    return f"{100 * measure['rate']:.1f}{interval}"


def marked(row: Row) -> str:
    """The WER, with † where it differs beyond chance from the one that it was compared with."""
    differs = row["p_value"] is not None and row["p_value"] < SIGNIFICANT
    return rate(row["wer"]) + (" †" if differs else "")


def unique(found: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in found))


def small_wer() -> str:
    """WER of each set at each look-ahead; † where it differs from the first's beyond chance."""
    found = rows("small")
    delays = {row["lookahead"]: f"{row['chunk_ms']:.0f} ms" for row in found}
    lines = []
    for label in unique(found, "label"):
        at = {row["lookahead"]: row for row in found if row["label"] == label}
        first = next(iter(at.values()))
        cells = [marked(at[r]) for r in delays]
        lines.append([NAMES[label], f"{first['utterances']}, {first['wer']['reference']}", *cells])
    return markdown(["", "utterances, words", *delays.values()], lines)


def small_rest() -> str:
    """CER, case and punctuation at the first look-ahead."""
    found = rows("small")
    lines = [
        [NAMES[row["label"]], *(rate(row[name]) for name in ("cer", "case_error", "punctuation_error"))]
        for row in found
        if row["lookahead"] == found[0]["lookahead"]
    ]
    return markdown([f"at {found[0]['chunk_ms']:.0f} ms", "CER", "case", "punctuation"], lines)


def references() -> str:
    """Of how many recordings NeMo and transformers say what nemojax says, label for label."""
    found = rows("compare_references")
    lines = []
    for manifest in unique(found, "manifest"):
        here = [row for row in found if row["manifest"] == manifest]
        for reference in unique(here, "reference"):
            of = [row for row in here if row["reference"] == reference]
            lookaheads = ", ".join(str(r) for r in unique(of, "lookahead"))
            total, same, ties = (sum(row[key] for row in of) for key in ("recordings", "identical", "near_ties"))
            name = NAMES[Path(manifest).stem]
            differing = total - same - ties
            lines.append([name, reference, lookaheads, f"{total:,}", f"{same:,}", f"{ties:,}", f"{differing:,}"])
    heads = ["", "reference", "look-aheads", "comparisons", "identical", "near-ties", "different"]
    return markdown(heads, lines)


def fine_tune() -> str:
    """WER before and after, at each look-ahead."""
    found = rows("fine_tune")
    delays = {row["lookahead"]: f"{row['chunk_ms']:.0f} ms" for row in found}
    lines = []
    for label in unique(found, "label"):
        models = unique(found, "model")
        for model, when in zip(models, ("before", "after"), strict=True):
            at = {row["lookahead"]: row for row in found if row["label"] == label and row["model"] == model}
            first = next(iter(at.values()))
            words = f"{first['utterances']}, {first['wer']['reference']}"
            lines.append([f"{NAMES[label]}, {when}", words, *(rate(at[r]["wer"]) for r in delays)])
    return markdown(["", "utterances, words", *delays.values()], lines)


def delays() -> str:
    """How long after its end a word is out, over all sets, and how often shown text was changed."""
    found = [row for row in rows("ablations") if row["study"] == "lookahead"]
    lines = []
    for condition in unique(found, "condition"):
        here = [row for row in found if row["condition"] == condition]
        words = sum(row["delay_ms"]["words"] for row in here)
        mean = sum(row["delay_ms"]["mean"] * row["delay_ms"]["words"] for row in here) / words
        slowest = max(row["delay_ms"]["p90"] for row in here)
        revisions = sum(row["revisions"] for row in here)
        chunk = f"{here[0]['chunk_ms']:.0f} ms"
        lines.append([chunk, f"{words:,}", f"{mean:.0f}", f"{slowest:.0f}", str(revisions)])
    heads = ["chunk", "words", "mean delay, ms", "90 % within, in the worst set", "changes to shown text"]
    return markdown(heads, lines)


def ablations() -> str:
    """WER of each set under each condition; † where it differs beyond chance from that of its study's first."""
    found = [row for row in rows("ablations") if row["study"] != "lookahead"]
    labels, lines = unique(found, "label"), []
    for study in unique(found, "study"):
        for condition in unique([row for row in found if row["study"] == study], "condition"):
            at = {row["label"]: row for row in found if (row["study"], row["condition"]) == (study, condition)}
            lines.append([study, condition.replace(",", ", "), *(marked(at[label]) for label in labels)])
    return markdown(["study", "condition", *(NAMES[label] for label in labels)], lines, left=2)


def latency() -> str:
    """The whole step of each contender at each look-ahead, and how the fastest peer compares with ours."""
    found = rows("compare_latency")
    steps = report.of(found, kind="stream")
    lookaheads = unique(steps, "lookahead")
    lines = []
    for name in unique(steps, "contender"):
        here = [report.of(steps, contender=name, lookahead=r) for r in lookaheads]
        lines.append([name, *(report.spread([1000 * row["whole"]["p50"] for row in at], "{:.0f}") for at in here)])
    ratio = []
    for r in lookaheads:
        ours, theirs = (report.fastest(found, r, ours=flag) for flag in (True, False))
        ratio.append(report.spread(report.ratios(found, theirs, ours, r), "{:.2f}") if ours and theirs else "")
    lines.append(["**the fastest peer, times our fastest**", *ratio])
    heads = ["", *(f"{report.of(steps, lookahead=r)[0]['chunk_ms']:.0f} ms" for r in lookaheads)]
    return markdown(heads, lines)


def latency_floor() -> str:
    return report.floor(rows("compare_latency"))


def runs() -> str:
    """Where each file of rows comes from."""
    lines = []
    for name, (question, made) in RUNS.items():
        try:
            found = rows(name)
        except FileNotFoundError:
            lines.append([question, f"`{made}`", "", "", NOT_YET])
            continue
        commits = ", ".join(sorted({row["commit"] for row in found}))
        hardware = "; ".join(sorted({f"{row['cores']} cores of an {row['cpu']}" for row in found}))
        when = max(row["time"] for row in found)[:10]
        lines.append(
            [question, f"`{made}`", commits, f"{hardware}, {when}", f"`results/{name}.jsonl`, {len(found)} rows"]
        )
    return markdown(["question", "command", "commit", "hardware, day", "rows"], lines, left=5)


TABLES: dict[str, Callable[[], str]] = {
    "small-wer": small_wer,
    "small-rest": small_rest,
    "references": references,
    "delays": delays,
    "ablations": ablations,
    "fine-tune": fine_tune,
    "latency": latency,
    "latency-steps": lambda: report.stream_table(rows("compare_latency")),
    "latency-batch": lambda: report.batch_table(rows("compare_latency")),
    "latency-starts": lambda: report.start_table(rows("compare_latency")),
    "latency-floor": latency_floor,
    "runs": runs,
}


def remade(text: str, document: str = "") -> str:
    """A document with its tables made again. Raises ConfigError for a name that is not known."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in TABLES:
            raise ConfigError(f"{document}: {match[2]!r} is none of {', '.join(TABLES)}")
        try:
            table = TABLES[match[2]]()
        except FileNotFoundError:
            table = NOT_YET
        return f"{match[1]}\n{table}\n\n{match[3]}"

    return BLOCK.sub(replace, text)


def command(check: bool = False) -> int:
    """Make the tables and plots of README and the model card from the rows in experiments/results.

    Args:
      check: write nothing, and say what differs.
    """
    code = 0
    for path in DOCUMENTS:
        before = path.read_text()
        after = remade(before, path.name)
        if after != before:
            if check:
                print(f"{path.relative_to(ROOT)} is not what the rows make it", file=sys.stderr)
                code = 1
            else:
                path.write_text(after)
    for name, (draw, path) in PLOTS.items():
        if not check and (RESULTS / f"{name}.jsonl").exists():
            draw(rows(name), path)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return tyro.cli(command, prog="python -m experiments.record", args=arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
