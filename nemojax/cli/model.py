"""Loading the model that a command line names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.compilation import Program, Watch, directory

if TYPE_CHECKING:  # importing jax takes seconds, and help or a wrong command should not wait for it
    from nemojax.recognition.recognizer import Recognizer


def load(
    model: Path,
    dtype: str,
    kernels: str,
    attention: str,
    reset_prediction_after_s: float | None = None,
    reproducible: bool = False,
    confidence: str | None = None,
) -> "Recognizer":
    """Loads a model, with a note on standard error if it is the small one.

    On a terminal, standard error shows from then on what takes long to compile.
    """
    from nemojax.recognition import recognizer

    if sys.stderr.isatty():
        Watch(show_compilation).start()
    if model == SMALL:
        print(f"note: {SMALL_NOTE}", file=sys.stderr)
    loaded = recognizer.load(model, dtype, kernels, attention, reproducible=reproducible or None)
    if confidence is not None:
        loaded = loaded.with_confidence(confidence)
    return loaded if reset_prediction_after_s is None else loaded.with_reset(reset_prediction_after_s)


def show_compilation(program: Program) -> None:
    """Shows on standard error that a program is being compiled, or how long that took; above a progress bar."""
    if program.seconds is not None:
        text = f"compiled {program.name} in {program.seconds:.1f} s"
    else:
        text = f"compiling {program.name}{', once' if directory() is not None else ''} ..."
    tqdm.write(text, file=sys.stderr)
