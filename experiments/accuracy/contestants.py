"""The models that `judge` compares: of nemojax, of NeMo and of transformers, each by its own library."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from experiments.harness.checks import check_installed
from nemojax.audio.source import Recording, read_all
from nemojax.errors import AudioError, ConfigError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

NEEDED = {"nemojax": (), "nemo": ("torch", "nemo"), "transformers": ("torch", "transformers")}
RATE_HZ = 16_000


class Name(NamedTuple):
    """A model as it is named: LIBRARY:MODEL, or MODEL for nemojax's."""

    library: str
    model: str

    def __str__(self) -> str:
        return self.model if self.library == "nemojax" else f"{self.library}:{self.model}"


def parse(text: str) -> Name:
    """Parses the name of a model. Raises ConfigError where its library is not installed."""
    library, colon, model = text.partition(":")
    name = Name(library, model) if colon and library in NEEDED else Name("nemojax", text)
    if not name.model:
        raise ConfigError(f"{text}: name a model after the colon")
    check_installed(*NEEDED[name.library])
    return name


class Result(NamedTuple):
    """A transcript: its text, its words with the times of their first labels, and the duration of its audio."""

    text: str
    words: list[tuple[str, float | None]]
    duration_s: float


class Contestant(Protocol):
    """A model with its weights loaded."""

    @property
    def lookaheads(self) -> tuple[int, ...]:
        """In encoder frames; those that the model was trained at."""

    def transcribe(
        self, entries: Sequence[Recording | AudioError], lookahead: int, progress: Callable[[float], object]
    ) -> Iterator[tuple[int, Result | AudioError]]:
        """Yields the results of recordings by their indices; `progress` is called with seconds of audio."""


class Nemojax:
    """A model of nemojax, several recordings side by side."""

    def __init__(self, recognizer: "Recognizer", batch_size: int):
        self.recognizer, self._batch_size = recognizer, batch_size
        self.lookaheads = recognizer.config.encoder.lookaheads

    def transcribe(
        self, entries: Sequence[Recording | AudioError], lookahead: int, progress: Callable[[float], object]
    ) -> Iterator[tuple[int, Result | AudioError]]:
        results = self.recognizer.transcribe_each(entries, lookahead, self._batch_size, progress=progress)
        for index, found in results:
            if isinstance(found, AudioError):
                yield index, found
            else:
                yield index, Result(found.text, [(word.text, word.start_s) for word in found.words], found.duration_s)


class Peer:
    """A model of NeMo or transformers, one recording at a time, with the library's own search."""

    def __init__(self, name: Name, lookaheads: tuple[int, ...]):
        from experiments.references.compare import NemoReference, TransformersReference

        kind = NemoReference if name.library == "nemo" else TransformersReference
        try:
            self._reference = kind(Path(name.model))
        except Exception as error:  # the libraries' errors have no common type
            raise ConfigError(f"{name} can't be loaded: {str(error).partition(chr(10))[0]}") from None
        self.lookaheads = lookaheads

    def transcribe(
        self, entries: Sequence[Recording | AudioError], lookahead: int, progress: Callable[[float], object]
    ) -> Iterator[tuple[int, Result | AudioError]]:
        for index, entry in enumerate(entries):
            try:
                if isinstance(entry, AudioError):
                    raise entry
                samples = read_all(entry)
            except AudioError as error:
                yield index, error
                continue
            hypothesis, _ = self._reference.offline(samples, lookahead)
            words: list[tuple[str, float | None]] = [(word, None) for word in hypothesis.text.split()]
            yield index, Result(hypothesis.text, words, len(samples) / RATE_HZ)
            progress(len(samples) / RATE_HZ)


def timed(
    contestant: Contestant,
    entries: Sequence[Recording | AudioError],
    lookahead: int,
    progress: Callable[[float], object] = lambda seconds: None,
) -> tuple[dict[int, Result | AudioError], float]:
    """Returns the results of recordings by index, and the seconds that they took."""
    begin = time.perf_counter()
    results = dict(contestant.transcribe(entries, lookahead, progress))
    return results, time.perf_counter() - begin
