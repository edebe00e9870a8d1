"""Makes the tables of the record from rows in `experiments/results`; `record.py` writes them into the documents."""

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.accuracy import confidence, search_report, utterance_ends, word_times
from experiments.gpu import report as gpu_report
from experiments.harness.output import markdown, median_and_range
from experiments.harness.rows import Row, distinct, select
from experiments.latency import report
from experiments.record.runs import RUNS
from experiments.speed import capacity, data, engine_overhead, fusion_cost, growth, roofline, search_cost, versions

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
    "digits_in_any_order": "digit, pause, digit",
    "grid_and_digits": "GRID, pause, digit",
    "festival": "festival, new sentences",
}
# the training run of the small model, by the name of its weights in rows
TRAINING_RUNS = {"third": "third", "fourth": "fourth", "nemojax/small": "fifth"}
SIGNIFICANT = 0.05
NOT_YET = "*Not measured yet.*"


def read_rows(name: str) -> list[Row]:
    """Reads the rows of a file in `experiments/results`."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]


def rate(measure: Row | None) -> str:
    """Returns a rate in percent with its interval."""
    if measure is None or measure["rate"] is None:
        return ""
    interval = "" if measure["low"] is None else f" [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"
    return f"{100 * measure['rate']:.1f}{interval}"


def marked(row: Row) -> str:
    """Returns the WER, with † where it differs significantly from the one that it was compared with."""
    differs = row["p_value"] is not None and row["p_value"] < SIGNIFICANT
    return rate(row["wer"]) + (" †" if differs else "")


def small_wer() -> str:
    """Shows the WER of each set at each look-ahead; † where it differs significantly from the first's."""
    rows = read_rows("small")
    delays = {row["lookahead"]: f"{row['chunk_ms']:.0f} ms" for row in rows}
    lines = []
    for label in distinct(rows, "label"):
        at = {row["lookahead"]: row for row in select(rows, label=label)}
        first = next(iter(at.values()))
        cells = [marked(at[r]) for r in delays]
        lines.append([NAMES[label], f"{first['utterances']}, {first['wer']['reference']}", *cells])
    return markdown(["", "utterances, words", *delays.values()], lines)


def small_rest() -> str:
    """Shows CER, case and punctuation errors at the first look-ahead."""
    rows = read_rows("small")
    lines = [
        [NAMES[row["label"]], *(rate(row[name]) for name in ("cer", "case_error", "punctuation_error"))]
        for row in rows
        if row["lookahead"] == rows[0]["lookahead"]
    ]
    return markdown([f"at {rows[0]['chunk_ms']:.0f} ms", "CER", "case", "punctuation"], lines)


def references() -> str:
    """Shows for how many recordings NeMo and transformers give the same labels as nemojax."""
    rows = read_rows("compare_references")
    lines = []
    for manifest in distinct(rows, "manifest"):
        for reference in distinct(select(rows, manifest=manifest), "reference"):
            group = select(rows, manifest=manifest, reference=reference)
            lookaheads = ", ".join(str(r) for r in distinct(group, "lookahead"))
            total, same, ties = (sum(row[key] for row in group) for key in ("recordings", "identical", "near_ties"))
            name = NAMES[Path(manifest).stem]
            differing = total - same - ties
            lines.append([name, reference, lookaheads, f"{total:,}", f"{same:,}", f"{ties:,}", f"{differing:,}"])
    heads = ["", "reference", "look-aheads", "comparisons", "identical", "near-ties", "different"]
    return markdown(heads, lines)


def fine_tune() -> str:
    """Shows the WER before and after fine-tuning, at each look-ahead."""
    rows = read_rows("fine_tune")
    delays = {row["lookahead"]: f"{row['chunk_ms']:.0f} ms" for row in rows}
    lines = []
    for label in distinct(rows, "label"):
        models = distinct(rows, "model")
        for model, when in zip(models, ("before", "after"), strict=True):
            at = {row["lookahead"]: row for row in select(rows, label=label, model=model)}
            first = next(iter(at.values()))
            words = f"{first['utterances']}, {first['wer']['reference']}"
            lines.append([f"{NAMES[label]}, {when}", words, *(rate(at[r]["wer"]) for r in delays)])
    return markdown(["", "utterances, words", *delays.values()], lines)


def delays() -> str:
    """Shows the delay from a word's end to its text, over all sets, and how often shown text was changed."""
    rows = select(read_rows("ablations"), study="lookahead")
    lines = []
    for condition in distinct(rows, "condition"):
        group = select(rows, condition=condition)
        words = sum(row["delay_ms"]["words"] for row in group)
        mean = sum(row["delay_ms"]["mean"] * row["delay_ms"]["words"] for row in group) / words
        slowest = max(row["delay_ms"]["p90"] for row in group)
        revisions = sum(row["revisions"] for row in group)
        chunk = f"{group[0]['chunk_ms']:.0f} ms"
        lines.append([chunk, f"{words:,}", f"{mean:.0f}", f"{slowest:.0f}", str(revisions)])
    heads = ["chunk", "words", "mean delay, ms", "90th percentile in the worst set, ms", "changes to shown text"]
    return markdown(heads, lines)


