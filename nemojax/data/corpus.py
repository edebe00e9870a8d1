"""Manifests to utterances for training: their audio, labels and lengths; and which entries are left out, and why."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import MODEL_RATE_HZ, Recording, open_audio
from nemojax.config import ModelConfig
from nemojax.data.buckets import IntArray
from nemojax.errors import AudioError, ConfigError, DataError
from nemojax.text.tokenizer import Tokenizer

UNREADABLE = "unreadable"  # a kind of problem
MIN_WEIGHT = 0.001
JOINS_TRIED = 1000  # texts on which joining is checked
MAX_NAMED = 5  # unreadable utterances that a message names


@dataclass(frozen=True)
class Source:
    """A manifest, and how many times an epoch holds each of its utterances; 0.5 means once in two epochs."""

    manifest: Path
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not MIN_WEIGHT <= self.weight <= 1 / MIN_WEIGHT:
            raise ConfigError(
                f"{self.manifest}: its weight must be from {MIN_WEIGHT:g} to {1 / MIN_WEIGHT:g}, not {self.weight}"
            )


@dataclass(frozen=True)
class Filters:
    """Conditions for an utterance to be trained on.

    Attributes:
      min_s: minimum duration, in seconds.
      max_s: maximum duration, in seconds.
      max_labels_per_frame: labels per encoder frame (80 ms); a text with more can't belong to the audio.
      keep_out_of_vocabulary: keep texts with characters that the tokenizer has no piece for; their label is the
        tokenizer's unknown piece.
      exclude: a regular expression; texts that it is found in are left out.
    """

    FORMER_NAMES: ClassVar[dict[str, str]] = {"keep_unspelled": "keep_out_of_vocabulary"}  # in settings saved earlier

    min_s: float = 0.1
    max_s: float = 20.0
    max_labels_per_frame: float = 2.0
    keep_out_of_vocabulary: bool = False
    exclude: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.min_s < self.max_s:
            raise ConfigError(f"filters: min_s {self.min_s} must be at least 0 and less than max_s {self.max_s}")
        try:
            re.compile(self.exclude)
        except re.error as error:
            raise ConfigError(f"filters: exclude {self.exclude!r} is not a regular expression ({error})") from None


DEFAULT_FILTERS = Filters()


class Problem(NamedTuple):
    """Why an utterance can't be trained on: a kind, to count problems by, and a message."""

    kind: str
    message: str


class Dropped(NamedTuple):
    """An utterance that is left out."""

    name: str
    seconds: float  # 0 where the duration is not known
    problem: Problem


