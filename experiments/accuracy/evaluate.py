"""Measures how accurate a model is on manifests at each look-ahead: error rates, intervals, speed.

    python -m experiments evaluate MODEL MANIFEST... [--lookaheads 13 6 1 0] [--stream] [--plot accuracy.svg]

Words and characters are scored in plain text by default. Case and punctuation are scored apart, on manifests whose
references have them. Intervals are bootstrapped, and each look-ahead is compared with the first on the same utterances
(`nemojax.metrics`). The real-time factor is the time from files to text, after compilation, divided by the duration of
the audio. A table goes to standard output; a row for each manifest and look-ahead is appended to a file of JSON lines.
Recordings that can't be read are named on standard error.

Exit codes: 0, all done; 1, some recordings could not be scored; 2, the command or the model is wrong.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from experiments.accuracy.report import Bootstrap, measures, plot, significance, table
from experiments.accuracy.scoring import (
    PACKAGES,
    EvaluationSet,
    Scored,
    check_scoring,
    read_sets,
    score,
    transcribe,
    with_text,
)
from experiments.harness import checks
from experiments.harness.experiment import Experiment, Flag
from experiments.harness.machine import device
from experiments.harness.output import open_for_writing
from experiments.harness.rows import Row, Rows, write_line
from nemojax import metrics
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.metrics import ErrorCounts
from nemojax.progress import AudioBar

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at. The others are compared with the first."""
    stream: Flag = False
    """Transcribe one recording at a time, chunk by chunk, as if live; by default several side by side."""
    normalizer: Annotated[Literal["none", "plain", "whisper"], tyro.conf.arg(aliases=["--normaliser"])] = "plain"
    """The form in which words and characters are compared."""
    output: Path = Path("evaluate.jsonl")
    """Rows are appended to this file."""
    utterances: Path | None = None
    """JSON lines of every reference and hypothesis; an existing file is replaced."""
    plot: Path | None = None
    """WER against delay; svg, png or pdf by its name."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    batch_size: int = 16
    """Recordings side by side; 1 with --stream."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of the weights."""
    draw: Literal["utterances", "speakers"] = "utterances"
    """What the bootstrap draws: utterances, or all of a speaker's together (the manifest's `speaker`)."""
    confidence: float = 0.95
    """Of the intervals."""
    resamples: int = 2000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    def check(self) -> None:
        check_scoring(self)
        checks.at_least(1, self, "batch_size")
        metrics.normalizer(self.normalizer)  # a missing package is an error now, not after hours of transcribing


def warm_up(recognizer: "Recognizer", evaluation_set: EvaluationSet, lookahead: int, settings: Settings) -> None:
    """Compiles what the set's first batch needs."""
    if settings.stream:
        stream = recognizer.stream(lookahead)
        stream.push(np.zeros(stream.chunk_samples, np.float32))
        return
    readable = [entry for entry in evaluation_set.entries if isinstance(with_text(entry), Recording)]
    transcribe(recognizer, readable[: settings.batch_size], lookahead, settings.batch_size, stream=False)


def measure_set(
    recognizer: "Recognizer",
    evaluation_set: EvaluationSet,
    lookahead: int,
    settings: Settings,
    report: Callable[[AudioError], object],
) -> tuple[Row, list[Scored]]:
    """Returns the row of a set at a look-ahead, without its comparison, and the utterances that it sums up."""
    warm_up(recognizer, evaluation_set, lookahead, settings)
    entries = evaluation_set.entries
    with AudioBar(f"{evaluation_set.label}, look-ahead {lookahead}") as bar:
        begin = time.perf_counter()
        results = transcribe(recognizer, entries, lookahead, settings.batch_size, settings.stream, bar.update)
        seconds = time.perf_counter() - begin
    scored = score(entries, results, metrics.normalizer(settings.normalizer), report)
    audio_s = math.fsum(utterance.duration_s for utterance in scored)
    row = {
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "manifest": str(evaluation_set.path),
        "label": evaluation_set.label,
        "lookahead": lookahead,
        "chunk_ms": recognizer.config.chunk_ms(lookahead),
        "mode": "stream" if settings.stream else "offline",
        "batch_size": 1 if settings.stream else settings.batch_size,
        "normaliser": settings.normalizer,  # spelled as in earlier rows
        "utterances": len(scored),
        "failed": len(entries) - len(scored),
        "audio_s": round(audio_s, 3),
        "real_time_factor": round(seconds / audio_s, 5) if audio_s else None,
        **{name: getattr(settings, name) for name in ("limit", "draw", "confidence", "resamples")},
        **measures(scored, bootstrap(settings, evaluation_set)),
    }
    return row, scored


def bootstrap(settings: Settings, evaluation_set: EvaluationSet) -> Bootstrap:
    return Bootstrap(settings.confidence, settings.resamples, settings.seed, evaluation_set.speakers)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    sets = read_sets(settings.manifests, settings.limit, with_speakers=settings.draw == "speakers")
    recognizer = load(settings.model, settings.dtype)
    requested = settings.lookaheads or recognizer.config.encoder.lookaheads
    lookaheads = [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(requested)]
    with open_for_writing(settings.utterances, "w") if settings.utterances else nullcontext() as utterances:
        for evaluation_set in sets:
            first: list[Scored] = []
            for lookahead in lookaheads:
                row, scored = measure_set(recognizer, evaluation_set, lookahead, settings, rows.report)
                first = scored if lookahead == lookaheads[0] else first
                row |= {"against": lookaheads[0], **significance(first, scored, bootstrap(settings, evaluation_set))}
                rows.add({**row, "device": device()})
                for utterance in scored if utterances else ():
                    counts = {name: _plain(value) for name, value in utterance._asdict().items()}
                    assert utterances is not None
                    write_line(utterances, {"manifest": str(evaluation_set.path), "lookahead": lookahead, **counts})


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, ErrorCounts) else value


EXPERIMENT = Experiment("evaluate", Settings, measure, __doc__, table, plot, PACKAGES)
main = EXPERIMENT.main
