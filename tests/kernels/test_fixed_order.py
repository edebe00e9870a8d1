"""Sums in a fixed order: right within rounding, and the same bits whatever the rows, the segment and the ring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.config import PRESETS
from nemojax.kernels import native, processors
from nemojax.kernels.fixed_layers import layer_norm, log_sum_exp, mel_energies
from nemojax.kernels.fixed_order import fix_order
from nemojax.kernels.panels import product, to_panels, to_tiles
from nemojax.model import features
from nemojax.model.parameters import named_parameters
from tests.helpers.compiler import COMPILER, needs_compiler

pytestmark = needs_compiler


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def norm(*arrays: np.ndarray) -> np.ndarray:
    return np.asarray(layer_norm(*map(jnp.asarray, arrays)))


def total(x: np.ndarray) -> np.ndarray:
    return np.asarray(log_sum_exp(jnp.asarray(x)))


def assert_same_bits(x, y) -> None:
    np.testing.assert_array_equal(np.asarray(x).view(np.uint32), np.asarray(y).view(np.uint32))


@pytest.mark.parametrize("width", [1, 15, 16, 17, 100, 144, 1024])
def test_layer_norm_and_log_sum_exp_are_right_and_the_same_in_any_company(width):
    x, scale, bias = drawn(70, width, scale=5.0), drawn(width, seed=1), drawn(width, seed=2)
    exact = x.astype(np.float64)
    centered = exact - exact.mean(1, keepdims=True)
    normed = centered / np.sqrt(np.square(centered).mean(1, keepdims=True) + 1e-5) * scale + bias
    y, sums = norm(x, scale, bias), total(x)
    np.testing.assert_allclose(y, normed, atol=3e-6)
    np.testing.assert_allclose(sums, np.log(np.exp(exact).sum(1)), rtol=3e-7, atol=3e-7)
    for rows in (slice(3, 4), slice(2, 9), slice(50, 70)):
        assert_same_bits(norm(x[rows], scale, bias), y[rows])
        assert_same_bits(total(x[rows]), sums[rows])
    assert_same_bits(norm(x.reshape(7, 2, 5, width), scale, bias), y.reshape(7, 2, 5, width))


def test_far_smaller_terms_and_what_is_not_a_number():
    x = np.asarray([[0.0, -200.0, 3.0], [np.nan, 1.0, 2.0], [1e4, -1e4, 0.0]], np.float32)
    y = total(x)
    np.testing.assert_allclose(y[[0, 2]], [np.log(1 + np.exp(3.0)), 1e4], rtol=1e-6)
    assert np.isnan(y[1])
    normed = norm(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    assert np.isnan(normed[1]).all() and np.isfinite(normed[[0, 2]]).all()


@pytest.mark.parametrize("dtype, tiles", [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_a_row_of_a_product_is_the_same_bits_in_any_company(dtype, tiles, monkeypatch):
    x, kernel = drawn(200, 130), drawn(130, 33, seed=1)
    panels = to_panels(jnp.asarray(kernel).astype(dtype))
    if tiles:
        monkeypatch.setattr(native, "tiles", lambda: processors.EMULATED)
        panels = to_tiles(panels)
    together = np.asarray(product(jnp.asarray(x), panels, 33))
    exact = x.astype(np.float64) @ np.asarray(jnp.asarray(kernel).astype(dtype), np.float64)
    np.testing.assert_allclose(together, exact, atol=3e-5 if not tiles else 1e-3)  # tiles round activations to 16 bits
    for rows in [slice(count, 2 * count) for count in (*range(1, 18), 64, 100)]:
        assert_same_bits(product(jnp.asarray(x[rows]), panels, 33), together[rows])


def test_mel_energies():
    config = PRESETS["tiny"].features
    power = np.square(drawn(2, 9, config.fft_samples // 2 + 1))
    y = np.asarray(mel_energies(jnp.asarray(power), config))
    np.testing.assert_allclose(y, power.astype(np.float64) @ features.mel_filters(config), rtol=2e-6)
    assert_same_bits(mel_energies(jnp.asarray(power[1:, 3:4]), config), y[1:, 3:4])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_form_keeps_every_parameter_and_the_model_that_was_given(tiny_model, dtype):
    model = jax.tree.map(lambda x: x.astype(dtype), tiny_model)
    before, after = named_parameters(model), named_parameters(fix_order(model))
    assert set(after) == set(before) and named_parameters(model) == before
    rest = {name for name, value in after.items() if value.dtype == jnp.float32}
    blocks = {name for name in before if ".blocks." in name and name.endswith(".kernel")}
    blocks = {name for name in blocks if "position" not in name and "depthwise" not in name}
    assert rest == set(before) - (blocks if dtype == "bfloat16" else set())
