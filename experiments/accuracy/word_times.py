"""Measures how long after its sound the model emits a word.

    python -m experiments word_times MODEL MANIFEST... [--lookaheads 13 6 1 0]

Each recording must be one word, such as a digit, so that its sound needs no alignment: it begins with the first 10 ms,
and ends with the last, whose energy is at most 20 dB below that of the loudest. The model transcribes the recording
between two seconds of silence. Words that are not recognized are left out. A table goes to standard output; a row for
each manifest and look-ahead is appended to a file of JSON lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from experiments.accuracy.scoring import PACKAGES, EvaluationSet, read_sets
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from nemojax.audio.source import Recording, open_audio
from nemojax.errors import AudioError
from nemojax.metrics import plain

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

RATE_HZ = 16_000
HOP_SAMPLES = 160
SILENCE_S = 1.0  # before and after a word
LONGEST_S = 60  # of a recording of one word
PERCENTILES = (5, 50, 95)


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at."""
    range_db: float = 20.0
    """How far below the loudest 10 ms a sound begins and ends."""
    limit: int | None = None
    """Maximum number of recordings of each manifest, spread evenly over it."""
    batch_size: int = 16
    """Recordings side by side."""
    output: Path = Path("word_times.jsonl")
    """Rows are appended to this file."""

    def check(self) -> None:
        checks.check_manifests(self.manifests)
        checks.at_least(1, self, "limit", "batch_size")


def sound_bounds(samples: np.ndarray, range_db: float) -> tuple[float, float]:
    """Returns the beginning and the end of the sound in seconds; samples are [N] at 16 kHz, at least 10 ms."""
    hops = samples[: len(samples) // HOP_SAMPLES * HOP_SAMPLES].reshape(-1, HOP_SAMPLES)
    energy = np.square(hops, dtype=np.float64).sum(1)
    loud = np.flatnonzero(energy >= energy.max() * 10 ** (-range_db / 10))
    hop_s = HOP_SAMPLES / RATE_HZ
    return float(loud[0]) * hop_s, float(loud[-1] + 1) * hop_s


def delays(
    recognizer: "Recognizer", evaluation_set: EvaluationSet, lookahead: int, settings: Settings, rows: Rows
) -> list[tuple[float, float]]:
    """Returns, for each recognized word, how long after its sound begins and ends its times do, in seconds."""
    silence = np.zeros(int(SILENCE_S * RATE_HZ), np.float32)
    words, bounds, padded = [], [], []
    for entry in evaluation_set.entries:
        try:
            if isinstance(entry, AudioError):
                raise entry
            samples, word = _read(entry)
        except AudioError as error:
            rows.report(error)
            continue
        words.append(word)
        bounds.append(sound_bounds(samples, settings.range_db))
        padded.append(np.concatenate([silence, samples, silence]))
    found = []
    transcripts = recognizer.transcribe(padded, lookahead, settings.batch_size) if padded else []
    assert isinstance(transcripts, list)
    for word, (begin_s, end_s), transcript in zip(words, bounds, transcripts, strict=True):
        if [plain(one.text) for one in transcript.words] == [word]:
            (timed,) = transcript.words
            found.append((timed.start_s - SILENCE_S - begin_s, timed.end_s - SILENCE_S - end_s))
    return found


def _read(entry: Recording) -> tuple[np.ndarray, str]:
    word = plain(entry.text or "")
    if len(word.split()) != 1:
        raise AudioError(f"{entry.name}: its text must be one word, not {entry.text!r}")
    audio = open_audio(entry)
    try:
        samples = audio.read(LONGEST_S * RATE_HZ)
    finally:
        audio.close()
    if len(samples) < HOP_SAMPLES:
        raise AudioError(f"{entry.name}: it is shorter than 10 ms")
    return samples, word


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cells = [row["label"], f"{row['chunk_ms']:.0f} ms", f"{row['words']} of {row['recordings']}"]
        for name in ("start_delay_s", "end_delay_s"):
            low, median, high = row[name]
            cells.append(f"{median:.2f} [{low:.2f}, {high:.2f}] s")
        lines.append(cells)
    header = ["", "chunk", "words", "start after the sound's", "end after the sound's"]
    return markdown(header, lines)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    for evaluation_set in read_sets(settings.manifests, settings.limit, with_speakers=False):
        for lookahead in settings.lookaheads or recognizer.config.encoder.lookaheads:
            found = delays(recognizer, evaluation_set, recognizer.lookahead(lookahead), settings, rows)
            if not found:
                rows.report(f"{evaluation_set.path}: no word was recognized at look-ahead {lookahead}")
                continue
            start, end = np.percentile(np.array(found), PERCENTILES, axis=0).round(3).T.tolist()
            rows.add(
                {
                    "model": str(settings.model),
                    "label": evaluation_set.label,
                    "lookahead": lookahead,
                    "chunk_ms": recognizer.config.chunk_ms(lookahead),
                    "range_db": settings.range_db,
                    "recordings": len(evaluation_set.entries),
                    "words": len(found),
                    "percentiles": PERCENTILES,
                    "start_delay_s": start,
                    "end_delay_s": end,
                }
            )


EXPERIMENT = Experiment("word_times", Settings, measure, __doc__, table, packages=PACKAGES)
main = EXPERIMENT.main
