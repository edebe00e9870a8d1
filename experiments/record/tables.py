"""The tables of the record, each made of rows in `experiments/results`; `record.py` puts them where they are quoted."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.harness.output import markdown
from experiments.latency import report
from experiments.speed import data, engine_overhead, roofline
from experiments.speed import growth as cost_growth

RESULTS = Path(__file__).parents[1] / "results"
NAMES = {
    "grid": "GRID dev",
    "fsdd": "digits dev",
    "synthetic_dev": "synthetic, new sentences",
    "synthetic_fresh": "synthetic, 400 made afterwards",
    "synthetic_new_voice": "synthetic, new sentences and voices",
    "ljspeech": "LJ Speech dev",
    "librispeech_clean": "LibriSpeech dev",
    "librispeech_other": "LibriSpeech test-other",
    "kept": "the new speaker",
}
LATENCY = (
    "python -m experiments compare_latency WORK --manifests MANIFEST --repeats 3 --steps 12 --seconds 14 "
    "--batch-seconds 30 2 5 --starts 2 --contenders"
)
RUNS = {  # by the name of their rows' file: the question, and the commands that answer it
    "small": (
        "How often is the small model wrong, on held-out speech?",
        "python -m experiments evaluate nemojax/small MANIFEST... --stream",
    ),
    "compare_references": (
        "Do NeMo and transformers say the same on its weights?",
        "python -m experiments compare_references nemojax/small MANIFEST...",
    ),
    "ablations": ("On what does its accuracy depend?", "experiments/recipes/ablations.sh SPEECH OUT"),
    "fine_tune": ("Does it learn a new speaker?", "experiments/recipes/fine_tune.sh SPEECH OUT"),
    "compare_latency": (
        "How long does a step take, here and in the peers?",
        f"{LATENCY} 'nemojax float32' 'nemojax int8' 'transformers float32' 'transformers bfloat16' "
        "'onnxruntime int8' 'sherpa-onnx int8'",
    ),
    "compare_latency_more": (
        "And in NeMo, in bfloat16, and in float32 graphs?",
        f"{LATENCY} 'nemojax float32' 'nemojax bfloat16' 'nemojax int8' 'NeMo float32' "
        "'onnxruntime float32' 'sherpa-onnx float32'",
    ),
    "cost_growth": (
        "How does a step's cost grow?",
        "python -m experiments cost_growth --dtype int8",
    ),
    "benchmark_streams": (
        "How many live streams do two cores serve?",
        "python -m experiments benchmark_streams nemojax/small MANIFEST --lookaheads 6 0 --dtype float32 --seconds 10",
        "python -m experiments benchmark_streams WORK/int8 MANIFEST --lookaheads 13 6 1 --dtype int8 --first 2 "
        "--most 64 --voices 4 --seconds 10",
    ),
    "engine_overhead": (
        "How many chunks a second does the engine's own work allow?",
        "python -m experiments engine_overhead",
    ),
    "roofline": ("What would a GPU have to do?", "python -m experiments roofline"),
    "benchmark_loss": (
        "What does the loss cost, beside other ways to compute it?",
        "python -m experiments benchmark_loss --sizes medium",
    ),
    "benchmark_data": ("Does data keep up with training?", "python -m experiments benchmark_data MANIFEST..."),
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


def latency_starts() -> str:
    """Of every contender: of those of the first run, what was measured there."""
    first = rows("compare_latency")
    there = unique(report.of(first, kind="start"), "contender")
    return report.start_table(
        first + [row for row in rows("compare_latency_more") if row.get("contender") not in there]
    )


def streams() -> str:
    """The most live streams that were served, for each model and look-ahead, and the fewest that were not."""
    found = rows("benchmark_streams")
    lines = []
    for model, lookahead in dict.fromkeys((row["model"], row["lookahead"]) for row in found):
        here = report.of(found, model=model, lookahead=lookahead)
        served = max((row for row in here if row["served"]), key=lambda row: row["streams"], default=None)
        refused = min((row for row in here if not row["served"]), key=lambda row: row["streams"], default=None)
        name = f"{here[0]['parameters'] / 1e6:.3g}M, {here[0]['dtype']}"
        cells = [
            name,
            f"{here[0]['chunk_ms']:.0f} ms",
            *(str(row["streams"]) if row else "" for row in (served, refused)),
        ]
        cells += [f"{served[p]:.0f}" if served else "" for p in ("p50_ms", "p95_ms", "p99_ms")]
        lines.append([*cells, str(sum(row["differing"] for row in here))])
    heads = ["model", "chunk", "streams served", "not served", "p50, ms", "p95", "p99", "texts that differ"]
    return markdown(heads, lines)


def loss() -> str:
    """Milliseconds and memory of each form of the loss, medians over processes with their range."""
    found = rows("benchmark_loss")
    lines = []
    for size, form, which in dict.fromkeys((row["size"], row["form"], row["pass"]) for row in found):
        here = [row for row in report.of(found, size=size, form=form) if row["pass"] == which]
        measured = [row for row in here if "skipped" not in row]
        if not measured:
            lines.append([form, which, here[0]["skipped"], ""])
            continue
        peak = statistics.median(row["peak_bytes"] for row in measured) / 2**20
        lines.append(
            [form, which, report.spread([1000 * row["seconds"] for row in measured], "{:,.0f}"), f"{peak:,.0f}"]
        )
    return markdown(["form", "pass", "ms", "peak, MiB"], lines, left=2)


def runs() -> str:
    """Where each file of rows comes from."""
    lines = []
    for name, (question, *commands) in RUNS.items():
        made = "; ".join(f"`{command}`" for command in commands)
        try:
            found = rows(name)
        except FileNotFoundError:
            lines.append([question, made, "", "", NOT_YET])
            continue
        commits = ", ".join(sorted({row["commit"] for row in found}))
        hardware = "; ".join(sorted({f"{row['cores']} cores of an {row['cpu']}" for row in found}))
        when = max(row["time"] for row in found)[:10]
        lines.append([question, made, commits, f"{hardware}, {when}", f"`results/{name}.jsonl`, {len(found)} rows"])
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
    "latency-more": lambda: report.stream_table(rows("compare_latency_more")),
    "latency-batch": lambda: report.batch_table(rows("compare_latency")),
    "latency-batch-more": lambda: report.batch_table(rows("compare_latency_more")),
    "latency-starts": latency_starts,
    "latency-floor": latency_floor,
    "growth": lambda: cost_growth.table(rows("cost_growth")),
    "roofline": lambda: roofline.table(rows("roofline")),
    "streams": streams,
    "overhead": lambda: engine_overhead.table(rows("engine_overhead")),
    "loss": loss,
    "data": lambda: data.table(rows("benchmark_data")),
    "runs": runs,
}
