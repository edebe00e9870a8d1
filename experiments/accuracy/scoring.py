"""Scores a model's transcripts against the texts of manifests, recording by recording."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from experiments.harness import checks
from experiments.harness.output import labels, spread
from nemojax.audio.manifest import Manifest, numbered_entries
from nemojax.audio.source import Recording, open_audio
from nemojax.config import EVENTS
from nemojax.errors import AudioError, ConfigError
from nemojax.metrics import (
    ErrorCounts,
    case_errors,
    character_errors,
    plain,
    punctuation_errors,
    without_events,
    word_errors,
)
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

PACKAGES = ("nemojax", "jax", "jaxlib", "flax", "numpy", "sentencepiece", "soxr", "rapidfuzz", "whisper-normalizer")


class ScoringSettings(Protocol):
    """Settings that every command that scores has."""

    @property
    def manifests(self) -> tuple[Path, ...]: ...
    @property
    def confidence(self) -> float: ...


def check_scoring(settings: ScoringSettings) -> None:
    """Checks manifests, `resamples`, `limit` and `confidence`. Raises ConfigError."""
    checks.check_manifests(settings.manifests)
    checks.at_least(1, settings, "resamples", "limit")
    if not 0 < settings.confidence < 1:
        raise ConfigError(f"--confidence must be between 0 and 1, not {settings.confidence}")


class Scored(NamedTuple):
    """One utterance with its error counts; `position` is its index in the list that was scored.

    Words and characters are counted in normalized text, case and punctuation in the text as it is.
    """

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
    recognizer: "Recognizer",
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    batch_size: int = 16,
    *,
    stream: bool = False,
    normalize: Callable[[str], str] = plain,
    report: Callable[[AudioError], object] = lambda error: None,
    progress: Callable[[float], object] = lambda seconds: None,
) -> list[Scored]:
    """Transcribes and scores recordings, in their order; those that fail are left out.

    Args:
      entries: of a manifest, as `expand_manifest` returns them.
      stream: one recording at a time, chunk by chunk, instead of `batch_size` side by side. The text is the same.
      normalize: applied to references and hypotheses before words and characters are counted.
      report: called with the error of each recording that is left out.
      progress: called with the seconds of audio of each step.
    """
    results = transcribe(recognizer, entries, lookahead, batch_size, stream, progress)
    return score(entries, results, normalize, report)


def transcribe(
    recognizer: "Recognizer",
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    batch_size: int,
    stream: bool,
    progress: Callable[[float], object] = lambda seconds: None,
) -> dict[int, Transcript | AudioError]:
    """Returns transcripts by index. A recording without a text is an error, and is not transcribed."""
    scorable = [with_text(entry) for entry in entries]
    if stream:
        return dict(_stream_each(recognizer, scorable, lookahead, progress))
    return dict(recognizer.transcribe_each(scorable, lookahead, batch_size, progress=progress))


def with_text(entry: Recording | AudioError) -> Recording | AudioError:
    """Returns the entry, or an error where it has no text to score against."""
    if isinstance(entry, AudioError) or entry.text is not None:
        return entry
    return AudioError(f"{entry.name}: its line in the manifest has no text to score against")


def _stream_each(
    recognizer: "Recognizer",
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    progress: Callable[[float], object],
) -> Iterator[tuple[int, Transcript | AudioError]]:
    for index, entry in enumerate(entries):
        try:
            stream = recognizer.stream(lookahead)
            with closing(open_audio(entry)) as audio:
                while len(samples := audio.read(stream.chunk_samples)):
                    stream.push(samples)
                    progress(len(samples) / recognizer.config.features.sample_rate_hz)
            result: Transcript | AudioError = stream.finish()
        except AudioError as error:
            result = error
        yield index, result


def score(
    entries: Sequence[Recording | AudioError],
    results: dict[int, Transcript | AudioError],
    normalize: Callable[[str], str] = plain,
    report: Callable[[AudioError], object] = lambda error: None,
) -> list[Scored]:
    """Scores the results of `transcribe`; errors are reported and left out. Marks of events are no words."""
    scored = []
    for index, result in sorted(results.items()):
        if isinstance(result, AudioError):
            report(result)
            continue
        entry = entries[index]
        assert isinstance(entry, Recording)
        reference = without_events(entry.text or "", {*EVENTS, *(event.name for event in result.events)})
        scored.append(score_text(index, entry.name, reference, result.text, result.duration_s, normalize))
    return scored


def score_text(
    position: int, name: str, reference: str, hypothesis: str, duration_s: float, normalize: Callable[[str], str]
) -> Scored:
    texts = normalize(reference), normalize(hypothesis)
    counts = [word_errors(*texts), character_errors(*texts)]
    counts += [case_errors(reference, hypothesis), punctuation_errors(reference, hypothesis)]
    return Scored(position, name, reference, hypothesis, duration_s, *counts)


# Manifests to score on.


class EvaluationSet(NamedTuple):
    """A manifest to score on; `label` is its short name, unique among the manifests."""

    path: Path
    label: str
    entries: list[Recording | AudioError]
    speakers: list[str] | None


def read_sets(manifests: Sequence[Path], limit: int | None, with_speakers: bool) -> list[EvaluationSet]:
    """Reads manifests, at most `limit` recordings of each. Raises ConfigError where a speaker is missing."""
    sets = []
    for label, path in labels(manifests).items():
        chosen = spread(numbered_entries(path), limit)
        speakers = _speakers(path, [number for number, _ in chosen]) if with_speakers else None
        sets.append(EvaluationSet(path, label, [entry for _, entry in chosen], speakers))
    return sets


def _speakers(path: Path, numbers: Sequence[int]) -> list[str]:
    """Returns the speakers of lines by number; "" for a line that can't be read, which has no recording either."""
    found = {request.number: request.keys for request in Manifest(path).requests()} if any(numbers) else {}
    speakers = []
    for number in numbers:
        keys = found.get(number)
        speaker = keys.get("speaker") if keys else ""
        if not isinstance(speaker, str):
            raise ConfigError(f"{path}: line {number}: --draw speakers needs its speaker, which is {speaker!r}")
        speakers.append(speaker)
    return speakers
