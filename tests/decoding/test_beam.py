import dataclasses
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.decoding.beam import Beam
from nemojax.decoding.state import initial_prediction
from nemojax.errors import ConfigError
from nemojax.kernels.fixed_order import fix_order
from nemojax.recognition.label_tree import LabelTree
from tests.conftest import random_model
from tests.decoding.plain_beams import Network, maes
from tests.helpers.compiler import needs_compiler
from tests.helpers.definitions import normal
from tests.helpers.messages import whole

LENGTHS = np.array([20, 13, 1, 0], np.int32)
decode = jax.jit(
    lambda model, encoded, length, state, search: search.decode(model, encoded, length, state), static_argnames="search"
)


def decoded(search, model, encoded, length, state=None):
    """The emission, on the host, and the state after it."""
    start = search.initial_state(initial_prediction(model), len(encoded)) if state is None else state
    emission, state = decode(model, encoded, length, start, search=search)
    return jax.device_get(emission), state


def ends(emission, row) -> dict:
    """The hypotheses of a row: frames, log-probabilities and score by labels."""
    live = np.flatnonzero(emission.score[row] > -np.inf)
    cut = lambda x, w: tuple(x[row, w, : emission.length[row, w]].tolist())
    return {
        cut(emission.labels, w): (
            cut(emission.frames, w),
            cut(emission.log_probs, w),
            float(emission.score[row, w] + emission.total[row]),
        )
        for w in live
    }


@pytest.mark.parametrize(
    ("blank_bias", "search"),
    [(-4.0, Beam(2)), (8.0, Beam(4)), (14.0, Beam(4)), (14.0, Beam(1, expansions=1)), (8.0, Beam(3, 3, 0, 5.0))],
)
def test_it_is_the_definition(tiny_config, blank_bias, search):
    model = random_model(tiny_config, seed=1, blank_bias=blank_bias)
    encoded = 2.0 * normal(0, 4, 20, tiny_config.encoder.width)
    emission, _ = decoded(search, model, encoded, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        expected = maes(
            Network(model, encoded[row]), length, search.width, search.expansions, search.beta, search.gamma
        )
        found = ends(emission, row)
        assert set(found) == {one.labels for one in expected}
        for one in expected:
            frames, log_probs, score = found[one.labels]
            assert frames == one.frames
            np.testing.assert_allclose(log_probs, one.log_probs, atol=2e-4)
            assert score == pytest.approx(one.score, abs=1e-3, rel=1e-5)
    assert max(map(len, ends(emission, 0))) > 10


@pytest.fixture(scope="module")
def fixed(tiny_config):
    """A model in the form of fixed sums, encoder frames, and what each row gets alone, in one segment."""
    model = fix_order(random_model(tiny_config, seed=1, blank_bias=14.0))
    encoded = 2.0 * normal(0, 4, 20, tiny_config.encoder.width)
    search = Beam(4)
    alone = []
    for row, length in enumerate(LENGTHS):
        emission, _ = decoded(search, model, encoded[row : row + 1], np.array([length]))
        alone.append(ends(emission, 0))
    assert len(alone[0]) == 4 and min(map(len, alone[0])) > 10
    return search, model, encoded, alone


def joined(before, emission, row, begin) -> dict:
    """The labels, frames and log-probabilities of each place after a segment; `before` are those before it."""
    cut = lambda x, w: x[row, w, : emission.length[row, w]].tolist()
    after = {}
    for w in np.flatnonzero(emission.score[row] > -np.inf).tolist():
        frames = [frame + begin for frame in cut(emission.frames, w)]
        gained = cut(emission.labels, w), frames, cut(emission.log_probs, w)
        old = before[int(emission.root[row, w])]
        after[w] = tuple((*x, *y) for x, y in zip(old, gained, strict=True))
    return after


def whole_of(pieces) -> dict:
    """The hypotheses at the end of several segments, as `ends` has them, without the library's tree."""
    paths = {0: ((), (), ())}
    for emission, row, begin in pieces:
        paths = joined(paths, emission, row, begin)
    score = lambda w: float(emission.score[row, w] + emission.total[row])
    return {labels: (frames, log_probs, score(w)) for w, (labels, frames, log_probs) in paths.items()}


@needs_compiler
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_any_cut_beside_any_neighbors_gives_the_same_bits(fixed, seed):
    """Rows in another order, each cut into pieces of its own, with frames of NaN past their ends."""
    search, model, encoded, alone = fixed
    rng = np.random.default_rng(seed)
    order, size = rng.permutation(4), 5
    position, pieces = np.zeros(4, np.int32), [[] for _ in order]
    state, lengths = None, LENGTHS[order]
    while (position < lengths).any() or state is None:
        length = np.minimum(rng.integers(0, size + 1, 4), lengths - position).astype(np.int32)
        part = np.full((4, size, encoded.shape[2]), np.nan, np.float32)
        for place, row in enumerate(order):
            part[place, : length[place]] = encoded[row, position[place] : position[place] + length[place]]
        emission, state = decoded(search, model, part, length, state)
        for place in range(4):
            pieces[place].append((emission, place, int(position[place])))
        position += length
    for place, row in enumerate(order):
        assert whole_of(pieces[place]) == alone[row]
        tree, settled = LabelTree(), []
        for emission, _, _ in pieces[place]:
            settled += tree.extend(emission, place).tokens
        best = max(alone[row], key=lambda labels: alone[row][labels][2] / (len(labels) + 1))
        assert (*settled, *tree.collapse().tokens) == best


@needs_compiler
@pytest.mark.parametrize("window", [1, 3, 20])
def test_the_window_changes_nothing(fixed, window):
    search, model, encoded, alone = fixed
    emission, _ = decoded(dataclasses.replace(search, window_frames=window), model, encoded, LENGTHS)
    assert [ends(emission, row) for row in range(4)] == alone


def test_the_next_chunk_compiles_nothing(tiny_model):
    search, encoded = Beam(2), normal(0, 2, 4, tiny_model.config.encoder.width)
    compiled = jax.jit(search.decode)
    state = search.initial_state(initial_prediction(tiny_model), 2)
    for length in ([4, 4], [0, 3], [2, 0]):
        _, state = compiled(tiny_model, encoded, np.array(length, np.int32), state)
    assert compiled._cache_size() == 1
    types = jax.eval_shape(search.decode, tiny_model, encoded, np.array([4, 4], np.int32), state)[1]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), types) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_a_row_without_frames_keeps_its_state(tiny_model):
    search, encoded = Beam(2), normal(0, 2, 4, tiny_model.config.encoder.width)
    _, before = decoded(search, tiny_model, encoded, np.array([4, 4], np.int32))
    emission, after = decoded(search, tiny_model, encoded, np.array([4, 0], np.int32), before)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a[1] == b[1]).all()), before, after)))
    assert emission.root[1].tolist() == [0, 1] and not emission.length[1].any()


