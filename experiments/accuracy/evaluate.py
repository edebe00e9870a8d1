"""How accurate a model is on some manifests, at each look-ahead: rates, intervals, speed.

    python -m experiments evaluate MODEL MANIFEST... [--lookaheads 13 6 1 0] [--stream] [--plot accuracy.svg]

Words and characters are scored in plain text by default; case and punctuation are scored apart, on manifests
whose references have them. Intervals are bootstrapped, and each look-ahead is compared with the first on the
same utterances (`nemojax.metrics`). The real-time factor is the time from files to text over the audio's, once
all is compiled. Results go to a table on standard output and, a row for each manifest and look-ahead, to JSON
lines, after those that are there. What could not be read goes to standard error.

Exit codes: 0, all is done; 1, some recordings could not be scored; 2, the command or the model is wrong.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from tqdm import tqdm

from experiments.accuracy.report import measures, plot, significance, table
from experiments.harness.command import command
from experiments.harness.machine import device, machine
from experiments.harness.output import labels, plot_format, spread, writable
from nemojax.audio.manifest import numbered_entries
from nemojax.audio.source import Recording, open_audio
from nemojax.errors import AudioError, ConfigError
from nemojax.metrics import (
    ErrorCounts,
    case_errors,
    character_errors,
    normalizer,
    plain,
    punctuation_errors,
    word_errors,
)
from nemojax.recognition.recognizer import Recognizer, load
from nemojax.text.transcript import Transcript

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy", "sentencepiece", "soxr", "rapidfuzz", "whisper-normalizer")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Settings:
    model: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="MODEL")]]
    """A native checkpoint."""
    manifests: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="MANIFEST...")]]
    lookaheads: tuple[int, ...] = ()
    """In encoder frames; by default those that the model was trained at. The others are compared with the first."""
    stream: Flag = False
    """Chunk by chunk, one recording at a time, as if each were live; else segments of several side by side."""
    normaliser: Literal["none", "plain", "whisper"] = "plain"
    """The form in which words and characters are compared."""
    output: Path = Path("evaluate.jsonl")
    utterances: Path | None = None
    """JSON lines of every reference and hypothesis; replaced if there."""
    plot: Path | None = None
    """WER against delay; svg, png or pdf by its name."""
    limit: int | None = None
    """At most so many recordings of each manifest, spread evenly over it."""
    batch_size: int = 16
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    draw: Literal["utterances", "speakers"] = "utterances"
    """What the bootstrap draws: utterances, or all of a speaker's together (the manifest's `speaker`)."""
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def check(self) -> None:
        if not self.manifests:
            raise ConfigError("name at least one manifest")
        for name in ("batch_size", "resamples", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"--confidence must be between 0 and 1, not {self.confidence}")


# Scoring.


class Scored(NamedTuple):
    """One utterance; `position` is its place in the list given. Words and characters are of normalised text."""

    position: int
    name: str
    reference: str
    hypothesis: str
    duration_s: float
    words: ErrorCounts
    characters: ErrorCounts
    case: ErrorCounts
    punctuation: ErrorCounts


def evaluate(
    recognizer: Recognizer,
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    batch_size: int = 16,
    *,
    stream: bool = False,
    normalise: Callable[[str], str] = plain,
    report: Callable[[AudioError], object] = lambda error: None,
    progress: Callable[[float], object] = lambda seconds: None,
) -> list[Scored]:
    """Transcribes and scores recordings, in their order. Those that can't be are left out.

    Args:
      entries: of a manifest, as `expand_manifest` gives them.
      stream: chunk by chunk, one at a time, rather than `batch_size` side by side; the text is the same.
      normalise: applied to references and hypotheses before words and characters are counted.
      report: told what is wrong with each recording that is left out.
      progress: told the seconds of audio of each step.
    """
    results = transcribe(recognizer, entries, lookahead, batch_size, stream, progress)
    return score(entries, results, normalise, report)


def transcribe(
    recognizer: Recognizer,
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    batch_size: int,
    stream: bool,
    progress: Callable[[float], object] = lambda seconds: None,
) -> dict[int, Transcript | AudioError]:
    """By index; recordings without a text are errors, and not heard."""
    scorable = [_with_text(entry) for entry in entries]
    if stream:
        return dict(_stream_each(recognizer, scorable, lookahead, progress))
    return dict(recognizer.transcribe_each(scorable, lookahead, batch_size, progress=progress))


def _with_text(entry: Recording | AudioError) -> Recording | AudioError:
    if isinstance(entry, AudioError) or entry.text is not None:
        return entry
    return AudioError(f"{entry.name}: its line in the manifest has no text to score against")


def _stream_each(
    recognizer: Recognizer,
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    progress: Callable[[float], object],
) -> Iterator[tuple[int, Transcript | AudioError]]:
    for index, entry in enumerate(entries):
        try:
            stream = recognizer.stream(lookahead)
            with closing(open_audio(entry)) as audio:
                while len(heard := audio.read(stream.chunk_samples)):
                    stream.push(heard)
                    progress(len(heard) / recognizer.config.features.sample_rate_hz)
            result: Transcript | AudioError = stream.finish()
        except AudioError as error:
            result = error
        yield index, result


def score(
    entries: Sequence[Recording | AudioError],
    results: dict[int, Transcript | AudioError],
    normalise: Callable[[str], str] = plain,
    report: Callable[[AudioError], object] = lambda error: None,
) -> list[Scored]:
    scored = []
    for index, result in sorted(results.items()):
        if isinstance(result, AudioError):
            report(result)
            continue
        entry = entries[index]
        assert isinstance(entry, Recording)
        scored.append(score_text(index, entry.name, entry.text or "", result.text, result.duration_s, normalise))
    return scored


def score_text(
    position: int, name: str, reference: str, hypothesis: str, duration_s: float, normalise: Callable[[str], str]
) -> Scored:
    texts = normalise(reference), normalise(hypothesis)
    counts = [word_errors(*texts), character_errors(*texts)]
    counts += [case_errors(reference, hypothesis), punctuation_errors(reference, hypothesis)]
    return Scored(position, name, reference, hypothesis, duration_s, *counts)


# The command.


class Corpus(NamedTuple):
    """A manifest to evaluate on; `label` is its short name, unique among the manifests."""

    path: Path
    label: str
    entries: list[Recording | AudioError]
    speakers: list[str] | None


def read_corpora(settings: Settings) -> list[Corpus]:
    corpora = []
    for label, path in labels(settings.manifests).items():
        chosen = spread(numbered_entries(path), settings.limit)
        speakers = _speakers(path, [number for number, _ in chosen]) if settings.draw == "speakers" else None
        corpora.append(Corpus(path, label, [entry for _, entry in chosen], speakers))
    return corpora


def _speakers(path: Path, numbers: Sequence[int]) -> list[str]:
    """Of lines by number. A line that can't be read has none, and no recording to draw."""
    lines = path.read_bytes().splitlines() if any(numbers) else []
    speakers = []
    for number in numbers:
        try:
            line = json.loads(lines[number - 1]) if number else None
        except ValueError:
            line = None
        speaker = line.get("speaker") if isinstance(line, dict) else ""
        if not isinstance(speaker, str):
            raise ConfigError(f"{path}: line {number}: --draw speakers needs its speaker, which is {speaker!r}")
        speakers.append(speaker)
    return speakers


