"""Loading the model that a command line names."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nemojax.bundled import SMALL, SMALL_NOTE
from nemojax.checks import check_count, check_weight
from nemojax.compilation import Program, Watch, directory
from nemojax.errors import ConfigError
from nemojax.text.phrases import read_phrases

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
    lm: Path | None = None,
    lm_weight: float | None = None,
    phrases: Path | None = None,
) -> "Recognizer":
    """Loads a model, with a note on standard error if it is the small one.

    On a terminal, standard error shows from then on what takes long to compile.

    Args:
      beam: the width of a beam search; None for greedy search.
      n_best: the number of hypotheses that a transcript lists.
      confidence: the measure of confidences, see `Confidence.parse`.
      lm, phrases: the files of a language model, and of phrases.
    """
    if lm_weight is not None:
        check_weight("--lm-weight", lm_weight)
        if lm is None:
            raise ConfigError("--lm-weight is the weight of a language model; name one with --lm")
    expected = None if phrases is None else read_phrases(phrases)
    from nemojax.recognition import recognizer
    from nemojax.recognition.stream_graphs import DEFAULT_LM_WEIGHT

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
    if reset_prediction_after_s is not None:
        loaded = loaded.with_reset(reset_prediction_after_s)
    if lm is not None:
        loaded = loaded.with_language_model(lm, DEFAULT_LM_WEIGHT if lm_weight is None else lm_weight)
    return loaded if expected is None else loaded.with_phrases(expected)


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


def check_confidence(confidence: str) -> None:
    """Raises ConfigError for what is no measure of confidence."""
    from nemojax.decoding.confidence import Confidence

    Confidence.parse(confidence)


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
