import functools
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.kernels import native
from nemojax.kernels.panels import (
    PackedKernel,
    from_panels,
    native_products,
    panels_of,
    plain_product,
    product,
    products,
    quantize_kernel,
    quantize_rows,
    to_panels,
)
from tests.helpers.compiler import COMPILER, needs_compiler

AVX512 = "-include tests/kernels/avx512.h"


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


quantize_kernel_jit, kernel_of = jax.jit(quantize_kernel), jax.jit(from_panels, static_argnums=(1, 2))


@functools.partial(jax.jit, static_argnums=0)
def native_product(outputs, x, *kernel):
    return native_products(x, [PackedKernel(kernel[0], outputs, *kernel[1:])], None)[0]


@functools.partial(jax.jit, static_argnums=0)
def by_xla(outputs, x, *kernel):
    return plain_product(x, PackedKernel(kernel[0], outputs, *kernel[1:]), None)


def dequantized(values, scale, inputs) -> np.ndarray:
    return np.asarray(kernel_of(values, inputs, len(scale)), np.float64) * np.asarray(scale, np.float64)


@settings(max_examples=20, deadline=None)
@given(inputs=st.integers(1, 40), outputs=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_a_kernel_is_rounded_to_the_nearest_step(inputs, outputs, seed):
    kernel = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    kernel[:, 0] *= 100  # each output has a scale of its own
    values, scale = quantize_kernel_jit(kernel)
    assert values.dtype == jnp.int8 and values.shape == (-(-outputs // 16), -(-inputs // 2), 16, 2)
    assert (np.abs(dequantized(values, scale, inputs) - kernel) <= np.asarray(scale) * 0.5001).all()
    assert (np.abs(np.asarray(kernel_of(values, inputs, outputs))).max(0) == 127).all()


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 16), (64, 33), (130, 47), (1024, 512)])
def test_the_library_lays_out_the_same_panels(shape, dtype):
    kernel = jnp.asarray(np.random.default_rng(1).standard_normal(shape), dtype)
    np.testing.assert_array_equal(panels_of(kernel), to_panels(kernel), strict=True)
    np.testing.assert_array_equal(jax.jit(panels_of)(kernel), to_panels(kernel), strict=True)


def test_an_output_of_zeros_stays_so():
    values, scale = quantize_kernel(jnp.zeros((8, 3)))
    assert not dequantized(values, scale, 8).any() and np.isfinite(scale).all()


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (64,), (0, 64), (100, 64), (3, 63)])
def test_a_product_is_that_of_the_rounded_kernel(shape):
    """And of activations that are rounded to 1 part in 32,639 of their row's largest."""
    rng = np.random.default_rng(0)
    values, scale = quantize_kernel(jnp.asarray(rng.standard_normal((shape[-1], 41)), jnp.float32))
    x = rng.standard_normal(shape).astype(np.float32) * 10
    y = jax.jit(lambda *given: product(given[0], given[1], 41, given[2]))(jnp.asarray(x), values, scale)
    assert y.shape == (*shape[:-1], 41)
    kernel = dequantized(values, scale, shape[-1])
    bound = np.abs(x).max(initial=0) / 32_639 / 2 * np.abs(kernel).sum(0).max() + 1e-4
    np.testing.assert_allclose(y, x @ kernel, atol=bound)


