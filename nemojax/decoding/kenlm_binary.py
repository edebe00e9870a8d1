"""Reads a binary file of KenLM through the kenlm package, which answers questions and lists nothing.

So every state that labels can lead to is asked for the score of every label: a thousand states take about a second.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemojax.decoding.arpa import NEMO_OFFSET
from nemojax.decoding.graphs import Graph
from nemojax.errors import LanguageModelError, shown

MAGIC = b"mmap lm http://kheafield.com/code"


def read_kenlm(path: Path, pieces: Sequence[str]) -> Graph:
    """Returns the graph of a model of KenLM over the pieces of a tokenizer.

    Raises:
      LanguageModelError: the package is missing, the file can't be read, or is not over these pieces.
    """
    try:
        import kenlm
    except ImportError:
        raise LanguageModelError(
            f"{path}: it is a binary file of KenLM, which only its package can read: pip install kenlm-ex; or give the "
            "ARPA file that it was made from"
        ) from None
    try:
        model = kenlm.Model(str(path))
    except (OSError, RuntimeError) as error:
        raise LanguageModelError(f"{path}: KenLM can't read it: {shown(error, 200)}") from None
    labels = range(len(pieces))
    spellings = [[chr(NEMO_OFFSET + label) for label in labels], list(pieces), list(map(str, labels))]
    words = max(spellings, key=lambda spelling: sum(word in model for word in spelling))
    if not any(word in model for word in words):
        raise LanguageModelError(
            f"{path}: none of its words is a piece of the model's tokenizer; estimate the language model over its "
            "pieces, with nemojax lm"
        )
    return _Explorer(model, words, kenlm.State).graph()


class _Explorer:
    """Follows every label from every state, from that of no labels and that of the beginning on."""

    def __init__(self, model: Any, words: Sequence[str], new_state: Callable[[], Any]):
        self._model, self._words, self._new_state = model, words, new_state
        self._shared = math.log(max(1, sum(word not in model for word in words)))  # of the unknown word
        self._numbers: dict[Any, int] = {}
        self._contexts: list[tuple[int, ...]] = []  # labels that lead to each state; -1 is the beginning
        self._states: list[Any] = []

    def graph(self) -> Graph:
        root, begin = self._new_state(), self._new_state()
        self._model.NullContextWrite(root)
        self._model.BeginSentenceWrite(begin)
        self._number(root, ())
        start = self._number(begin, (-1,))
        arcs: list[list[tuple[int, float, int]]] = []
        backoffs: list[tuple[int, float]] = []
        while len(arcs) < len(self._states):
            found, backoff = self._explore(len(arcs))
            arcs.append(found)
            backoffs.append(backoff)
        ends = np.cumsum([len(found) for found in arcs])
        flat = [arc for found in arcs for arc in found]
        zeros = np.zeros(len(arcs))
        return Graph(
            start,
            np.concatenate([[0], ends[:-1]]),
            ends,
            np.array([state for state, _ in backoffs]),
            np.array([weight for _, weight in backoffs]) * math.log(10),
            zeros,
            zeros,
            np.array([label for label, _, _ in flat]),
            np.array([score for _, score, _ in flat]) * math.log(10),
            np.array([target for _, _, target in flat]),
        )

    def _number(self, state: Any, context: tuple[int, ...]) -> int:
        if state not in self._numbers:
            while context and self._after(context[1:]) == state:  # what the state has forgotten
                context = context[1:]
            self._numbers[state] = len(self._states)
            self._states.append(state)
            self._contexts.append(context)
        return self._numbers[state]

    def _after(self, labels: tuple[int, ...]) -> Any:
        """Returns the state after labels alone."""
        state = self._new_state()
        if labels[:1] == (-1,):
            self._model.BeginSentenceWrite(state)
        else:
            self._model.NullContextWrite(state)
        for label in labels:
            if label >= 0:
                after = self._new_state()
                self._model.BaseScore(state, self._words[label], after)
                state = after
        return state

    def _explore(self, number: int) -> tuple[list[tuple[int, float, int]], tuple[int, float]]:
        """Returns the arcs of a state, and the state that it backs off to with the weight."""
        state, context = self._states[number], self._contexts[number]
        shorter = self._after(context[1:])
        arcs: list[tuple[int, float, int]] = []
        weight = 0.0
        for label, word in enumerate(self._words):
            after, other = self._new_state(), self._new_state()
            result = self._model.BaseFullScore(state, word, after)
            backed_off = self._model.BaseScore(shorter, word, other)
            # where an n-gram is pruned that begins others, its label has no score of its own, but a state
            if not context or result.ngram_length > len(context) or after != other:
                score = result.log_prob - (self._shared / math.log(10) if result.oov else 0.0)
                arcs.append((label, score, self._number(after, (*context, label))))
            else:
                weight = result.log_prob - backed_off
        return arcs, (self._number(shorter, context[1:]), weight)