def frames_of(samples: Any, config: ModelConfig) -> Any:
    """Returns the encoder frames that a recording of `samples` needs in a batch, with the history before it.

    This is `config.encoder_frames`, or one more where the recording ends within a hop: its last samples need room, but
    make no frame.

    Args:
      samples: a number or an array.
    """
    return -(-(samples + config.history_samples) // config.frame_samples)


def text_problems(
    text: str | None,
    duration_s: float | None,
    tokenizer: Tokenizer | None,
    filters: Filters,
    config: ModelConfig,
) -> list[Problem]:
    """Returns the reasons why a text can't be trained on.

    Checks that need the duration or the tokenizer are skipped where it is None.
    """
    if text is None or not text.strip():
        return [Problem("no text", "its text is empty" if text is not None else "it has no text")]
    problems = []
    if tokenizer is not None:
        if not filters.keep_out_of_vocabulary and (parts := tokenizer.out_of_vocabulary(text)):
            shown = ", ".join(repr(part) for part in dict.fromkeys(parts))
            problems.append(Problem("out of vocabulary", f"the tokenizer has no piece for {shown}"))
        if duration_s is not None:
            labels, frames = len(tokenizer.encode(text)), frames_of(round(duration_s * MODEL_RATE_HZ), config)
            if labels > filters.max_labels_per_frame * frames:
                message = f"its text has {labels} labels for {frames} frames ({duration_s:.2f} s)"
                problems.append(Problem("too many labels", message))
    if filters.exclude and re.search(filters.exclude, text):
        problems.append(Problem("excluded", f"its text matches {filters.exclude!r}"))
    return problems


def duration_problems(duration_s: float, filters: Filters) -> list[Problem]:
    """Returns the reasons why a recording of this duration can't be trained on."""
    if duration_s < filters.min_s:
        return [Problem("too short", f"it lasts {duration_s:.2f} s, less than {filters.min_s:g} s")]
    if duration_s > filters.max_s:
        return [Problem("too long", f"it lasts {duration_s:.2f} s, more than {filters.max_s:g} s")]
    return []


def header_duration_s(recording: Recording) -> float:
    """Returns a recording's duration from its header; decodes it where the header has none. Raises AudioError."""
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
      sources: [n] index of each utterance's source.
      weights: [n] times that an epoch holds each utterance.
      samples: [n] length at the model's sample rate.
      labels: labels of all utterances, concatenated; utterance i has those from `starts[i]` to `starts[i + 1]`.
      dropped: the utterances left out.
      joinable: whether the labels of "a b" equal the labels of "a" and then "b", so that utterances may be joined.
    """

    recordings: tuple[Recording, ...]
    sources: IntArray
    weights: npt.NDArray[np.float64]
    samples: IntArray
    labels: IntArray
    starts: IntArray
    dropped: tuple[Dropped, ...] = ()
    joinable: bool = True

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def label_counts(self) -> IntArray:
        """[n] number of labels of each utterance."""
        return np.diff(self.starts)

    def labels_of(self, utterance: int) -> IntArray:
        """Returns the labels of an utterance."""
        return self.labels[self.starts[utterance] : self.starts[utterance + 1]]

    @property
    def hours(self) -> float:
        """Hours of audio in one pass over the utterances."""
        return float(self.samples.sum()) / MODEL_RATE_HZ / 3600

    def report(self) -> str:
        """Describes the corpus: what it holds, and a line for each kind of problem that left utterances out."""
        lines = [f"{len(self)} utterances, {self.hours:.2f} h"]
        kinds: dict[str, list[Dropped]] = {}
        for dropped in self.dropped:
            kinds.setdefault(dropped.problem.kind, []).append(dropped)
        for kind, group in sorted(kinds.items(), key=lambda item: -len(item[1])):
            hours, first = sum(d.seconds for d in group) / 3600, group[0]
            lines.append(
                f"{len(group)} left out, {hours:.2f} h: {kind} (the first: {first.name}: {first.problem.message})"
            )
        return "\n".join(lines)


def load_corpus(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    config: ModelConfig,
    filters: Filters = DEFAULT_FILTERS,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Corpus:
    """Reads manifests. Opens audio only where a manifest gives no duration.

    Args:
      progress: wraps the entries while they are read, as `tqdm` does.

    Raises:
      DataError: more than half of the entries can't be read; names some.
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
            seconds, entry_labels = kept
            recordings.append(entry)
            columns.append((index, sources[index].weight, round(seconds * MODEL_RATE_HZ)))
            labels.append(entry_labels)
    faults = [f"{d.name}: {d.problem.message}" for d in dropped if d.problem.kind == UNREADABLE]
    check_share(faults, len(faults), len(entries))
    starts = np.concatenate([[0], np.cumsum([len(entry_labels) for entry_labels in labels])]).astype(np.int64)
    corpus = Corpus(
        tuple(recordings),
        np.array([source for source, _, _ in columns], np.int64),
        np.array([weight for _, weight, _ in columns], np.float64),
        np.array([samples for _, _, samples in columns], np.int64),
        np.fromiter((label for entry_labels in labels for label in entry_labels), np.int32, starts[-1]),
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
    """Returns an entry's duration in seconds and its labels, or why it is left out."""
    if isinstance(entry, AudioError):
        return _unreadable(entry)
    try:
        seconds = header_duration_s(entry) if entry.duration_s is None else entry.duration_s
    except AudioError as error:
        return _unreadable(error)
    problems = duration_problems(seconds, filters) + text_problems(entry.text, seconds, tokenizer, filters, config)
    return Dropped(entry.name, seconds, problems[0]) if problems else (seconds, tokenizer.encode(entry.text or ""))


def _joinable(recordings: Sequence[Recording], tokenizer: Tokenizer) -> bool:
    """Returns whether tokenizing "a b" equals tokenizing "a" and "b"; a few texts are enough to see it."""
    texts = [recording.text or "" for recording in recordings]
    return all(
        tokenizer.encode(f"{one} {other}") == tokenizer.encode(one) + tokenizer.encode(other)
        for one, other in zip(texts, texts[1:] + texts[:1], strict=True)
    )


def _unreadable(error: AudioError) -> Dropped:
    name, _, message = str(error).partition(": ")
    return Dropped(name, 0.0, Problem(UNREADABLE, message))


def check_share(faults: Sequence[str], failed: int, tried: int) -> None:
    """Raises DataError where more than half of the utterances that were tried can't be read.

    Args:
      faults: what is wrong with each utterance that can't be read; begins with its name.
      failed: number of those tried that can't be read; utterances may be tried several times.
    """
    if 2 * failed > tried:
        named = "; ".join(faults[:MAX_NAMED]) + ("; ..." if len(faults) > MAX_NAMED else "")
        raise DataError(
            f"{failed} of {tried} utterances can't be read ({named}); "
            "python -m nemojax.data.validate lists everything wrong with manifests"
        )
