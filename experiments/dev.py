"""WER and CER of a model on some recordings, as training measures them on the way."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nemojax.audio import AudioError, Recording
from nemojax.manifest import expand_manifest
from nemojax.metrics import ErrorCounts, character_errors, plain, total, word_errors
from nemojax.recognizer import Recognizer


class Score(NamedTuple):
    words: ErrorCounts  # of plain text: without case and punctuation
    characters: ErrorCounts
    failed: tuple[AudioError, ...]


def select(manifest: Path, count: int) -> list[Recording]:
    """At most so many of a manifest's recordings with a text, spread evenly over it."""
    entries = [entry for entry in expand_manifest(manifest) if isinstance(entry, Recording) and entry.text is not None]
    stride = max(len(entries) / count, 1.0)
    return [entries[int(index * stride)] for index in range(min(count, len(entries)))]


def score(recognizer: Recognizer, entries: Sequence[Recording], lookahead: int, batch_size: int) -> Score:
    """Transcribes with the streaming step, several recordings side by side."""
    words, characters, failed = [], [], []
    for index, result in recognizer.transcribe_each(entries, lookahead, min(batch_size, len(entries))):
        if isinstance(result, AudioError):
            failed.append(result)
            continue
        reference, heard = plain(entries[index].text or ""), plain(result.text)
        words.append(word_errors(reference, heard))
        characters.append(character_errors(reference, heard))
    return Score(total(words), total(characters), tuple(failed))
