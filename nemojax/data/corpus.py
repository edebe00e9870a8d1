"""Manifests to utterances that can be trained on: their audio, labels and lengths, and what is left out and why."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import MODEL_RATE_HZ, Recording, open_audio
from nemojax.config import ModelConfig
from nemojax.errors import AudioError, ConfigError
from nemojax.text.tokenizer import Tokenizer

LEAST_WEIGHT = 0.001
JOINS_TRIED = 1000


@dataclass(frozen=True)
class Source:
    """A manifest, and how many times an epoch holds each of its utterances: 0.5 is every second epoch."""

    manifest: Path
    weight: float = 1.0

    def __post_init__(self):
        if not LEAST_WEIGHT <= self.weight <= 1 / LEAST_WEIGHT:
            raise ConfigError(
                f"{self.manifest}: its weight must be from {LEAST_WEIGHT:g} to {1 / LEAST_WEIGHT:g}, not {self.weight}"
            )


@dataclass(frozen=True)
class Filters:
    """Which utterances are trained on.

    Attributes:
      min_s, max_s: the range of durations, in seconds.
      max_labels_per_frame: labels per encoder frame (80 ms); more is a text that can't belong to the audio.
      keep_unspelled: keep texts with characters that the tokenizer has no piece for; the label there is its
        unknown piece.
      exclude: a regular expression; texts in which it is found are left out.
    """

    min_s: float = 0.1
    max_s: float = 20.0
    max_labels_per_frame: float = 2.0
    keep_unspelled: bool = False
    exclude: str = ""

    def __post_init__(self):
        if not 0 <= self.min_s < self.max_s:
            raise ConfigError(f"filters: min_s {self.min_s} must be at least 0 and less than max_s {self.max_s}")
        try:
            re.compile(self.exclude)
        except re.error as error:
            raise ConfigError(f"filters: exclude {self.exclude!r} is not a regular expression ({error})") from None


DEFAULT_FILTERS = Filters()


class Problem(NamedTuple):
    """Why an utterance can't be trained on: in a word or two, the same for all alike, and in a sentence."""

    kind: str
    message: str


class Dropped(NamedTuple):
    name: str
    seconds: float  # 0 where it is not known
    problem: Problem


