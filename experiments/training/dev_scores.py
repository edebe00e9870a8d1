"""Scores a model on dev manifests while it is being trained."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.accuracy.scoring import evaluate
from nemojax.audio.source import Recording
from nemojax.errors import AudioError
from nemojax.metrics import total
from nemojax.recognition.recognizer import Recognizer


def dev_rows(
    recognizer: Recognizer,
    dev: Mapping[str, Sequence[Recording | AudioError]],
    batch_size: int,
    report: Callable[[object], None],
    evaluation: int = 0,
) -> Iterator[dict[str, Any]]:
    """Yields WER and CER of each manifest, by its name, at each look-ahead of the model, with the streaming step.

    The row of a manifest's first look-ahead has a sample transcript, of another recording in each evaluation.
    """
    for name, entries in dev.items():
        for index, lookahead in enumerate(recognizer.config.encoder.lookaheads):
            begin = time.perf_counter()
            scored = evaluate(recognizer, entries, lookahead, batch_size, report=report)
            words, characters = total(u.words for u in scored), total(u.characters for u in scored)
            sample = scored[evaluation % len(scored)] if scored and not index else None
            yield {
                "manifest": name,
                "lookahead": lookahead,
                "wer": words.rate,
                "cer": characters.rate,
                "errors": words.errors,
                "words": words.reference,
                "failed": len(entries) - len(scored),
                "seconds": round(time.perf_counter() - begin, 2),
                **({"reference": sample.reference, "hypothesis": sample.hypothesis} if sample else {}),
            }
