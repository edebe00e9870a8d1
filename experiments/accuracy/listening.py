"""Streams recordings under a condition: their text, when each word was out, and whether shown text was changed."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from rapidfuzz.distance import Levenshtein

from experiments.accuracy.conditions import PAUSE_S, Condition
from nemojax.data import waveform
from nemojax.metrics import plain

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

RATE_HZ = 16_000
WHITE = 0.0  # exponent of the noise's spectrum
T = TypeVar("T")


class TimedWord(NamedTuple):
    """A word with a time in seconds from the recording's beginning: its own end, or when its text was out."""

    word: str
    at_s: float


class StreamedResult(NamedTuple):
    """One recording, streamed.

    Attributes:
      out: each word, and the audio received when its text was final: its time on a machine without compute time.
      revisions: how often final text was changed, which no search may do.
      seconds: of computing.
      tokens: the labels of the whole stream.
    """

    text: str
    out: list[TimedWord]
    revisions: int
    seconds: float
    duration_s: float
    tokens: tuple[int, ...]


def noisy(samples: np.ndarray, snr_db: float | None, seed: Sequence[int]) -> np.ndarray:
    """Adds white noise, which is a function of the seed; None adds none."""
    if snr_db is None or not len(samples):
        return samples
    noise = waveform.colored_noise(len(samples), WHITE, np.random.default_rng(list(seed)))
    return waveform.with_noise(samples, noise, snr_db)


def changed(samples: np.ndarray, condition: Condition, seed: Sequence[int]) -> np.ndarray:
    """Returns a recording with the noise, the telephone line and the level of a condition."""
    samples = noisy(samples, condition.snr, seed)
    if condition.telephone:
        samples = waveform.telephone(samples)
    return np.clip(waveform.with_gain(samples, condition.level), -1, 1) if condition.level else samples


def stream(
    recognizer: "Recognizer", samples: np.ndarray, lookahead: int, before: np.ndarray | None = None
) -> StreamedResult:
    """Streams a recording chunk by chunk.

    Args:
      before: audio that the same stream receives first, whole chunks; its text does not count.
    """
    live = recognizer.stream(lookahead)
    skipped, revisions, labels = 0, 0, 0
    virtual = recognizer.config.history_samples  # of the first chunk, which needs less audio for it
    if before is not None and len(before):
        labels, virtual = len(live.push(before).tokens), 0
        skipped = len(live.text)
    shown, chunk, first = live.text, live.chunk_samples, labels
    final: list[int] = []  # labels that are final after each chunk
    start = time.perf_counter()
    for begin in range(0, len(samples), chunk):
        labels += len(live.push(samples[begin : begin + chunk]).tokens)
        final.append(labels)
        revisions += not live.text.startswith(shown)
        shown = live.text
    transcript = live.finish()
    seconds = time.perf_counter() - start
    revisions += not transcript.text.startswith(shown.strip())
    out = []
    for text, _, last in recognizer.tokenizer.words(transcript.tokens):
        if last >= first:
            received = min((bisect_right(final, last) + 1) * chunk - virtual, len(samples))
            out.append(TimedWord(text, received / RATE_HZ))
    text = transcript.text if before is None else live.text[skipped:].strip()
    return StreamedResult(text, out, revisions, seconds, len(samples) / RATE_HZ, transcript.tokens)


def delays_s(out: Sequence[TimedWord], ends: Sequence[TimedWord]) -> list[float]:
    """Returns the delay of each correct word, from its end to its text. Words are compared in the form of `plain`."""
    spoken, shown = ([(plain(x.word), x.at_s) for x in words if plain(x.word)] for words in (ends, out))
    found = []
    for block in Levenshtein.opcodes([word for word, _ in spoken], [word for word, _ in shown]):
        if block.tag == "equal":
            pairs = zip(range(block.src_start, block.src_end), range(block.dest_start, block.dest_end), strict=True)
            found += [shown[j][1] - spoken[i][1] for i, j in pairs]
    return found


def grouped(items: Sequence[T], size: int) -> list[list[T]]:
    """Groups neighbors, `size` at a time; the last group may be smaller."""
    return [list(items[begin : begin + size]) for begin in range(0, len(items), size)]


def joined(pieces: Sequence[np.ndarray], pause_s: float = PAUSE_S) -> tuple[np.ndarray, list[float]]:
    """Joins recordings with pauses between them; returns the samples, and where each begins in seconds."""
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    parts: list[np.ndarray] = []
    starts, at = [], 0
    for piece in pieces:
        starts.append(at / RATE_HZ)
        parts += [piece, pause]
        at += len(piece) + len(pause)
    return np.concatenate(parts[:-1]), starts


def stream_group(
    recognizer: "Recognizer", pieces: Sequence[np.ndarray], condition: Condition, before: np.ndarray | None
) -> list[StreamedResult]:
    """Streams a group of recordings under a condition; returns a result for each, or one for all joined."""
    if condition.together:
        return [stream(recognizer, joined(pieces, condition.pause)[0], condition.lookahead)]
    if not condition.warm:
        before = None
    elif before is not None:  # padded to whole chunks, as `stream` needs it
        chunk = recognizer.config.chunk_samples(condition.lookahead)
        before = np.pad(before, (0, -(len(before) + recognizer.config.history_samples) % chunk))
    return [stream(recognizer, piece, condition.lookahead, before) for piece in pieces]
