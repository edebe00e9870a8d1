"""Makes the tables and plots in the README, the model card and the record from the rows in `experiments/results`.

    python -m experiments record [--check]

A document marks the place of a table:

    <!-- record: small-wer -->
    <!-- end of record -->

The text between the two lines is replaced, by a note where there are no rows yet. With --check nothing is written. Exit
codes: 0, all tables and plots are up to date; 1, with --check: one is not; 2, a document names an unknown table.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.accuracy import confidence, search_report, study_report, utterance_ends
from experiments.accuracy.report import plot
from experiments.harness.command import ending
from experiments.harness.rows import select
from experiments.latency import report
from experiments.record import draw_cache, tables
from experiments.speed import growth
from nemojax.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "nemojax/small/README.md", ROOT / "experiments/README.md")
PLOTS = {
    "small": (plot, ROOT / "experiments/figures/small.svg"),
    "ablations": (
        lambda rows, path: study_report.plot(select(rows, study="lookahead"), path),
        ROOT / "experiments/figures/accuracy.svg",
    ),
    "utterance_ends": (utterance_ends.plot, ROOT / "experiments/figures/utterance_ends.svg"),
    "confidence": (confidence.plot, ROOT / "experiments/figures/confidence.svg"),
    "search_accuracy": (
        lambda rows, path: search_report.plot(tables.named(tables.without_noise(rows)), path),
        ROOT / "experiments/figures/search.svg",
    ),
    "compare_latency": (report.plot, ROOT / "experiments/figures/latency.svg"),
    "compare_latency_amx": (report.plot, ROOT / "experiments/figures/latency_amx.svg"),
    "cost_growth": (growth.plot, ROOT / "experiments/figures/growth.svg"),
}
ANIMATION = ROOT / "experiments/figures/cache.svg"
BLOCK = re.compile(r"(<!-- record: ([\w-]+) -->\n).*?(<!-- end of record -->)", re.S)


def remade(text: str, document: str = "") -> str:
    """Returns a document with its tables made again. Raises ConfigError for an unknown table."""

    def replace(match: re.Match[str]) -> str:
        if match[2] not in tables.TABLES:
            raise ConfigError(f"{document}: {match[2]!r} is none of {', '.join(tables.TABLES)}")
        try:
            table = tables.TABLES[match[2]]()
        except FileNotFoundError:
            table = tables.NOT_YET
        return f"{match[1]}\n{table}\n\n{match[3]}"

    return BLOCK.sub(replace, text)


def command(check: bool = False) -> int:
    """Make the tables and plots of README and the model card from the rows in experiments/results.

    Args:
      check: write nothing; name what is out of date.
    """
    code = 0
    made = {path: remade(path.read_text(), path.name) for path in DOCUMENTS} | {ANIMATION: draw_cache.draw()}
    for path, after in made.items():
        before = path.read_text() if path.exists() else ""
        if after != before:
            if check:
                print(f"{path.relative_to(ROOT)} is out of date: run `python -m experiments record`", file=sys.stderr)
                code = 1
            else:
                path.write_text(after)
    for name, (draw, path) in PLOTS.items():
        if not check and (tables.RESULTS / f"{name}.jsonl").exists():
            draw(tables.read_rows(name), path)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    return ending(lambda: tyro.cli(command, prog="python -m experiments record", args=arguments))
