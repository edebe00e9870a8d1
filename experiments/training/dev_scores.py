"""Scores a model on dev manifests while it is being trained."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.accuracy.scoring import evaluate
from experiments.harness.output import spread
from experiments.training.run_directory import RunError
from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.metrics import total
from nemojax.recognition.recognizer import Recognizer


def dev_entries(path: Path, count: int) -> list[Recording | AudioError]:
    """Returns at most `count` entries of a dev manifest. Raises RunError for a manifest without a recording."""
    entries = expand_manifest(path)
    if not any(isinstance(entry, Recording) for entry in entries):
        raise RunError(f"--dev {path}: {entries[0] if entries else 'it is empty'}")
    return spread(entries, count)


def dev_rows(
    recognizer: Recognizer,
    dev: Mapping[str, Sequence[Recording | AudioError]],
    batch_size: int,
    report: Callable[[object], None],
) -> Iterator[dict[str, Any]]:
    """Yields WER and CER of each manifest, by its name, at each look-ahead of the model, with the streaming step.

    A row has the texts of the first utterance, too.
    """
    for name, entries in dev.items():
        for lookahead in recognizer.config.encoder.lookaheads:
            begin = time.perf_counter()
            scored = evaluate(recognizer, entries, lookahead, batch_size, report=report)
            words, characters = total(u.words for u in scored), total(u.characters for u in scored)
            yield {
                "manifest": name,
                "lookahead": lookahead,
                "wer": words.rate,
                "cer": characters.rate,
                "errors": words.errors,
                "words": words.reference,
                "failed": len(entries) - len(scored),
                "reference": scored[0].reference if scored else "",
                "transcript": scored[0].hypothesis if scored else "",
                "seconds": round(time.perf_counter() - begin, 2),
            }
