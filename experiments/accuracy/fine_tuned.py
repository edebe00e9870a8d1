"""Compares a model before and after fine-tuning: what it learned on new data, and what it forgot of the old.

    python -m experiments compare_fine_tuned BEFORE AFTER --new new.jsonl... --old old.jsonl... [--lookaheads 13 0]

Both models transcribe the same recordings, and are compared by a paired bootstrap. A difference whose interval does not
hold 0 is `better` or `worse`, and on old data `forgotten`. A table goes to standard output; a row for each manifest and
look-ahead is appended to a file of JSON lines. Recordings that can't be read are named on standard error.

Exit codes: 0, all done; 1, some recordings could not be scored; 2, the command or a model is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.accuracy import evaluate
from experiments.accuracy.report import MEASURES, significance
from experiments.accuracy.scoring import PACKAGES, Scored, check_scoring, read_sets
from experiments.harness import checks
from experiments.harness.experiment import Experiment, Flag
from experiments.harness.machine import device
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from nemojax import metrics
from nemojax.errors import ConfigError

NEW, OLD = "new", "old"


@dataclass(frozen=True)
class Settings:
    before: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="BEFORE")]]
    """The checkpoint that was fine-tuned, or a name on the hub."""
    after: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="AFTER")]]
    """The checkpoint after it, such as RUN/model."""
    new: tuple[Path, ...] = ()
    """Manifests of what the model was fine-tuned to, which it was not trained on."""
    old: tuple[Path, ...] = ()
    """Manifests of what the model knew before."""
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    stream: Flag = False
    """Transcribe one recording at a time, chunk by chunk, as if live; by default several side by side."""
    normalizer: Literal["none", "plain", "whisper"] = "plain"
    """The form in which words are compared."""
    output: Path = Path("fine_tuned.jsonl")
    """Rows are appended to this file."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    batch_size: int = 16
    """Recordings side by side; 1 with --stream."""
    draw: Literal["utterances", "speakers"] = "utterances"
    """What the bootstrap draws: utterances, or all of a speaker's together (the manifest's `speaker`)."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 2000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    @property
    def manifests(self) -> tuple[Path, ...]:
        return (*self.new, *self.old)

    def check(self) -> None:
        if not self.manifests:
            raise ConfigError("name manifests with --new and --old")
        if twice := set(self.new) & set(self.old):
            raise ConfigError(f"{min(twice)} can't be both new and old; name it once")
        check_scoring(self)
        checks.at_least(1, self, "batch_size")
        metrics.normalizer(self.normalizer)

    def of_model(self, model: Path) -> evaluate.Settings:
        """Returns the settings of an evaluation of one of the models."""
        names = ("lookaheads", "stream", "normalizer", "limit", "batch_size", "draw", "confidence", "resamples", "seed")
        return evaluate.Settings(model, self.manifests, **{name: getattr(self, name) for name in names})


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    sets = read_sets(settings.manifests, settings.limit, with_speakers=settings.draw == "speakers")
    found: dict[tuple[Path, int], tuple[Row, list[Scored]]] = {}
    for model in (settings.before, settings.after):
        recognizer, one = load(model), settings.of_model(model)
        requested = settings.lookaheads or recognizer.config.encoder.lookaheads
        for evaluation_set in sets:
            for lookahead in (recognizer.lookahead(value) for value in dict.fromkeys(requested)):
                report = rows.report if model == settings.before else lambda error: None  # each recording once
                row, scored = evaluate.measure_set(recognizer, evaluation_set, lookahead, one, report)
                key = evaluation_set.path, lookahead
                if model == settings.before:
                    found[key] = row, scored
                elif key in found:
                    bootstrap = evaluate.bootstrap(one, evaluation_set)
                    compared = significance(found[key][1], scored, bootstrap)
                    domain = NEW if evaluation_set.path in settings.new else OLD
                    rows.add({**_both(settings, found[key][0], row), "domain": domain, **compared, "device": device()})
        del recognizer  # the memory of one model is free before the other is loaded


def _both(settings: Settings, before: Row, after: Row) -> Row:
    """Returns a row with the measures of both models, and what they share."""
    different = {"model", "parameters", "real_time_factor", *MEASURES}
    shared = {name: value for name, value in after.items() if name not in different}
    measures = {when: {name: row[name] for name in MEASURES} for when, row in (("before", before), ("after", after))}
    return {"model_before": str(settings.before), "model_after": str(settings.after), **shared, **measures}


def verdict(row: Row) -> str:
    """Returns what a difference means: beyond chance where its interval does not hold 0."""
    low, high = row["wer_difference"]["low"], row["wer_difference"]["high"]
    if low is None or low <= 0 <= high:
        return "no difference beyond chance"
    return "better" if high < 0 else "worse" if row["domain"] == NEW else "forgotten"


def table(rows: Sequence[Row]) -> str:
    """Shows WER in percent before and after, and the difference in points with its interval."""
    confidence = f"{100 * rows[0]['confidence']:g} %"
    heads = ["domain", "manifest", "look-ahead", "utterances", "words", "WER before, %", "WER after, %"]
    heads += [f"difference, points [{confidence}]", "p", ""]
    lines = []
    for row in sorted(rows, key=lambda row: row["domain"] != NEW):
        difference, rates = row["wer_difference"], [row[when]["wer"]["rate"] for when in ("before", "after")]
        shown = "" if difference["rate"] is None else f"{100 * difference['rate']:+.2f}"
        if difference["low"] is not None:
            shown += f" [{100 * difference['low']:+.2f}, {100 * difference['high']:+.2f}]"
        cells = [row["domain"], row["label"], str(row["lookahead"]), str(row["utterances"])]
        cells.append(str(row["after"]["wer"]["reference"]))
        cells += ["" if rate is None else f"{100 * rate:.2f}" for rate in rates]
        lines.append([*cells, shown, "" if row["p_value"] is None else f"{row['p_value']:.3f}", verdict(row)])
    return markdown(heads, lines, left=2)


EXPERIMENT = Experiment("compare_fine_tuned", Settings, measure, __doc__, table, packages=PACKAGES)
main = EXPERIMENT.main
