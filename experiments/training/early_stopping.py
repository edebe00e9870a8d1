"""When a run ends early: its dev WER has not fallen for several evaluations."""

from collections.abc import Sequence
from typing import Any

from experiments.training.opening import plural


def dev_wers(rows: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Returns the mean dev WER of each evaluation by its step, from the rows of a run's metrics."""
    wers: dict[int, list[float]] = {}
    for row in rows:
        if row["kind"] == "dev" and row["wer"] is not None:
            wers.setdefault(row["step"], []).append(row["wer"])
    return {step: sum(values) / len(values) for step, values in wers.items()}


def reason_to_end(rows: Sequence[dict[str, Any]], patience: int) -> str | None:
    """Returns why a run ends, in a sentence; None where it does not.

    Args:
      patience: number of evaluations in a row without a lower dev WER that end a run; 0 for any number.
    """
    wers = dev_wers(rows)
    if not patience or not wers:
        return None
    best = min(wers, key=lambda step: wers[step])  # of equal ones the first
    later = sum(step > best for step in wers)
    if later < patience:
        return None
    return (
        f"the dev WER has not fallen in {plural(later, 'evaluation')} since step {best}, where it was {wers[best]:.2%}"
    )