def frames_of(samples: Any, config: ModelConfig) -> Any:
    """Encoder frames that hold so many samples (a number or an array) of a recording and the history before them.

    It is `config.encoder_frames`, or one frame more where the last hop has begun and is not whole.
    """
    return -(-(samples + config.history_samples) // config.frame_samples)


def text_problems(
    text: str | None,
    duration_s: float | None,
    tokenizer: Tokenizer | None,
    filters: Filters,
    config: ModelConfig,
) -> list[Problem]:
    """All that keeps a text from being what is said in so many seconds, as far as these are known."""
    if text is None or not text.strip():
        return [Problem("no text", "its text is empty" if text is not None else "it has no text")]
    problems = []
    if tokenizer is not None:
        if not filters.keep_unspelled and (unspelled := tokenizer.out_of_vocabulary(text)):
            shown = ", ".join(repr(part) for part in dict.fromkeys(unspelled))
            problems.append(Problem("unspelled", f"the tokenizer can't spell {shown}"))
        if duration_s is not None:
            labels, frames = len(tokenizer.encode(text)), frames_of(round(duration_s * MODEL_RATE_HZ), config)
            if labels > filters.max_labels_per_frame * frames:
                message = f"its text has {labels} labels for {frames} frames ({duration_s:.2f} s)"
                problems.append(Problem("too many labels", message))
    if filters.exclude and re.search(filters.exclude, text):
        problems.append(Problem("excluded", f"its text matches {filters.exclude!r}"))
    return problems


def duration_problems(duration_s: float, filters: Filters) -> list[Problem]:
    if duration_s < filters.min_s:
        return [Problem("too short", f"it lasts {duration_s:.2f} s, less than {filters.min_s:g} s")]
    if duration_s > filters.max_s:
        return [Problem("too long", f"it lasts {duration_s:.2f} s, more than {filters.max_s:g} s")]
    return []


def header_duration_s(recording: Recording) -> float:
    """How long a recording is by its header, decoded only where that does not say. Raises AudioError."""
    with closing(open_audio(recording)) as audio:
        if audio.duration_s is not None:
            return audio.duration_s
        samples = 0
        while block := len(audio.read(2**18)):
            samples += block
        return samples / MODEL_RATE_HZ


@dataclass(frozen=True, eq=False)
class Corpus:
    """The utterances of all sources, as columns.

    Attributes:
      recordings: in the order of the manifests.
      sources: [n] the index of each utterance's source.
      weights: [n] times per epoch.
      samples: [n] at the model's rate.
      labels: of all utterances, one after the other; those of i begin at `starts[i]` and end at `starts[i + 1]`.
      dropped: the utterances left out.
      joinable: whether the labels of a text and of another, joined, are those of both with a space between.
    """

    recordings: tuple[Recording, ...]
    sources: np.ndarray
    weights: np.ndarray
    samples: np.ndarray
    labels: np.ndarray
    starts: np.ndarray
    dropped: tuple[Dropped, ...] = ()
    joinable: bool = True

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def label_counts(self) -> np.ndarray:
        return np.diff(self.starts)

    def labels_of(self, utterance: int) -> np.ndarray:
        return self.labels[self.starts[utterance] : self.starts[utterance + 1]]

    @property
    def hours(self) -> float:
        return float(self.samples.sum()) / MODEL_RATE_HZ / 3600

    def report(self) -> str:
        """What is in it and what is not, a line for each reason."""
        lines = [f"{len(self)} utterances, {self.hours:.2f} h"]
        kinds: dict[str, list[Dropped]] = {}
        for dropped in self.dropped:
            kinds.setdefault(dropped.problem.kind, []).append(dropped)
        for kind, those in sorted(kinds.items(), key=lambda item: -len(item[1])):
            hours, first = sum(d.seconds for d in those) / 3600, those[0]
            lines.append(
                f"{len(those)} left out, {hours:.2f} h: {kind} (the first: {first.name}: {first.problem.message})"
            )
        return "\n".join(lines)


def load_corpus(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    config: ModelConfig,
    filters: Filters = DEFAULT_FILTERS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Corpus:
    """Reads manifests. Audio is opened only where a manifest gives no duration.

    Args:
      progress: wraps the entries as they are read, as `tqdm` does.

    Raises:
      ConfigError: no utterance is left; says why.
    """
    recordings: list[Recording] = []
    columns: list[tuple[int, float, int]] = []
    labels: list[list[int]] = []
    dropped: list[Dropped] = []
    entries = [(index, entry) for index, source in enumerate(sources) for entry in expand_manifest(source.manifest)]
    for index, entry in progress(entries):
        kept = _utterance(entry, tokenizer, filters, config)
        if isinstance(kept, Dropped):
            dropped.append(kept)
        else:
            seconds, spelled = kept
            recordings.append(entry)
            columns.append((index, sources[index].weight, round(seconds * MODEL_RATE_HZ)))
            labels.append(spelled)
    starts = np.concatenate([[0], np.cumsum([len(spelled) for spelled in labels])]).astype(np.int64)
    flat = np.fromiter((label for spelled in labels for label in spelled), np.int32, starts[-1])
    source, weight, samples = (np.array(column) for column in zip(*columns, strict=True)) if columns else ([], [], [])
    corpus = Corpus(
        tuple(recordings),
        np.asarray(source, np.int64),
        np.asarray(weight, np.float64),
        np.asarray(samples, np.int64),
        flat,
        starts,
        tuple(dropped),
        _joinable(recordings[:JOINS_TRIED], tokenizer),
    )
    if not len(corpus):
        raise ConfigError(f"the manifests leave nothing to train on: {corpus.report()}")
    return corpus


def _utterance(
    entry: Recording | AudioError, tokenizer: Tokenizer, filters: Filters, config: ModelConfig
) -> tuple[float, list[int]] | Dropped:
    """Seconds and labels."""
    if isinstance(entry, AudioError):
        return Dropped(*_split(entry))
    try:
        seconds = header_duration_s(entry) if entry.duration_s is None else entry.duration_s
    except AudioError as error:
        return Dropped(*_split(error))
    problems = duration_problems(seconds, filters) + text_problems(entry.text, seconds, tokenizer, filters, config)
    return Dropped(entry.name, seconds, problems[0]) if problems else (seconds, tokenizer.encode(entry.text or ""))


def _joinable(recordings: Sequence[Recording], tokenizer: Tokenizer) -> bool:
    """It is in the nature of a tokenizer, so some texts show it."""
    texts = [recording.text or "" for recording in recordings]
    return all(
        tokenizer.encode(f"{one} {other}") == tokenizer.encode(one) + tokenizer.encode(other)
        for one, other in zip(texts, texts[1:] + texts[:1], strict=True)
    )


def _split(error: AudioError) -> tuple[str, float, Problem]:
    name, _, message = str(error).partition(": ")
    return name, 0.0, Problem("unreadable", message)
