"""Recordings of a manifest in memory, with their texts and the ends of their words."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.accuracy.listening import TimedWord
from experiments.accuracy.scoring import with_text
from experiments.harness.output import spread
from nemojax.audio.manifest import numbered_entries
from nemojax.audio.source import read_all
from nemojax.errors import AudioError

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer


class Utterance(NamedTuple):
    """A recording with its text; `ends` are its words' ends where the manifest has them."""

    name: str
    text: str
    samples: np.ndarray
    ends: list[TimedWord] | None


def read(path: Path, limit: int | None, report: Callable[[str], object]) -> list[Utterance]:
    """Reads at most `limit` recordings of a manifest; those that can't be scored are reported and left out."""
    lines, found = path.read_bytes().splitlines() if path.is_file() else [], []
    for number, entry in spread(numbered_entries(path), limit):
        entry = with_text(entry)
        if isinstance(entry, AudioError):
            report(str(entry))
            continue
        try:
            samples = read_all(entry)
            found.append(Utterance(entry.name, entry.text or "", samples, _ends(json.loads(lines[number - 1]))))
        except (AudioError, ValueError) as error:
            report(str(error))
    return found


def _ends(line: dict[str, Any]) -> list[TimedWord] | None:
    words = line.get("words")
    if words is None:
        return None
    try:
        return [TimedWord(str(word), float(end)) for word, _, end in words]
    except (TypeError, ValueError):
        raise ValueError(f"`words` must be a list of [word, start, end], not {str(words)[:60]!r}") from None


def offline_ends(recognizer: "Recognizer", utterances: Sequence[Utterance]) -> list[list[TimedWord]]:
    """Returns the ends of each utterance's words: the manifest's, else those of the model's own offline pass."""
    lookahead = max(recognizer.config.encoder.lookaheads)
    missing = [index for index, utterance in enumerate(utterances) if utterance.ends is None]
    transcripts = recognizer.transcribe([utterances[index].samples for index in missing], lookahead)
    assert isinstance(transcripts, list)
    found = {i: [TimedWord(w.text, w.end_s) for w in t.words] for i, t in zip(missing, transcripts, strict=True)}
    return [found.get(index, u.ends or []) for index, u in enumerate(utterances)]
