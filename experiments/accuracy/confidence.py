"""Measures how well the confidence of a word tells whether it is right.

    python -m experiments confidence MODEL MANIFEST... [--measures tsallis gibbs,lin] [--plot confidence.svg]

A word of a transcript is right where an alignment of least errors with the reference has it. For each measure: the area
under the ROC curve, which is the probability that a right word has more confidence than a wrong one; the expected
calibration error over ten bins of equal width (Guo et al. 2017, arXiv 1706.04599); and in each bin the mean confidence
and the share of words that are right, which the plot shows. A table goes to standard output; a row for each manifest
and measure is appended to a file of JSON lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro
from rapidfuzz.distance import Levenshtein

from experiments.accuracy.scoring import PACKAGES, EvaluationSet, read_sets, transcribe
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import drawing, markdown
from experiments.harness.rows import Row, Rows
from nemojax.errors import AudioError
from nemojax.metrics import plain
from nemojax.text.transcript import Word

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

BINS = 10


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    measures: tuple[str, ...] = (
        "probability",
        "probability,prod",
        "max_prob",
        "gibbs",
        "tsallis",
        "tsallis,lin",
        "tsallis,mean",
        "renyi",
    )
    """Measures, as `nemojax transcribe --confidence` takes them."""
    lookahead: int | None = None
    """In encoder frames; by default the model's."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    batch_size: int = 16
    """Recordings side by side."""
    output: Path = Path("confidence.jsonl")
    """Rows are appended to this file."""
    plot: Path | None = None
    """Reliability: the share of right words over the confidence; svg, png or pdf by its name."""

    def check(self) -> None:
        from nemojax.decoding.confidence import Confidence

        checks.check_manifests(self.manifests)
        checks.at_least(1, self, "limit", "batch_size")
        for measure in self.measures:
            Confidence.parse(measure)


class Judged(NamedTuple):
    """Words of transcripts: their confidences, and whether they are right."""

    confidence: np.ndarray  # [words]
    right: np.ndarray  # bool [words]


def judged(reference: str, words: Sequence[Word]) -> list[tuple[float, bool]]:
    """Returns the confidence of each word of a transcript, and whether it is right."""
    shown = [(text, word.confidence) for word in words for text in plain(word.text).split()]
    right = np.zeros(len(shown), bool)
    for block in Levenshtein.opcodes(plain(reference).split(), [text for text, _ in shown]):
        if block.tag == "equal":
            right[block.dest_start : block.dest_end] = True
    return [(confidence, bool(is_right)) for (_, confidence), is_right in zip(shown, right, strict=True)]


def roc_area(found: Judged) -> float | None:
    """Returns the probability that a right word has more confidence than a wrong one, a tie counting half."""
    right, wrong = found.confidence[found.right], np.sort(found.confidence[~found.right])
    if not len(right) or not len(wrong):
        return None
    below, up_to = (np.searchsorted(wrong, right, side=side).sum() for side in ("left", "right"))
    return float((below + up_to) / (2 * len(right) * len(wrong)))


def reliability(found: Judged) -> list[tuple[int, float, float]]:
    """Returns for each bin: the number of its words, their mean confidence, the share that is right."""
    place = np.minimum((found.confidence * BINS).astype(int), BINS - 1)
    bins = [place == index for index in range(BINS)]
    mean = lambda values: round(float(values.mean()), 4) if len(values) else 0.0
    return [(int(chosen.sum()), mean(found.confidence[chosen]), mean(found.right[chosen])) for chosen in bins]


def calibration_error(bins: Sequence[tuple[int, float, float]]) -> float:
    """Returns the mean difference between confidence and share of right words, weighted by the words of bins."""
    total = sum(count for count, *_ in bins)
    return sum(count * abs(confidence - right) for count, confidence, right in bins) / max(total, 1)


def words_of(
    recognizer: "Recognizer", evaluation_set: EvaluationSet, lookahead: int, batch_size: int, rows: Rows
) -> Judged:
    """Transcribes a set; returns its words."""
    found: list[tuple[float, bool]] = []
    entries = evaluation_set.entries
    for index, result in sorted(transcribe(recognizer, entries, lookahead, batch_size, stream=False).items()):
        entry = entries[index]
        if isinstance(result, AudioError) or isinstance(entry, AudioError):
            rows.report(str(result))
        else:
            found += judged(entry.text or "", result.words)
    confidence, right = zip(*found, strict=True) if found else ((), ())
    return Judged(np.array(confidence, np.float64), np.array(right, bool))


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    lookahead = recognizer.lookahead(settings.lookahead)
    for evaluation_set in read_sets(settings.manifests, settings.limit, with_speakers=False):
        for name in settings.measures:
            measured = recognizer.with_confidence(name)
            found = words_of(measured, evaluation_set, lookahead, settings.batch_size, rows)
            if not len(found.right):
                rows.report(f"{evaluation_set.path}: no word was recognized")
                break
            bins, area = reliability(found), roc_area(found)
            rows.add(
                {
                    "model": str(settings.model),
                    "label": evaluation_set.label,
                    "lookahead": lookahead,
                    "chunk_ms": recognizer.config.chunk_ms(lookahead),
                    "measure": name,
                    "recordings": len(evaluation_set.entries),
                    "words": len(found.right),
                    "wrong": int((~found.right).sum()),
                    "roc_area": None if area is None else round(area, 4),
                    "calibration_error": round(calibration_error(bins), 4),
                    "bins": bins,
                }
            )


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        area = "" if row["roc_area"] is None else f"{row['roc_area']:.3f}"
        words = f"{row['wrong']:,} of {row['words']:,}"
        lines.append([row["label"], row["measure"], words, area, f"{row['calibration_error']:.3f}"])
    return markdown(["", "measure", "wrong words", "area under the ROC curve", "calibration error"], lines, left=2)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots the share of right words over the confidence, a panel for each manifest."""
    names = list(dict.fromkeys(row["label"] for row in rows))
    with drawing(path, 3.2 * len(names) + 2, 3.4) as figure:
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
            for row in (row for row in rows if row["label"] == name):
                points = [(confidence, right) for count, confidence, right in row["bins"] if count]
                axes.plot(*zip(*points, strict=True), ".-", label=row["measure"] if name == names[0] else None)
            axes.set_title(name)
            axes.set_xlabel("confidence")
            axes.set_ylim(0, 1)
        panels[0].set_ylabel("share of right words")
        figure.legend(loc="outside right upper")


EXPERIMENT = Experiment("confidence", Settings, measure, __doc__, table, plot, packages=PACKAGES)
main = EXPERIMENT.main
