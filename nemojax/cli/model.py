"""Loading the model that a command line names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nemojax.bundled import SMALL, SMALL_NOTE

if TYPE_CHECKING:  # importing jax takes seconds, and help or a wrong command should not wait for it
    from nemojax.recognition.recognizer import Recognizer


def load(
    model: Path, dtype: str, kernels: str, attention: str, reset_prediction_after_s: float | None = None
) -> "Recognizer":
    """Loads a model, with a note on standard error if it is the small one."""
    from nemojax.recognition import recognizer

    if model == SMALL:
        print(f"note: {SMALL_NOTE}", file=sys.stderr)
    loaded = recognizer.load(model, dtype, kernels, attention)
    return loaded if reset_prediction_after_s is None else loaded.with_reset(reset_prediction_after_s)