def ablations() -> str:
    """Shows the WER of each set under each condition; † where it differs significantly from its study's first."""
    rows = [row for row in read_rows("ablations") if row["study"] != "lookahead"]
    labels, lines = distinct(rows, "label"), []
    for study in distinct(rows, "study"):
        for condition in distinct(select(rows, study=study), "condition"):
            at = {row["label"]: row for row in select(rows, study=study, condition=condition)}
            lines.append([study, condition.replace(",", ", "), *(marked(at[label]) for label in labels)])
    return markdown(["study", "condition", *(NAMES[label] for label in labels)], lines, left=2)


def conditions(*studies: str) -> str:
    """Shows the WER of each set under each condition of some studies, of the weights after each of the last runs."""
    rows = [row for study in studies for row in select(read_rows("conditions"), study=study)]
    labels, lines = distinct(rows, "label"), []
    for condition in distinct(rows, "condition"):
        for model in distinct(rows, "model"):
            at = {row["label"]: row for row in select(rows, condition=condition, model=model)}
            cells = [
                _described(next(iter(at.values()))),
                TRAINING_RUNS[model],
                *(rate(at[label]["wer"]) for label in labels),
            ]
            lines.append(cells)
    return markdown(["condition", "run", *(NAMES[label] for label in labels)], lines, left=2)


def caches() -> str:
    """Shows WER, and labels that differ from float32's, with weights and caches of other types."""
    rows = read_rows("caches")
    lines = []
    for label in distinct(rows, "label"):
        for row in select(rows, label=label):
            kind = "int8" if row["cache"] == "int8" else row["dtype"]
            labels = row["labels"]
            cells = [NAMES[label], f"{row['chunk_ms']:.0f} ms", row["dtype"], kind, rate(row["wer"])]
            lines.append([*cells, f"{labels['total']:,}", str(labels["differing"]), str(labels["recordings"])])
    heads = ["", "chunk", "weights", "keys and values", "WER, %", "labels in float32", "that differ", "in recordings"]
    return markdown(heads, lines, left=4)


def _described(row: Row) -> str:
    """Returns a condition of a recording in words."""
    parts = [f"{row['pause']:g} s of silence between two"] if row["together"] else []
    parts += [f"white noise, {row['snr']:g} dB"] if row["snr"] is not None else []
    parts += ["a telephone line"] if row["telephone"] else []
    parts += [f"{row['level']:+g} dB"] if row["level"] else []
    return ", ".join(parts) or "as recorded"


def times_of_words() -> str:
    """Shows the delays of the times of words, of the weights after each of the last runs."""
    rows = [
        row | {"label": f"{NAMES[row['label']]}, {TRAINING_RUNS[row['model']]} run"} for row in read_rows("word_times")
    ]
    return word_times.table(rows)


