"""The graphs of a recognizer and of its streams: its language model, and phrases."""

import hashlib
import threading
import weakref
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nemojax.checks import check_weight
from nemojax.decoding.graph_pool import GraphPool, PlacedGraph
from nemojax.decoding.graphs import COLUMNS, Graph, Rows
from nemojax.decoding.phrases import Form, phrase_graph
from nemojax.errors import ConfigError
from nemojax.recognition.language_models import read_language_model
from nemojax.text.phrases import Phrases, checked, marks, spellings
from nemojax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class StreamGraphs:
    """The graphs of one stream, in the order of the columns of `Rows`. The weight is that of the language model."""

    language_model: PlacedGraph | None = None
    phrases: PlacedGraph | None = None
    lm_weight: float = 0.0

    @property
    def placed(self) -> list[PlacedGraph]:
        """Those that there are."""
        return [graph for graph in (self.language_model, self.phrases) if graph is not None]

    @property
    def starts(self) -> list[int]:
        """Of each, the state of a new stream."""
        return [0 if graph is None else graph.start for graph in (self.language_model, self.phrases)]

    @property
    def numbers(self) -> list[int]:
        """Of each, its number."""
        return [0 if graph is None else graph.number for graph in (self.language_model, self.phrases)]

    @property
    def weights(self) -> list[float]:
        """Of each, its weight; boosts of phrases are in their scores."""
        return [self.lm_weight, 1.0]

    @property
    def settings(self) -> dict[str, str | float]:
        """What tells these from others, for the settings of a job."""
        found: dict[str, str | float] = {}
        if self.language_model is not None:
            found |= {"lm": self.language_model.digest, "lm_weight": self.lm_weight}
        return found | ({} if self.phrases is None else {"phrases": self.phrases.digest})


NO_GRAPHS = StreamGraphs()
DEFAULT_LM_WEIGHT = 0.3  # 0.2 to 0.4 are usual


class GraphRows:
    """The graphs of the rows of a step, on the host.

    Attributes:
      placed: all graphs; they keep their places in the pool until the step has been taken.
    """

    def __init__(self, size: int):
        shape = size, COLUMNS
        self._starts, self._weights = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        self._numbers = np.zeros(shape, np.int32)
        self.placed: set[PlacedGraph] = set()

    def put(self, row: int, graphs: StreamGraphs) -> None:
        """Gives a row the graphs of its stream."""
        self._starts[row], self._weights[row], self._numbers[row] = graphs.starts, graphs.weights, graphs.numbers
        self.placed.update(graphs.placed)

    def clear(self, row: int | None = None) -> None:
        """Takes the graphs of a row away, or of all."""
        if self.placed:
            rows = slice(None) if row is None else row
            self._starts[rows], self._weights[rows], self._numbers[rows] = 0, 0, 0
        if row is None:
            self.placed.clear()

    def chosen(self, rows: slice | np.ndarray) -> "GraphRows":
        """Returns some of the rows; a slice of them in the same memory."""
        chosen = copy(self)
        chosen._starts, chosen._weights, chosen._numbers = self._starts[rows], self._weights[rows], self._numbers[rows]
        return chosen

    @property
    def key(self) -> tuple[bytes, ...]:
        """The same for rows that are alike."""
        return self._starts.tobytes(), self._weights.tobytes(), self._numbers.tobytes()

    def on_device(self, rows: int) -> Rows:
        """Returns the rows on the device, filled up to this number."""
        arrays = self._starts, self._weights, self._numbers
        return Rows(*jax.device_put(tuple(np.pad(array, [(0, rows - len(array)), (0, 0)]) for array in arrays)))


class GraphLibrary:
    """Makes graphs for one tokenizer, in one pool. Equal lists of phrases share a graph. It is safe among threads."""

    def __init__(self, tokenizer: Tokenizer):
        self.pool = GraphPool(tokenizer.size)
        self._tokenizer, self._marks = tokenizer, marks(tokenizer)
        self._pieces = [tokenizer.piece(label) for label in range(tokenizer.size)]
        self._lock = threading.Lock()
        self._placed: weakref.WeakValueDictionary[object, PlacedGraph] = weakref.WeakValueDictionary()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_placed": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _placed=weakref.WeakValueDictionary())

    def phrases(self, phrases: Phrases | PlacedGraph | None) -> PlacedGraph | None:
        """Returns the graph of phrases; None where there are none. Raises ConfigError, see `spellings`."""
        if isinstance(phrases, PlacedGraph) and phrases.pool is not self.pool:
            raise ConfigError(
                "these phrases were prepared by another recognizer; prepare them with this one's phrases()"
            )
        if phrases is None or isinstance(phrases, PlacedGraph):
            return phrases
        if not (given := checked(phrases)):
            return None
        with self._lock:
            if (placed := self._placed.get(given)) is None:
                forms = [Form(*spelling) for spelling in spellings(self._tokenizer, given)]
                placed = self._place(phrase_graph(forms, self._marks), given)
        return placed

    def language_model(self, path: str | Path) -> PlacedGraph:
        """Reads a language model. Raises LanguageModelError: it can't be read, or is not over these pieces."""
        graph = read_language_model(Path(path), self._pieces)
        with self._lock:
            return self._place(graph, object())

    def _place(self, graph: Graph, key: object) -> PlacedGraph:
        digest = hashlib.sha256(b"".join(array.tobytes() for array in graph[1:])).hexdigest()[:16]
        self._placed[key] = placed = self.pool.add(graph, digest)
        return placed

    def graphs(
        self, given: StreamGraphs, phrases: Phrases | PlacedGraph | None, lm_weight: float | None
    ) -> StreamGraphs:
        """Returns the graphs `given`, with other phrases or another weight where those are not None."""
        if lm_weight is not None:
            check_weight("lm_weight", lm_weight)
            if given.language_model is None:
                raise ConfigError("lm_weight is the weight of a language model, and there is none; load one first")
        return StreamGraphs(
            given.language_model,
            given.phrases if phrases is None else self.phrases(phrases),
            given.lm_weight if lm_weight is None else float(lm_weight),
        )
