"""Beam searches against NeMo's layers and NeMo's own search: the same hypotheses, labels and frames.

NeMo's MAES lets a few labels have their blank free of charge, and is not the same in chunks; the oracle searches on
NeMo's layers without these faults.
"""

import importlib.util
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import bundled
from nemojax.decoding.beam import Beam
from nemojax.decoding.malsd import Malsd
from nemojax.decoding.state import initial_prediction
from nemojax.model.parameters import fill, thaw
from nemojax.recognition.label_tree import LabelTree
from tests.decoding.plain_beams import Network, maes, malsd
from tests.parity.audio import real_speech

# NEMOJAX_ORACLE names another place
ORACLE = Path(os.environ.get("NEMOJAX_ORACLE", Path(__file__).parents[3] / "shared" / "oracle" / "nemo_decode.py"))
WIDTHS = [1, 4, 8]
NEAR_TIE = 1e-3  # of log-probabilities, which differ by rounding
MAX_NEAR_TIES = 1  # of all recordings

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not ORACLE.exists(), reason=f"there is no oracle at {ORACLE}; set NEMOJAX_ORACLE"),
]


@pytest.fixture(scope="module")
def oracle():
    spec = importlib.util.spec_from_file_location("nemo_decode", ORACLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Both:
    """The same weights in NeMo and in nemojax, and NeMo's encoder frames of a few recordings."""

    def __init__(self, nemo, model, encoded: list[np.ndarray]):
        self.nemo, self.model, self.encoded = nemo, model, encoded
        self.length = np.array([len(one) for one in encoded], np.int32)
        frames = -(-int(self.length.max()) // 7) * 7
        self.batch = np.stack([np.pad(one, [(0, frames - len(one)), (0, 0)]) for one in encoded])

    def beam(self, width: int, size: int) -> list[list[tuple]]:
        """The hypotheses of each recording in the order of their scores, searched in segments of `size` frames."""
        search, decode = Beam(width, score_norm=False), _decode(width)
        trees = [LabelTree(score_norm=False) for _ in self.encoded]
        settled = [([], []) for _ in trees]
        state = search.initial_state(initial_prediction(self.model), len(trees))
        for begin in range(0, self.batch.shape[1], size):
            length = np.clip(self.length - begin, 0, size)
            emission, state = decode(self.model, self.batch[:, begin : begin + size], length, state)
            emission = jax.device_get(emission._replace(frames=emission.frames + begin))
            for row, tree in enumerate(trees):
                path = tree.extend(emission, row)
                settled[row][0].extend(path.tokens)
                settled[row][1].extend(path.frames)
        whole = lambda row, rest: (settled[row][0] + rest.tokens, settled[row][1] + rest.frames)
        return [[(*whole(row, one.rest), one.score) for one in tree.ranked(width)] for row, tree in enumerate(trees)]

    def malsd(self, width: int) -> list[list[tuple]]:
        found = jax.device_get(_decode_whole(width)(self.model, self.batch, self.length))
        rows = []
        for row in range(len(self.encoded)):
            order = [w for w in np.argsort(-found.score[row], kind="stable") if found.score[row, w] > -np.inf]
            cut = lambda x, w, row=row: x[row, w, : found.length[row, w]].tolist()
            rows.append([(cut(found.labels, w), cut(found.frames, w), float(found.score[row, w])) for w in order])
        return rows


def _decode(width):
    search = Beam(width, score_norm=False)
    return jax.jit(lambda model, encoded, length, state: search.decode(model, encoded, length, state))


def _decode_whole(width):
    return jax.jit(lambda model, encoded, length: Malsd(width).decode_whole(model, encoded, length))


@pytest.fixture(scope="module")
def random_weights(pair, oracle):
    """NeMo's model is loaded anew, for its search is changed."""
    names = [*pair.speech][-1:] + ["2.5 s of glides", "0.05 s"]
    encoded = [pair.nemo_offline(6)[name]["encoder"] for name in names]
    model = jax.tree.map(jnp.asarray, fill(pair.source.config, pair.source.arrays))
    return Both(oracle.load(str(pair.archive), 6), model, encoded)


@pytest.fixture(scope="module")
def small(oracle):
    from convert.nemo import checkpoint as nemo
    from experiments.references.nemo_model import Nemo
    from nemojax.recognition.recognizer import load

    if not (bundled.SMALL / "config.json").exists():
        pytest.skip(f"there is no model at {bundled.SMALL}")
    rng = np.random.default_rng(5)
    speech = [
        sound for corpus in ("grid", "ljspeech") for sound in real_speech(rng, f"dev/{corpus}", 1.0, 5.0).values()
    ]
    if not speech:
        pytest.skip("there is no speech")
    with tempfile.TemporaryDirectory() as name:
        archive = Path(name, "small.nemo")
        nemo.write(bundled.SMALL, archive)
        model = oracle.load(str(archive), 6)
    encoded = [Nemo(model).offline(samples, 6)["encoder"] for samples in speech]
    return Both(model, thaw(load(bundled.SMALL, compilation_cache=None).model), encoded)


def compare(ours, theirs, margin_of) -> int:
    """Compares the hypotheses of each recording; returns how many differ where rounding alone decides."""
    near_ties = 0
    for row, (found, wanted) in enumerate(zip(ours, theirs, strict=True)):
        same = [one[:2] for one in found] == [(one["tokens"], one["frames"]) for one in wanted]
        if same:
            np.testing.assert_allclose(
                [one[2] for one in found], [one["score"] for one in wanted], atol=5e-3, rtol=1e-4
            )
        else:
            least = np.diff([one["score"] for one in wanted]).max(initial=-np.inf)  # between two in their order
            assert min(margin_of(row), -least) < NEAR_TIE, (row, found, wanted)
            near_ties += 1
    return near_ties


def of_oracle(both, oracle, width):
    import torch

    net = oracle.Net(both.nemo, None, None)
    with torch.inference_mode():
        projected = [both.nemo.joint.project_encoder(torch.tensor(one)[None])[0] for one in both.encoded]
        found = [oracle.maes(net, one, width, True, "lm_weighted_full", False) for one in projected]
    return [[{"tokens": list(h.y), "frames": list(h.f), "score": h.score} for h in one] for one in found]


def of_nemo(both, oracle, width):
    import torch
    from omegaconf import OmegaConf

    settings = oracle.settings(None, 0.0, [], 0.0)[f"malsd-{width}"]
    both.nemo.change_decoding_strategy(OmegaConf.create(settings), verbose=False)
    computer = both.nemo.decoding.decoding.decoding_computer
    return [
        oracle.search(both.nemo, computer, torch.tensor(one)[None], torch.tensor([len(one)]))[0] for one in both.encoded
    ]


def check(both, oracle):
    near_ties = 0
    for width in WIDTHS:
        margin_of = lambda search, row, width=width: margin(search, both, row, width)
        wanted = of_oracle(both, oracle, width)
        for size in (both.batch.shape[1], 7):
            near_ties += compare(both.beam(width, size), wanted, lambda row, m=margin_of: m(maes, row))
        wanted = of_nemo(both, oracle, width)
        near_ties += compare(both.malsd(width), wanted, lambda row, m=margin_of: m(malsd, row))
    assert near_ties <= MAX_NEAR_TIES


def margin(search, both, row, width) -> float:
    """How near the search came to another decision."""
    network = Network(both.model, both.encoded[row])
    length = int(both.length[row])
    if search is maes:
        maes(network, length, width)
    else:
        malsd(network, length, width, both.model.config.max_symbols_per_frame)
    return network.margin


def test_random_weights(random_weights, oracle):
    check(random_weights, oracle)
    assert sum(len(one[0]) for rows in random_weights.beam(8, 7) for one in rows) > 3


def test_the_small_model(small, oracle):
    check(small, oracle)