def warm_up(recognizer: Recognizer, corpus: Corpus, lookahead: int, settings: Settings) -> None:
    """Compiles what the corpus's first batch needs."""
    if settings.stream:
        stream = recognizer.stream(lookahead)
        stream.push(np.zeros(stream.chunk_samples, np.float32))
        return
    readable = [entry for entry in corpus.entries if isinstance(_with_text(entry), Recording)]
    transcribe(recognizer, readable[: settings.batch_size], lookahead, settings.batch_size, stream=False)


def measure(
    recognizer: Recognizer, corpus: Corpus, lookahead: int, settings: Settings, report: Callable[[AudioError], object]
) -> tuple[dict[str, Any], list[Scored]]:
    """One row of results, and what it sums up."""
    warm_up(recognizer, corpus, lookahead, settings)
    with tqdm(unit="s", desc=f"{corpus.label}, look-ahead {lookahead}", disable=None, leave=False) as bar:
        begin = time.perf_counter()
        results = transcribe(recognizer, corpus.entries, lookahead, settings.batch_size, settings.stream, bar.update)
        seconds = time.perf_counter() - begin
    scored = score(corpus.entries, results, normalizer(settings.normaliser), report)
    audio_s = math.fsum(utterance.duration_s for utterance in scored)
    row = {
        "experiment": "evaluate",
        "model": str(settings.model),
        "parameters": recognizer.parameters,
        "dtype": recognizer.dtype,
        "manifest": str(corpus.path),
        "label": corpus.label,
        "lookahead": lookahead,
        "chunk_ms": recognizer.config.chunk_ms(lookahead),
        "mode": "stream" if settings.stream else "offline",
        "batch_size": 1 if settings.stream else settings.batch_size,
        "normaliser": settings.normaliser,
        "utterances": len(scored),
        "failed": len(corpus.entries) - len(scored),
        "audio_s": round(audio_s, 3),
        "real_time_factor": round(seconds / audio_s, 5) if audio_s else None,
        **{name: getattr(settings, name) for name in ("limit", "draw", "confidence", "resamples", "seed")},
        **measures(scored, corpus.speakers, settings.confidence, settings.resamples, settings.seed),
    }
    return row, scored


def run(settings: Settings) -> int:
    settings.check()
    normalizer(settings.normaliser)  # what is missing is found before hours of transcribing
    if settings.plot:
        plot_format(settings.plot)
    corpora = read_corpora(settings)
    recognizer = load(settings.model, settings.dtype)
    asked = settings.lookaheads or recognizer.config.encoder.lookaheads
    lookaheads = [recognizer.lookahead(lookahead) for lookahead in dict.fromkeys(asked)]
    errors: dict[str, None] = {}

    def report(error: AudioError) -> None:
        if str(error) not in errors:  # once, not at each look-ahead
            tqdm.write(f"error: {error}", file=sys.stderr)
        errors[str(error)] = None

    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        output = stack.enter_context(writable(settings.output, "a"))
        utterances = stack.enter_context(writable(settings.utterances, "w")) if settings.utterances else None
        for corpus in corpora:
            first: list[Scored] = []
            for lookahead in lookaheads:
                row, scored = measure(recognizer, corpus, lookahead, settings, report)
                first = scored if lookahead == lookaheads[0] else first
                row["against"] = lookaheads[0]
                row |= significance(
                    first, scored, corpus.speakers, settings.confidence, settings.resamples, settings.seed
                )
                rows.append({**row, "device": device(), **machine(PACKAGES)})
                _write(output, rows[-1])
                for utterance in scored if utterances else ():
                    fields = {"manifest": str(corpus.path), "lookahead": lookahead, **utterance._asdict()}
                    _write(utterances, fields)
    print(table(rows))
    if settings.plot:
        plot(rows, settings.plot)
    return 1 if errors else 0


def _write(file: IO[str] | None, row: dict[str, Any]) -> None:
    assert file is not None
    plain_row = {name: value._asdict() if isinstance(value, ErrorCounts) else value for name, value in row.items()}
    file.write(json.dumps(plain_row, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    return command(Settings, run, "evaluate", __doc__, arguments)