def without_noise(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of a search on speech without added noise, and with key words."""
    return [row for row in rows if row["snr"] is None and row["label"] != "librispeech_clean"]


def named(rows: Sequence[Row]) -> list[Row]:
    """Returns rows with the names of their sets as the documents have them."""
    return [row | {"label": NAMES[row["label"]]} for row in rows]


def latency(name: str) -> str:
    """Shows the whole step of each contender at each look-ahead, and the fastest peer's time against ours."""
    rows = read_rows(name)
    steps = select(rows, kind="stream")
    lookaheads = distinct(steps, "lookahead")
    lines = []
    for name in distinct(steps, "contender"):
        group = [select(steps, contender=name, lookahead=r) for r in lookaheads]
        lines.append([name, *(median_and_range([1000 * row["whole"]["p50"] for row in at], "{:.0f}") for at in group)])
    ratio = []
    for r in lookaheads:
        ours, theirs = (report.fastest(rows, r, ours=flag) for flag in (True, False))
        ratio.append(median_and_range(report.ratios(rows, theirs, ours, r), "{:.2f}") if ours and theirs else "")
    lines.append(["**the fastest peer, times our fastest**", *ratio])
    heads = ["", *(f"{select(steps, lookahead=r)[0]['chunk_ms']:.0f} ms" for r in lookaheads)]
    return markdown(heads, lines)


def latency_starts(name: str) -> str:
    """Shows the starts of every contender; where both runs have one, those of the first run."""
    first = read_rows(name)
    started = distinct(select(first, kind="start"), "contender")
    second = [row for row in read_rows(f"{name}_more") if row.get("contender") not in started]
    return report.start_table(first + second)


def latency_tables(name: str) -> dict[str, Callable[[], str]]:
    """Returns the tables of the two runs of `compare_latency` on one machine, by what they show."""
    more = f"{name}_more"
    return {
        "": lambda: latency(name),
        "-steps": lambda: report.stream_table(read_rows(name)),
        "-more": lambda: report.stream_table(read_rows(more)),
        "-batch": lambda: report.batch_table(read_rows(name)),
        "-batch-more": lambda: report.batch_table(read_rows(more)),
        "-starts": lambda: latency_starts(name),
        "-floor": lambda: report.floor(read_rows(name)),
    }


def streams() -> str:
    """Shows the largest number of streams that was served, for each model and look-ahead, and the smallest not."""
    rows = read_rows("benchmark_streams")
    lines = []
    for model, lookahead in dict.fromkeys((row["model"], row["lookahead"]) for row in rows):
        group = select(rows, model=model, lookahead=lookahead)
        served = max((row for row in group if row["served"]), key=lambda row: row["streams"], default=None)
        refused = min((row for row in group if not row["served"]), key=lambda row: row["streams"], default=None)
        name = f"{group[0]['parameters'] / 1e6:.3g}M, {group[0]['dtype']}"
        cells = [
            name,
            f"{group[0]['chunk_ms']:.0f} ms",
            *(str(row["streams"]) if row else "" for row in (served, refused)),
        ]
        cells += [f"{served[p]:.0f}" if served else "" for p in ("p50_ms", "p95_ms", "p99_ms")]
        lines.append([*cells, str(sum(row["differing"] for row in group))])
    heads = ["model", "chunk", "streams served", "not served", "p50, ms", "p95", "p99", "texts that differ"]
    return markdown(heads, lines)


def loss() -> str:
    """Shows milliseconds and memory of each form of the loss, medians over processes with their range."""
    rows = read_rows("benchmark_loss")
    lines = []
    for size, form, which in dict.fromkeys((row["size"], row["form"], row["pass"]) for row in rows):
        group = select(rows, size=size, form=form, **{"pass": which})
        measured = [row for row in group if "skipped" not in row]
        if not measured:
            lines.append([form, which, group[0]["skipped"], ""])
            continue
        peak = statistics.median(row["peak_bytes"] for row in measured) / 2**20
        lines.append(
            [form, which, median_and_range([1000 * row["seconds"] for row in measured], "{:,.0f}"), f"{peak:,.0f}"]
        )
    return markdown(["form", "pass", "ms", "peak, MiB"], lines, left=2)


def hardware_of(row: Row) -> str:
    """Returns the processor of a row; and the card, which earlier rows have in `card`, later ones in `gpus`."""
    cards = row.get("gpus") or [row["card"]] if "gpus" in row or "card" in row else []
    return " with ".join([f"{row['cores']} cores of an {row['cpu']}", *(f"an {card['name']}" for card in cards)])


def runs() -> str:
    """Shows the question, command, commit and hardware of each file of rows."""
    lines = []
    for name, (question, *commands) in RUNS.items():
        made = "; ".join(f"`{command}`" for command in commands)
        try:
            rows = read_rows(name)
        except FileNotFoundError:
            lines.append([question, made, "", "", NOT_YET])
            continue
        commits = ", ".join(sorted({row["commit"] for row in rows}))
        hardware = "; ".join(sorted({hardware_of(row) for row in rows}))
        when = max(row["time"] for row in rows)[:10]
        lines.append([question, made, commits, f"{hardware}, {when}", f"`results/{name}.jsonl`, {len(rows)} rows"])
    return markdown(["question", "command", "commit", "hardware, day", "rows"], lines, left=5)


def of_models(name: str) -> list[Row]:
    """Returns the rows of a file, the large model of `compare_latency` by its size."""
    return [row | {"model": "618M"} if row["model"] == "int8" else row for row in read_rows(name)]


TABLES: dict[str, Callable[[], str]] = {
    "small-wer": small_wer,
    "small-rest": small_rest,
    "references": references,
    "delays": delays,
    "ablations": ablations,
    "caches": caches,
    "fine-tune": fine_tune,
    "word-times": times_of_words,
    "utterance-ends": lambda: utterance_ends.table(named(select(read_rows("utterance_ends"), lookahead=1))),
    "confidence": lambda: confidence.table(named(read_rows("confidence"))),
    "search-beam": lambda: search_report.table(named(read_rows("search_accuracy")), "beam"),
    "search-lm": lambda: search_report.table(named(read_rows("search_accuracy")), "lm_weight"),
    "search-boost": lambda: search_report.table(named(read_rows("search_accuracy")), "boost"),
    "conditions": lambda: conditions("noise", "telephone", "level"),
    "pauses": lambda: conditions("pause"),
    **{f"latency{what}": table for what, table in latency_tables("compare_latency").items()},
    **{f"latency-amx{what}": table for what, table in latency_tables("compare_latency_amx").items()},
    "growth": lambda: growth.table(read_rows("cost_growth")),
    "roofline": lambda: roofline.table(read_rows("roofline")),
    "capacity": lambda: capacity.table(read_rows("capacity")),
    "versions": lambda: versions.table(read_rows("compare_versions")),
    "streams": streams,
    "overhead": lambda: engine_overhead.table(read_rows("engine_overhead")),
    "search-cost": lambda: search_cost.table(of_models("search_cost")),
    "fusion-cost": lambda: fusion_cost.table(of_models("fusion_cost")),
    "gpu": lambda: gpu_report.table(read_rows("gpu")),
    "loss": loss,
    "data": lambda: data.table(read_rows("benchmark_data")),
    "runs": runs,
}
