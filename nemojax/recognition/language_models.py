"""Files of language models, in each of their formats."""

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nemojax.decoding.arpa import LEAST, read_arpa
from nemojax.decoding.graphs import MAX_BACKOFFS, Graph
from nemojax.decoding.kenlm_binary import MAGIC, read_kenlm
from nemojax.decoding.language_model import language_model_graph, with_most
from nemojax.errors import CheckpointError, LanguageModelError
from nemojax.hub import run_converter

ARCHIVE = ".nemo"


def read_language_model(path: Path, pieces: Sequence[str]) -> Graph:
    """Reads a language model over the pieces of a tokenizer, in the order of labels, in whatever format.

    Raises:
      LanguageModelError: it can't be read, or is not over these pieces; says why.
    """
    try:
        with open(path, "rb") as file:
            beginning = file.read(len(MAGIC))
    except OSError as error:
        raise LanguageModelError(f"{path}: it can't be read: {error.strerror or error}") from None
    if beginning == MAGIC:
        return with_most(read_kenlm(path, pieces))
    if path.suffix == ARCHIVE:
        return _read_archive(path, pieces)
    return language_model_graph(read_arpa(path, pieces), len(pieces))


def _read_archive(path: Path, pieces: Sequence[str]) -> Graph:
    with tempfile.TemporaryDirectory() as directory:
        arrays = Path(directory) / "arrays.npz"
        try:
            run_converter("lm", str(path), str(arrays))
            with np.load(arrays) as found:
                return _graph(path, dict(found), pieces)
        except (CheckpointError, zipfile.BadZipFile) as error:
            raise LanguageModelError(str(error)) from None


def _graph(path: Path, arrays: dict[str, np.ndarray], pieces: Sequence[str]) -> Graph:
    """Returns the graph of NeMo's arrays. Raises LanguageModelError where they contradict each other."""
    begin, end = np.asarray(arrays["start_end_arcs"], np.int64).reshape(-1, 2).T
    backoff, targets = (np.asarray(arrays[name], np.int64) for name in ("backoff_to_states", "to_states"))
    labels, states, arcs = np.asarray(arrays["ilabels"], np.int64), len(begin), int(end.max(initial=0))
    if not states or end[0] - begin[0] != len(pieces):
        count = end[0] - begin[0] if states else 0
        raise LanguageModelError(
            f"{path}: it is over {count} pieces, and the model's tokenizer has {len(pieces)}; estimate it over these, "
            "with nemojax lm"
        )
    scores, backoff_scores = (np.asarray(arrays[name], np.float64) for name in ("arcs_weights", "backoff_weights"))
    lengths = {len(backoff), len(backoff_scores)} == {states} and len({len(labels), len(scores), len(targets)}) == 1
    if not lengths or arcs > len(labels) or begin.min() < 0 or (end < begin).any():
        raise _damaged(path)
    owners = np.repeat(np.arange(states), end - begin)
    places = np.arange(len(owners)) + np.repeat(begin - np.cumsum(end - begin) + (end - begin), end - begin)
    labels, scores, targets = labels[places], scores[places], targets[places]
    ordered = (np.diff(owners * (len(pieces) + 1) + labels) > 0).all()
    inside = all(((each >= 0) & (each < states)).all() for each in (backoff, targets))
    if not ordered or not inside or labels.min() < 0 or labels.max() >= len(pieces):
        raise _damaged(path)
    reached = np.arange(states)
    for _ in range(MAX_BACKOFFS):
        reached = backoff[reached]
    if reached.any() or np.isnan(scores).any() or not np.isfinite(backoff_scores).all():
        raise _damaged(path)
    ends = np.cumsum(end - begin)
    zeros = np.zeros(states)
    scores = np.maximum(scores, LEAST * np.log(10))  # without `<unk>` NeMo has -inf
    graph = Graph(
        int(arrays["start"]), ends - (end - begin), ends, backoff, backoff_scores, zeros, zeros, labels, scores, targets
    )
    return with_most(graph)


def _damaged(path: Path) -> LanguageModelError:
    return LanguageModelError(f"{path}: its arrays contradict each other: it is damaged, or another kind of model")
