"""Language models and phrases in greedy search: identical tokens and frames on identical encoder frames."""

import jax
import numpy as np
import pytest

from nemojax.decoding.arpa import write_arpa
from nemojax.decoding.estimation import estimate
from nemojax.decoding.graph_pool import GraphPool
from nemojax.decoding.graphs import Graphs, Rows
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.phrases import Form, phrase_graph
from nemojax.decoding.state import initial_prediction
from nemojax.model.parameters import thaw
from nemojax.recognition.language_models import read_language_model
from nemojax.text.tokenizer import Tokenizer
from tests.decoding.test_greedy import rows

pytestmark = pytest.mark.parity

LOOKAHEAD = 6
WEIGHTS = (0.2, 0.8, 20.0)  # the last one changes labels of any model
BOOSTS = (1.0, 3.0, 20.0)  # the last one changes labels of any model


@pytest.fixture(scope="module")
def encodings(pair):
    """NeMo's encoder frames of each recording, and the labels that it decodes without graphs."""
    traces = [trace["encoder"] for trace in pair.nemo_offline(LOOKAHEAD).values()]
    return [(trace, tuple(pair.nemo.decode(trace)[:2])) for trace in traces if len(trace)]


@pytest.fixture(scope="module")
def with_nemo(pair):
    """Decodes with NeMo, with settings of its greedy search."""
    from omegaconf import OmegaConf, open_dict

    model, before = pair.nemo.model, OmegaConf.to_container(pair.nemo.model.cfg.decoding)

    def decode(encoded, **settings):
        config = OmegaConf.create(before)
        with open_dict(config):
            config.strategy = "greedy_batch"
            config.greedy = {"max_symbols": 10, "use_cuda_graph_decoder": False, **settings}
        model.change_decoding_strategy(config, verbose=False)
        return [tuple(pair.nemo.decode(each)[:2]) for each in encoded]

    yield decode
    model.change_decoding_strategy(OmegaConf.create(before), verbose=False)


def ours(pair, encoded, graph, weight, column):
    """What nemojax decodes with one graph, of each recording alone."""
    search, pool, model = Greedy(fusion=True), GraphPool(pair.source.config.vocabulary), thaw(pair.nemojax.model)
    placed, decode = pool.add(graph), jax.jit(search.decode)
    starts, weights, numbers = np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32), np.zeros((1, 2), np.int32)
    starts[0, column], weights[0, column], numbers[0, column] = placed.start, weight, placed.number
    graphs, longest, found = Graphs(pool.arrays, Rows(starts, weights, numbers)), max(map(len, encoded)), []
    for each in encoded:
        state = search.initial_state(initial_prediction(model), 1)
        padded = np.pad(each, ((0, longest - len(each)), (0, 0)))[None]
        emission, _ = decode(model, padded, np.array([len(each)], np.int32), state, graphs)
        found.append(rows(emission)[0][:2])
    return found


def test_a_language_model(pair, encodings, with_nemo, tmp_path):
    """An ARPA file that NeMo reads, and the archive that it makes of it."""
    from nemo.collections.asr.parts.submodules.ngram_lm import NGramGPULanguageModel

    pieces = pair.source.config.vocabulary
    labels = [each[0] for _, each in encodings] + np.random.default_rng(pair.seed).integers(0, pieces, (20, 9)).tolist()
    path, archive = tmp_path / "lm.arpa", tmp_path / "lm.nemo"
    write_arpa(path, estimate(labels, pieces, 4))
    NGramGPULanguageModel.from_file(str(path), vocab_size=pieces, use_triton=False).save_to(str(archive))
    tokenizer = Tokenizer(pair.source.tokenizer)
    encoded, changed = [trace for trace, _ in encodings], 0
    for weight in WEIGHTS:
        expected = with_nemo(encoded, ngram_lm_model=str(path), ngram_lm_alpha=weight)
        for file in (path, archive):
            graph = read_language_model(file, [tokenizer.piece(label) for label in range(pieces)])
            assert ours(pair, encoded, graph, weight, 0) == expected, (file.name, weight)
        changed += sum(each != plain for each, (_, plain) in zip(expected, encodings, strict=True))
    assert changed, "the language model changed no label; this proves nothing"


def test_phrases(pair, encodings, with_nemo):
    """Phrases that share no piece, of few pieces: others NeMo scores wrongly, and for long ones nemojax has a limit."""
    tokenizer, rng = Tokenizer(pair.source.tokenizer), np.random.default_rng(pair.seed)
    phrases, used = {}, set()
    for _ in range(300):
        text = tokenizer.decode(rng.integers(1, tokenizer.size, 2).tolist()).strip()
        labels = tuple(tokenizer.encode(text)) if text else ()
        if 2 <= len(labels) <= 3 and len(set(labels)) == len(labels) and not used & {0, *labels}:
            phrases[text] = labels
            used |= set(labels)
    encoded, changed = [trace for trace, _ in encodings], 0
    for boost in BOOSTS:
        tree = {"key_phrases_list": list(phrases), "use_triton": False}
        expected = with_nemo(encoded, boosting_tree=tree, boosting_tree_alpha=boost)
        graph = phrase_graph([Form(labels, boost) for labels in phrases.values()])
        assert ours(pair, encoded, graph, 1.0, 1) == expected, boost
        changed += sum(each != plain for each, (_, plain) in zip(expected, encodings, strict=True))
    assert len(phrases) > 1 and changed, "the phrases changed no label; this proves nothing"
