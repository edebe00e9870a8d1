"""The bias on blank that gives a label rate."""

import numpy as np
import pytest

from experiments.gpu.calibration import search_bias


def test_a_bias_that_gives_the_rate_is_searched_for():
    bias, rate = search_bias(lambda bias: 10 * np.exp(-bias), -12.0, 12.0, target=0.3)
    assert rate == pytest.approx(0.3, rel=0.1) and bias == pytest.approx(np.log(10 / 0.3), abs=0.1)


def test_without_such_a_bias_the_closest_is_returned():
    bias, rate = search_bias(lambda bias: 0.0, 0.0, 8.0)
    assert rate == 0.0 and 0 <= bias <= 8
