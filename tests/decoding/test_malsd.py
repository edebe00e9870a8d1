import dataclasses

import jax
import numpy as np
import pytest

from nemojax.decoding.greedy import Greedy
from nemojax.decoding.malsd import Malsd
from nemojax.decoding.state import initial_prediction
from nemojax.errors import ConfigError
from tests.conftest import random_model
from tests.decoding.plain_beams import Network, malsd
from tests.decoding.test_beam import ends
from tests.helpers.definitions import normal
from tests.helpers.messages import whole

LENGTHS = np.array([12, 5, 1, 0], np.int32)
decode = jax.jit(lambda model, encoded, length, search: search.decode_whole(model, encoded, length), static_argnums=3)


@pytest.fixture(scope="module", params=[-4.0, 14.0])
def case(request, tiny_config):
    """A model that fills frames with labels, and one that does not, of which hypotheses come to the same labels."""
    config = dataclasses.replace(tiny_config, max_symbols_per_frame=2)
    model = random_model(config, seed=1, blank_bias=request.param)
    return model, 2.0 * normal(0, 4, 12, config.encoder.width)


@pytest.mark.parametrize("width", [2, 4])
def test_it_is_the_definition(case, width):
    model, encoded = case
    emission = jax.device_get(decode(model, encoded, LENGTHS, Malsd(width)))
    for row, length in enumerate(LENGTHS.tolist()):
        expected = malsd(Network(model, encoded[row]), length, width, 2)
        found = ends(emission, row)
        assert set(found) == {one.labels for one in expected}
        for one in expected:
            frames, log_probs, score = found[one.labels]
            assert frames == one.frames and score == pytest.approx(one.score, abs=1e-3)
            np.testing.assert_allclose(log_probs, one.log_probs, atol=2e-4)


def test_a_width_of_one_is_greedy_search(case):
    model, encoded = case
    emission = jax.device_get(decode(model, encoded, LENGTHS, Malsd(1)))
    search = Greedy()
    state = search.initial_state(initial_prediction(model), 4)
    greedy, _ = jax.device_get(jax.jit(search.decode)(model, encoded, LENGTHS, state))
    for row in range(4):
        count = greedy.length[row]
        assert emission.length[row, 0] == count
        for found, wanted in ((emission.labels, greedy.labels), (emission.frames, greedy.frames)):
            assert found[row, 0, :count].tolist() == wanted[row, :count].tolist()
    assert greedy.length[0] > 4


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match=whole("width of a beam must be a whole number of at least 1, not 0")):
        Malsd(0)
    message = "max_symbols_per_frame must be a whole number of at least 1, not 0"
    with pytest.raises(ConfigError, match=whole(message)):
        Malsd(4, 0)
