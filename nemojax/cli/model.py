"""Loading the model that a command line names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.checks import check_count
from nemojax.compilation import Program, Watch, directory
from nemojax.errors import ConfigError

if TYPE_CHECKING:  # importing jax takes seconds, and help or a wrong command should not wait for it
    from nemojax.decoding.beam import Beam
    from nemojax.recognition.recognizer import Recognizer


def load(
    model: Path,
    dtype: str,
    kernels: str,
    attention: str,
    reset_prediction_after_s: float | None = None,
    reproducible: bool = False,
    beam: int | None = None,
    n_best: int | None = None,
    confidence: str | None = None,
) -> "Recognizer":
    """Loads a model, with a note on standard error if it is the small one.

    On a terminal, standard error shows from then on what takes long to compile.

    Args:
      beam: the width of a beam search; None for greedy search.
      n_best: the number of hypotheses that a transcript lists.
    """
    from nemojax.recognition import recognizer

    search = None if beam is None else _beam(beam, n_best)
    if sys.stderr.isatty():
        Watch(show_compilation).start()
    if model == SMALL:
        print(f"note: {SMALL_NOTE}", file=sys.stderr)
    loaded = recognizer.load(model, dtype, kernels, attention, reproducible=reproducible or None)
    if search is not None:
        loaded = loaded.with_search(search)
    if confidence is not None:
        loaded = loaded.with_confidence(confidence)
    return loaded if reset_prediction_after_s is None else loaded.with_reset(reset_prediction_after_s)


def check_beam(beam: int | None, n_best: int | None, reset_prediction_after_s: float | None) -> None:
    """Raises ConfigError for options of a beam search that do not go together."""
    if beam is not None:
        check_count("--beam", beam)
    if n_best is not None:
        check_count("--n-best", n_best)
        if beam is None:
            raise ConfigError("--n-best needs --beam: greedy search has one hypothesis")
        if n_best > beam:
            raise ConfigError(f"--n-best must be at most the width of --beam, {beam}, not {n_best}")
    if beam is not None and reset_prediction_after_s is not None:
        raise ConfigError(
            "--reset-prediction-after-s can't be combined with --beam: only greedy search begins anew after a pause"
        )


def _beam(width: int, n_best: int | None) -> "Beam":
    from nemojax.decoding.beam import Beam

    return Beam(width, n_best=n_best or 0)


def show_compilation(program: Program) -> None:
    """Shows on standard error that a program is being compiled, or how long that took; above a progress bar."""
    if program.seconds is not None:
        text = f"compiled {program.name} in {program.seconds:.1f} s"
    else:
        text = f"compiling {program.name}{', once' if directory() is not None else ''} ..."
    tqdm.write(text, file=sys.stderr)
