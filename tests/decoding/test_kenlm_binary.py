"""Models of KenLM, asked through its package, or through one like it."""

import math
import sys
from types import SimpleNamespace

import pytest

from nemojax.decoding.kenlm_binary import MAGIC, read_kenlm
from nemojax.errors import LanguageModelError
from nemojax.recognition.language_models import read_language_model
from tests.decoding.test_graphs import looked_up
from tests.decoding.test_language_model import COUNT, PIECES, WORDS, random_orders, score_of
from tests.helpers.messages import whole

ORDER = 3


class State:
    """The words that a score depends on."""

    words: tuple = ()

    def __eq__(self, other):
        return self.words == other.words

    def __hash__(self):
        return hash(self.words)


class Model:
    """The questions that a model of the kenlm package answers, on n-grams of a test."""

    orders = random_orders(0, ORDER, labels=COUNT - 1)

    def __init__(self, path):
        pass

    def __contains__(self, word):
        return word in WORDS["nemo"] and (WORDS["nemo"].index(word),) in self.orders[0]

    def NullContextWrite(self, state):
        state.words = ()

    def BeginSentenceWrite(self, state):
        state.words = ("<s>",)

    def BaseFullScore(self, state, word, after):
        label = WORDS["nemo"].index(word)
        after.words = (*state.words, label)[-ORDER + 1 :]
        while after.words and not self.goes_on(after.words):
            after.words = after.words[1:]
        score = score_of(self.orders, state.words, label, -2.5) / math.log(10)
        lengths = [
            n for n in range(len(state.words) + 1) if (*state.words[len(state.words) - n :], label) in self.orders[n]
        ]
        return SimpleNamespace(log_prob=score, ngram_length=max(lengths, default=0) + 1, oov=word not in self)

    def BaseScore(self, state, word, after):
        return self.BaseFullScore(state, word, after).log_prob

    def goes_on(self, words):
        """Whether a score depends on these words: they have a backoff, or begin an n-gram."""
        known = any(key[: len(words)] == words for entries in self.orders[len(words) :] for key in entries)
        return known or bool((self.orders[len(words) - 1].get(words) or (0, 0))[1])


def test_states_are_explored(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", SimpleNamespace(Model=Model, State=State))
    path = tmp_path / "lm.bin"
    path.write_bytes(MAGIC + b" format version 5\n")
    graph = read_language_model(path, PIECES)
    missing = [y for y in range(COUNT) if (y,) not in Model.orders[0]]
    for labels in ([1, 2, 3, 4, 2, 2], [4, 4, 5, 0, 1], [3, 1, 1, 2, 4, 3, 2, 1]):
        state, history = graph.start, ["<s>"]
        for label in labels:
            score, state = looked_up(graph, state, label)
            expected = score_of(Model.orders, history, label, -2.5 - math.log10(len(missing)))
            assert score == pytest.approx(expected, abs=1e-6)
            history.append(label)


def test_without_the_package_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    path = tmp_path / "lm.bin"
    message = (
        f"{path}: it is a binary file of KenLM, which only its package can read: pip install kenlm-ex; or give the "
        "ARPA file that it was made from"
    )
    with pytest.raises(LanguageModelError, match=whole(message)):
        read_kenlm(path, PIECES)
    monkeypatch.setitem(sys.modules, "kenlm", SimpleNamespace(Model=Model, State=State))
    message = (
        f"{path}: none of its words is a piece of the model's tokenizer; estimate the language model over its pieces, "
        "with nemojax lm"
    )
    monkeypatch.setattr(Model, "__contains__", lambda *_: False)
    with pytest.raises(LanguageModelError, match=whole(message)):
        read_kenlm(path, PIECES)
