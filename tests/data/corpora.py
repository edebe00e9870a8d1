"""Corpora for tests: without audio, or with real files."""

import json
from pathlib import Path

import numpy as np

from nemojax.audio.source import Recording
from nemojax.data.corpus import Corpus
from tests.helpers.sounds import encoded


def corpus_of(samples, labels, sources=None, weights=(1.0,)) -> Corpus:
    """A corpus of given lengths; the labels of each utterance are its index, over and over."""
    count = len(samples)
    sources = np.zeros(count, np.int64) if sources is None else np.asarray(sources, np.int64)
    starts = np.concatenate([[0], np.cumsum(labels)]).astype(np.int64)
    return Corpus(
        tuple(Recording(Path(f"{i}.wav"), f"{i}.wav", 0.0, n / 16_000, text="a word") for i, n in enumerate(samples)),
        sources,
        np.asarray(weights, np.float64)[sources],
        np.asarray(samples, np.int64),
        np.repeat(np.arange(count, dtype=np.int32), labels),
        starts,
    )


def random_corpus(count: int, seed: int = 0, sources: int = 1, weights=(1.0,), longest_s: float = 12.0) -> Corpus:
    rng = np.random.default_rng(seed)
    seconds = rng.uniform(0.2, longest_s, count)
    labels = np.maximum(seconds * rng.uniform(2, 6, count), 1).astype(int)
    return corpus_of((seconds * 16_000).astype(int), labels, rng.integers(0, sources, count), weights)


def write_manifest(path: Path, entries: list[dict]) -> Path:
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return path


def write_speech(directory: Path, name: str, texts: list[str], seed: int = 0, kind: str = "wav") -> Path:
    """A manifest with a made recording for each text, of a length that goes with it."""
    rng, entries = np.random.default_rng(seed), []
    for index, text in enumerate(texts):
        samples = (0.1 * rng.standard_normal(6000 + 1000 * len(text))).astype(np.float32)
        file = f"{name}-{index}.{kind}"
        (directory / file).write_bytes(encoded(samples, 16_000, kind))
        entries.append({"audio_filepath": file, "duration": len(samples) / 16_000, "text": text})
    return write_manifest(directory / f"{name}.jsonl", entries)
