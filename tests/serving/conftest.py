"""Recordings for streams."""

import numpy as np
import pytest

from tests.serving.running import LOOKAHEAD


@pytest.fixture(scope="module")
def recordings(speech):
    """Of many lengths: none, one sample, around a chunk's end, long."""
    chunk = 1280 * (LOOKAHEAD + 1)
    lengths = [0, 1, chunk - 1080, chunk - 1081, chunk - 1079, chunk, 3 * chunk - 1080, 20_000, 47_111, 90_000]
    return [np.roll(speech, 7_000 * index)[:length] for index, length in enumerate(lengths)]
