"""Measures how long after its sound the model emits a word.

    python -m experiments word_times MODEL MANIFEST... [--lookaheads 13 6 1 0]

The times of words come from the manifest (`words`, a list of [word, start, end] in seconds), such as that of
`python -m experiments synthesis --programs festival --words`. A recording without them must be one word, such as a
digit, so that its sound needs no alignment: it begins with the first 10 ms, and ends with the last, whose energy is at
most 20 dB below that of the loudest. The model transcribes the recording between two seconds of silence. Words that are
not recognized are left out. A table goes to standard output; a row for each manifest and look-ahead is appended to a
file of JSON lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro
from rapidfuzz.distance import Levenshtein

from experiments.accuracy.scoring import PACKAGES, EvaluationSet, read_sets
from experiments.harness import checks
from experiments.harness.experiment import Experiment
from experiments.harness.output import markdown
from experiments.harness.rows import Row, Rows
from nemojax.audio.manifest import Manifest
from nemojax.audio.source import Recording, open_audio
from nemojax.errors import AudioError, ConfigError
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


class SpokenWord(NamedTuple):
    """A word, in the form of `plain`, with the times of its sound in seconds from the recording's beginning."""

    word: str
    begin_s: float
    end_s: float


class Delay(NamedTuple):
    """How long after a word's sound its times are, in seconds."""

    start_s: float  # from the sound's begin to the emission of the word's first label
    end_s: float  # from the sound's end to the end of the frame of the word's last label
    start_after_end_s: float  # from the sound's end to the emission of the word's first label


def delays(
    recognizer: "Recognizer", evaluation_set: EvaluationSet, lookahead: int, settings: Settings, rows: Rows
) -> tuple[list[Delay], int]:
    """Returns the delays of the recognized words, and the number of all words."""
    silence = np.zeros(int(SILENCE_S * RATE_HZ), np.float32)
    given = aligned(evaluation_set.path)
    spoken: list[list[SpokenWord]] = []
    padded = []
    for entry in evaluation_set.entries:
        try:
            if isinstance(entry, AudioError):
                raise entry
            samples = _read(entry)
            spoken.append(given.get(entry.name) or [_one_word(entry, samples, settings.range_db)])
        except AudioError as error:
            rows.report(error)
            continue
        padded.append(np.concatenate([silence, samples, silence]))
    found = []
    transcripts = recognizer.transcribe(padded, lookahead, settings.batch_size) if padded else []
    assert isinstance(transcripts, list)
    for words, transcript in zip(spoken, transcripts, strict=True):
        shown = [(plain(one.text), one) for one in transcript.words if plain(one.text)]
        for block in Levenshtein.opcodes([word.word for word in words], [word for word, _ in shown]):
            if block.tag == "equal":
                here = words[block.src_start : block.src_end], shown[block.dest_start : block.dest_end]
                for word, (_, timed) in zip(*here, strict=True):
                    start_s, end_s = timed.start_s - SILENCE_S, timed.end_s - SILENCE_S
                    found.append(Delay(start_s - word.begin_s, end_s - word.end_s, start_s - word.end_s))
    return found, sum(map(len, spoken))


def aligned(path: Path) -> dict[str, list[SpokenWord]]:
    """Returns the words of a manifest's recordings by name, where it has their times. Raises ConfigError."""
    found = {}
    for request in Manifest(path).requests() if path.is_file() else ():
        if (words := request.keys.get("words")) is None or isinstance(request.recording, AudioError):
            continue
        try:
            found[request.recording.name] = [SpokenWord(plain(str(w)), float(b), float(e)) for w, b, e in words]
        except (TypeError, ValueError):
            raise ConfigError(
                f"{path}: line {request.number}: `words` must be a list of [word, start, end], not {str(words)[:60]!r}"
            ) from None
    return found


def _one_word(entry: Recording, samples: np.ndarray, range_db: float) -> SpokenWord:
    word = plain(entry.text or "")
    if len(word.split()) != 1:
        raise AudioError(f"{entry.name}: its text must be one word, or its line have `words`, not {entry.text!r}")
    return SpokenWord(word, *sound_bounds(samples, range_db))


def _read(entry: Recording) -> np.ndarray:
    audio = open_audio(entry)
    try:
        samples = audio.read(LONGEST_S * RATE_HZ)
    finally:
        audio.close()
    if len(samples) < HOP_SAMPLES:
        raise AudioError(f"{entry.name}: it is shorter than 10 ms")
    return samples


def table(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        cells = [row["label"], f"{row['chunk_ms']:.0f} ms", f"{row['words']:,} of {row['spoken']:,}"]
        for name in ("start_delay_s", "end_delay_s", "start_after_end_s"):
            low, median, high = row[name]
            cells.append(f"{median:.2f} [{low:.2f}, {high:.2f}] s")
        lines.append(cells)
    header = ["", "chunk", "words", "start after the sound's", "end after the sound's", "start after the sound's end"]
    return markdown(header, lines)


def measure(settings: Settings, rows: Rows) -> None:
    from nemojax.recognition.recognizer import load

    recognizer = load(settings.model)
    for evaluation_set in read_sets(settings.manifests, settings.limit, with_speakers=False):
        for lookahead in settings.lookaheads or recognizer.config.encoder.lookaheads:
            found, spoken = delays(recognizer, evaluation_set, recognizer.lookahead(lookahead), settings, rows)
            if not found:
                rows.report(f"{evaluation_set.path}: no word was recognized at look-ahead {lookahead}")
                continue
            start, end, start_after_end = np.percentile(np.array(found), PERCENTILES, axis=0).round(3).T.tolist()
            rows.add(
                {
                    "model": str(settings.model),
                    "label": evaluation_set.label,
                    "lookahead": lookahead,
                    "chunk_ms": recognizer.config.chunk_ms(lookahead),
                    "range_db": settings.range_db,
                    "recordings": len(evaluation_set.entries),
                    "spoken": spoken,
                    "words": len(found),
                    "percentiles": PERCENTILES,
                    "start_delay_s": start,
                    "end_delay_s": end,
                    "start_after_end_s": start_after_end,
                }
            )


EXPERIMENT = Experiment("word_times", Settings, measure, __doc__, table, packages=PACKAGES)
main = EXPERIMENT.main
