"""What a stream says, when it says it, and whether it takes anything back."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import Levenshtein

from experiments.accuracy.conditions import Condition
from nemojax.data.waveform import colored_noise, with_noise
from nemojax.metrics import plain
from nemojax.recognition.recognizer import Recognizer

RATE_HZ = 16_000
PAUSE_S = 0.5  # between recordings that are heard as one
WHITE = 0.0  # colour of noise


class Said(NamedTuple):
    """A word, and when: its own end, or when its text was out, in seconds from the recording's beginning."""

    word: str
    at_s: float


class Heard(NamedTuple):
    """One recording, streamed.

    Attributes:
      out: each word, and the audio that had been heard when its text was out: what a perfect machine's delay is.
      revisions: how often text that had been shown was changed. For greedy decoding it must be never.
      seconds: of computing.
    """

    text: str
    out: list[Said]
    revisions: int
    seconds: float
    duration_s: float


def noisy(samples: np.ndarray, snr_db: float | None, seed: Sequence[int]) -> np.ndarray:
    """With white noise, a function of the seed."""
    if snr_db is None or not len(samples):
        return samples
    noise = colored_noise(len(samples), WHITE, np.random.default_rng(list(seed)))
    return with_noise(samples, noise, snr_db)


def stream(recognizer: Recognizer, samples: np.ndarray, lookahead: int, before: np.ndarray | None = None) -> Heard:
    """Hears a recording chunk by chunk.

    Args:
      before: what the stream has heard before it, whole chunks; nothing that is said of it counts.
    """
    live = recognizer.stream(lookahead)
    skipped, revisions = 0, 0
    if before is not None and len(before):
        live.push(before)
        skipped = len(live.text)
    shown, chunk = live.text, live.chunk_samples
    start = time.perf_counter()
    for begin in range(0, len(samples), chunk):
        live.push(samples[begin : begin + chunk])
        revisions += not live.text.startswith(shown)
        shown = live.text
    transcript = live.finish()
    seconds = time.perf_counter() - start
    revisions += not transcript.text.startswith(shown.strip())
    offset_s = 0.0 if before is None else len(before) / RATE_HZ
    config, chunk_frames = recognizer.config, lookahead + 1
    out = []
    for text, _, last in recognizer.tokenizer.words(transcript.tokens):
        chunks = transcript.frames[last] // chunk_frames + 1
        heard = min(chunks * chunk - config.history_samples, round(transcript.duration_s * RATE_HZ))
        at_s = heard / RATE_HZ - offset_s
        if at_s > 0:
            out.append(Said(text, at_s))
    text = transcript.text if before is None else live.text[skipped:].strip()
    return Heard(text, out, revisions, seconds, len(samples) / RATE_HZ)


def delays_s(out: Sequence[Said], ends: Sequence[Said]) -> list[float]:
    """Of the words that are right: from a word's end to its text. Words are compared as `plain` has them."""
    spoken, said = ([(plain(x.word), x.at_s) for x in words if plain(x.word)] for words in (ends, out))
    found = []
    for block in Levenshtein.opcodes([word for word, _ in spoken], [word for word, _ in said]):
        if block.tag == "equal":
            pairs = zip(range(block.src_start, block.src_end), range(block.dest_start, block.dest_end), strict=True)
            found += [said[j][1] - spoken[i][1] for i, j in pairs]
    return found


def grouped(items: Sequence, size: int) -> list[list]:
    """Neighbours, so many at a time; the last may be fewer."""
    return [list(items[begin : begin + size]) for begin in range(0, len(items), size)]


def joined(pieces: Sequence[np.ndarray]) -> tuple[np.ndarray, list[float]]:
    """Recordings as one, with pauses between them, and where each begins, in seconds."""
    pause = np.zeros(round(PAUSE_S * RATE_HZ), np.float32)
    parts: list[np.ndarray] = []
    starts, at = [], 0
    for piece in pieces:
        starts.append(at / RATE_HZ)
        parts += [piece, pause]
        at += len(piece) + len(pause)
    return np.concatenate(parts[:-1]), starts


def hear(
    recognizer: Recognizer, pieces: Sequence[np.ndarray], condition: Condition, before: np.ndarray | None
) -> list[Heard]:
    """A group of recordings under a condition: one for each, or one for all."""
    if condition.together:
        return [stream(recognizer, joined(pieces)[0], condition.lookahead)]
    if not condition.warm:
        before = None
    elif before is not None:  # whole chunks: as it would be heard by then
        chunk = recognizer.config.chunk_samples(condition.lookahead)
        before = np.pad(before, (0, -(len(before) + recognizer.config.history_samples) % chunk))
    return [stream(recognizer, piece, condition.lookahead, before) for piece in pieces]