def alignments(network, frames, one, frame=0, log_prob=0.0):
    """Yields the labels and the log-probability of every alignment that a beam of all hypotheses follows.

    With one expansion, a frame adds at most one label, or a second one where no hypothesis had so many labels before.
    """
    if frame == frames:
        yield one.labels, log_prob
        return
    counts = (0, 1, 2) if len(one.labels) == frame - 1 else (0, 1)
    for labels in itertools.chain(*(itertools.product(range(network.blank), repeat=count) for count in counts)):
        after, total = one, log_prob
        for label in labels:
            total += network.scores(frame, after)[label]
            after = network.extend(after, label, frame, 0.0, 0.0)
        yield from alignments(network, frames, after, frame + 1, total + network.scores(frame, after)[network.blank])


def test_a_beam_of_all_hypotheses_sums_over_alignments(tiny_config):
    """Three frames and three labels: 40 hypotheses."""
    config = dataclasses.replace(tiny_config, vocabulary=3)
    model = random_model(config, seed=4, blank_bias=8.0)
    encoded = 2.0 * normal(2, 1, 3, config.encoder.width)
    emission, _ = decoded(Beam(40, expansions=1, gamma=float("inf")), model, encoded, np.array([3], np.int32))
    found = {labels: score for labels, (_, _, score) in ends(emission, 0).items()}

    network, expected = Network(model, encoded[0]), {}
    for labels, log_prob in alignments(network, 3, network.start()):
        expected[labels] = np.logaddexp(expected.get(labels, -np.inf), log_prob)
    assert len(expected) == 40 and found == pytest.approx(expected, abs=1e-4)
    assert max(found.values()) <= 0 and 0.5 < sum(np.exp(list(found.values()))) <= 1


def test_scores_stay_exact_over_hours(tiny_model):
    """What is kept of each hypothesis is relative to the best one."""
    search, encoded = Beam(4), normal(0, 1, 40, tiny_model.config.encoder.width)
    _, state = decoded(search, tiny_model, encoded, np.array([40], np.int32))
    assert float(state.total[0]) < -20 and float(abs(state.score).max()) < 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width of a beam must be a whole number of at least 1, not 0"),
        ({"width": 65}, "width of a beam must be at most 64 hypotheses, not 65"),
        ({"expansions": 0}, "expansions of a beam must be a whole number of at least 1, not 0"),
        ({"beta": -1}, "beta of a beam must be a whole number of at least 0, not -1"),
        ({"gamma": 0.0}, "gamma of a beam must be a number of more than 0, not 0.0"),
        ({"gamma": float("nan")}, "gamma of a beam must be a number of more than 0, not nan"),
        ({"n_best": 5}, "n_best must be at most the width of the beam, 4, not 5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=whole(message)):
        Beam(**settings)


def test_the_number_of_hypotheses_listed_compiles_nothing():
    assert Beam(4, n_best=2) == Beam(4) and hash(Beam(4, n_best=2)) == hash(Beam(4))