@pytest.mark.parametrize("inputs, most", [(8, 32_639), (1024, 16_513), (4096, 4128)])
def test_activations_leave_room_for_their_sums(inputs, most):
    assert most == min(32_639, (2**31 - 1) // (127 * inputs))
    x = np.random.default_rng(0).standard_normal((3, inputs)).astype(np.float32)
    x[2] = 0
    numbers, step = quantize_rows(jnp.asarray(x))
    assert np.abs(numbers[:2]).max() == most and not numbers[2].any() and step[2] == 0
    assert (np.asarray(numbers) == np.round(numbers)).all()
    assert (np.abs(np.asarray(numbers) * np.asarray(step) - x) <= np.abs(x).max(1, keepdims=True) / most * 0.51).all()


@needs_compiler
@pytest.mark.parametrize("inputs", [1024, 4095, 4096])
def test_no_sum_of_whole_numbers_overflows(inputs):
    kernel, x = jnp.ones((inputs, 16)).at[:, 1].set(-1.0), jnp.ones((6, inputs))
    y = np.asarray(native_product(16, x, *quantize_kernel_jit(kernel)))
    np.testing.assert_allclose(y[:, 0], inputs, rtol=1e-6)
    np.testing.assert_allclose(y[:, 1], -inputs, rtol=1e-6)


@needs_compiler
def test_an_int8_row_is_the_same_in_any_company():
    rng = np.random.default_rng(0)
    arguments = quantize_kernel(jnp.asarray(rng.standard_normal((130, 33)), jnp.float32))
    x = jnp.asarray(rng.standard_normal((11, 130)), jnp.float32)
    x = np.asarray(x * 10.0 ** jnp.arange(11)[:, None])
    together = np.asarray(native_product(33, x, *arguments))
    for row in range(11):
        alone = native_product(33, x[row : row + 1], *arguments)
        np.testing.assert_array_equal(alone[0], together[row])


@needs_compiler
@pytest.mark.parametrize("kind, rows", [("float32", 77), ("int8", 150)])
def test_a_row_is_the_same_in_any_block(kind, rows):
    """Rows of 4,096 inputs are long: these many take three blocks of a core's cache."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((4096, 33)), jnp.float32)
    arguments = quantize_kernel_jit(kernel) if kind == "int8" else (to_panels(kernel),)
    x = rng.standard_normal((rows, 4096)).astype(np.float32)
    together = np.asarray(native_product(33, x, *arguments))
    alone = np.concatenate([native_product(33, x[row : row + 1], *arguments) for row in range(rows)])
    np.testing.assert_array_equal(alone, together)


@needs_compiler
@pytest.mark.parametrize("backend, forms", [("cpu", 1), ("gpu", 2)])
def test_where_the_cpu_is_the_default_its_product_alone_is_traced(monkeypatch, backend, forms):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    jaxpr = str(jax.make_jaxpr(lambda x: product(x, to_panels(jnp.ones((8, 5))), 5))(jnp.ones((2, 8))))
    assert ("ffi_call" in jaxpr) + ("dot_general" in jaxpr) == forms


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (7, 16), (130, 33), (1024, 4096)])
def test_the_native_product_is_the_plain_one(kind, inputs, outputs):
    rng = np.random.default_rng(inputs)
    weights = jnp.asarray(rng.standard_normal((inputs, outputs)), jnp.float32)
    arguments = quantize_kernel(weights) if kind == "int8" else (to_panels(weights.astype(kind)),)
    x = rng.standard_normal((70, inputs), np.float32)
    expected = np.asarray(by_xla(outputs, x, *arguments))
    for rows in [*range(1, 18), 64, 70] if inputs < 1024 else (1, 2, 3, 7, 14, 70):
        found = native_product(outputs, x[:rows], *arguments)
        bound = 2e-6 * np.sqrt(inputs) * float(np.abs(expected[:rows]).max() + 1)
        np.testing.assert_allclose(found, expected[:rows], atol=bound)


@needs_compiler
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("activation", [None, "silu", "relu"])
def test_several_products_of_the_same_rows_with_bias_and_activation(kind, activation):
    rng = np.random.default_rng(0)
    x, kernels = jnp.asarray(rng.standard_normal((9, 130)) * 3, jnp.float32), []
    for outputs in (33, 16, 70):
        weights = jnp.asarray(rng.standard_normal((130, outputs)) / 10, jnp.float32)
        packed, scale = quantize_kernel_jit(weights) if kind == "int8" else (to_panels(weights.astype(kind)), None)
        bias = jnp.asarray(rng.standard_normal(outputs), jnp.float32) if outputs != 16 else None
        kernels.append(PackedKernel(packed, outputs, scale, bias))
    together = products(x, kernels, activation)
    for kernel, y in zip(kernels, together, strict=True):
        expected = np.asarray(plain_product(x, kernel, activation))
        np.testing.assert_allclose(y, expected, atol=2e-5, rtol=2e-6)
        np.testing.assert_array_equal(products(x, [kernel], activation)[0], y)
        np.testing.assert_array_equal(products(x[4:6], [kernel], activation)[0], y[4:6])


@needs_compiler
def test_what_is_not_a_number_stays_so_and_in_its_row():
    x = jnp.ones((7, 8)).at[3, 2].set(jnp.nan).at[5, 0].set(jnp.inf)
    y = np.asarray(native_product(16, x, to_panels(jnp.ones((8, 16)))))
    assert np.isnan(y[3]).all() and np.isinf(y[5]).all() and (y[[0, 1, 2, 4, 6]] == 8).all()
    for activation in ("silu", "relu"):
        (y,) = products(x, [PackedKernel(to_panels(jnp.ones((8, 16))), 16)], activation)
        assert np.isnan(y[3]).all()
    for how in (native_product, by_xla):
        y = np.asarray(how(16, x, *quantize_kernel(jnp.ones((8, 16)))))
        assert np.isnan(y[[3, 5]]).all()
        np.testing.assert_allclose(y[[0, 1, 2, 4, 6]], 8, rtol=1e-6)


@needs_compiler
def test_many_products_at_once_do_not_wait_for_each_other():
    """More products in flight than there are threads: none may hold up what another needs."""
    arguments = quantize_kernel(jnp.asarray(np.random.default_rng(0).standard_normal((256, 1024)), jnp.float32))

    @jax.jit
    def fan(x):
        return sum(native_product(1024, x + i, *arguments) for i in range(32))

    x = jnp.ones((2, 256))
    expected = sum(np.asarray(by_xla(1024, x + i, *arguments)) for i in range(32))
    for _ in range(20):
        np.testing.assert_allclose(fan(x), expected, rtol=1e-3, atol=1e-2)


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are paths of x86 processors")
@pytest.mark.parametrize("flags", [AVX512, f"{AVX512} -DVNNI", "-mno-avx2 -mno-avx"])
def test_products_are_the_same_on_other_processors(flags, tmp_path):
    products = ["product_is_the_plain", "overflows", "any_company", "not_a_number"]
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-k", " or ".join(products), __file__]
    environment = os.environ | {"CXX": f"{COMPILER} {flags}", "JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "17 passed" in done.stdout, done.stdout
