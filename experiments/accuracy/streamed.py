"""Streams a part of a set that was transcribed offline: equal texts, delays of words, speed."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments.accuracy.listening import TimedWord, delays_s, stream
from experiments.accuracy.scoring import EvaluationSet, Scored
from experiments.accuracy.word_times import aligned
from experiments.harness.output import spread
from experiments.harness.rows import Row
from nemojax.audio.source import Recording, read_all
from nemojax.progress import AudioBar

if TYPE_CHECKING:  # jax is imported only where a model runs
    from nemojax.recognition.recognizer import Recognizer

PERCENTILES = (50, 90)


def spoken_ends(
    recognizer: "Recognizer", evaluation_set: EvaluationSet, scored: Sequence[Scored], batch_size: int
) -> dict[int, list[TimedWord]]:
    """Returns when each word's sound ends, by the recording's position.

    The ends are the manifest's `words`. Where it has none they are those of the model's largest look-ahead, which emits
    the last label of a word near its end.
    """
    given = aligned(evaluation_set.path)
    ends = {one.position: [TimedWord(w.word, w.end_s) for w in given[one.name]] for one in scored if one.name in given}
    missing = [one for one in scored if one.position not in ends]
    lookahead = max(recognizer.config.encoder.lookaheads)
    entries = [evaluation_set.entries[one.position] for one in missing]
    results = dict(recognizer.transcribe_each(entries, lookahead, batch_size))
    for index, one in enumerate(missing):
        ends[one.position] = [TimedWord(word.text, word.end_s) for word in getattr(results[index], "words", [])]
    return ends


def measure_streamed(
    recognizer: "Recognizer",
    evaluation_set: EvaluationSet,
    offline: Sequence[Scored],
    lookahead: int,
    ends: dict[int, list[TimedWord]],
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Returns what streaming adds to an offline row: equal texts, delays of words, time of a step, and speed.

    Args:
      offline: utterances to stream, as they were transcribed offline.
      ends: of words, as `spoken_ends` returns them.
    """
    live = recognizer.stream(lookahead)
    live.push(np.zeros(live.chunk_samples, np.float32))  # compiles the step
    same, seconds, audio_s = 0, 0.0, 0.0
    steps_s: list[float] = []
    found_s: list[float] = []
    different: list[str] = []
    with AudioBar(f"{evaluation_set.label}, look-ahead {lookahead}, streamed") as bar:
        for one in offline:
            entry = evaluation_set.entries[one.position]
            assert isinstance(entry, Recording)
            samples = read_all(entry)
            result = stream(recognizer, samples, lookahead)
            same += result.text == one.hypothesis
            if result.text != one.hypothesis:
                different.append(one.name)
            seconds, audio_s = seconds + result.seconds, audio_s + result.duration_s
            steps = max(1, math.ceil(len(samples) / live.chunk_samples))
            steps_s.append(result.seconds / steps)
            found_s += delays_s(result.out, ends[one.position])
            bar.update(result.duration_s)
    return {
        "streamed": len(offline),
        "same_text": same,
        "different": different[:20],
        "delay_ms": summary_ms(found_s),
        "step_ms": summary_ms(steps_s),
        "rtfx_streamed": round(audio_s / seconds, 2) if seconds else None,
    }


def summary_ms(values_s: Sequence[float]) -> Row | None:
    """Returns count, mean and percentiles in milliseconds; None for no values."""
    if not values_s:
        return None
    points = np.percentile(values_s, PERCENTILES)
    return {
        "count": len(values_s),
        "mean": round(1000 * float(np.mean(values_s)), 1),
        **{f"p{p}": round(1000 * float(value), 1) for p, value in zip(PERCENTILES, points, strict=True)},
    }


def chosen(scored: Sequence[Scored], limit: int) -> list[Scored]:
    """Returns the utterances to stream, spread evenly over those that were transcribed."""
    return spread(list(scored), limit) if limit else []
