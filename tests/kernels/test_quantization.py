import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import nemojax
from convert.__main__ import main as convert
from experiments.references.sound import glides
from nemojax import checkpoint, streaming
from nemojax.kernels import native, selection
from nemojax.kernels.panels import _native, _plain, from_panels, product, quantize_kernel, quantize_rows, to_panels
from nemojax.kernels.quantization import PackedLinear, is_quantized, pack, quantize
from nemojax.model.layers import Linear
from nemojax.model.parameters import named_parameters, thaw

AVX512 = "-include tests/kernels/avx512.h"
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler here")


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


quantize_kernel_jit, kernel_of = jax.jit(quantize_kernel), jax.jit(from_panels, static_argnums=(1, 2))
native_product, plain_product = (jax.jit(how, static_argnums=0) for how in (_native, _plain))


def dequantized(values, scale, inputs) -> np.ndarray:
    return np.asarray(kernel_of(values, inputs, len(scale)), np.float64) * np.asarray(scale, np.float64)


SIZES = [1, 2, 15, 16, 17, 40]  # few, for each pair compiles a program


@settings(max_examples=20, deadline=None)
@given(inputs=st.sampled_from(SIZES), outputs=st.sampled_from(SIZES), seed=st.integers(0, 2**16))
def test_a_kernel_is_rounded_to_the_nearest_step(inputs, outputs, seed):
    kernel = np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32)
    kernel[:, 0] *= 100  # each output has a scale of its own
    values, scale = quantize_kernel_jit(kernel)
    assert values.dtype == jnp.int8 and values.shape == (-(-outputs // 16), -(-inputs // 2), 16, 2)
    assert (np.abs(dequantized(values, scale, inputs) - kernel) <= np.asarray(scale) * 0.5001).all()
    assert (np.abs(np.asarray(kernel_of(values, inputs, outputs))).max(0) == 127).all()


def test_an_output_of_zeros_stays_so():
    values, scale = quantize_kernel(jnp.zeros((8, 3)))
    assert not dequantized(values, scale, 8).any() and np.isfinite(scale).all()


@pytest.mark.parametrize("shape", [(3, 64), (2, 5, 64), (64,), (0, 64), (100, 64), (3, 63)])
def test_a_product_is_that_of_the_rounded_kernel(shape):
    """And of activations that are rounded to 1 part in 32,767 of their row's largest."""
    rng = np.random.default_rng(0)
    values, scale = quantize_kernel(jnp.asarray(rng.standard_normal((shape[-1], 41)), jnp.float32))
    x = rng.standard_normal(shape).astype(np.float32) * 10
    y = jax.jit(lambda *given: product(given[0], given[1], 41, given[2]))(jnp.asarray(x), values, scale)
    assert y.shape == (*shape[:-1], 41)
    kernel = dequantized(values, scale, shape[-1])
    bound = np.abs(x).max(initial=0) / 32_767 / 2 * np.abs(kernel).sum(0).max() + 1e-4
    np.testing.assert_allclose(y, x @ kernel, atol=bound)


@pytest.mark.parametrize("inputs, most", [(8, 32_767), (1024, 16_513), (4096, 4128)])
def test_activations_leave_room_for_their_sums(inputs, most):
    assert most == min(32_767, (2**31 - 1) // (127 * inputs))
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
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("inputs, outputs", [(1, 1), (7, 16), (130, 33), (1024, 4096)])
def test_the_native_product_is_the_plain_one(kind, inputs, outputs):
    rng = np.random.default_rng(inputs)
    weights = jnp.asarray(rng.standard_normal((inputs, outputs)), jnp.float32)
    arguments = quantize_kernel(weights) if kind == "int8" else (to_panels(weights.astype(kind)),)
    x = rng.standard_normal((70, inputs), np.float32)
    expected = np.asarray(plain_product(outputs, x, *arguments))
    for rows in [*range(1, 18), 64, 70] if inputs < 1024 else (1, 2, 3, 7, 14, 70):
        found = native_product(outputs, x[:rows], *arguments)
        bound = 2e-6 * np.sqrt(inputs) * float(np.abs(expected[:rows]).max() + 1)
        np.testing.assert_allclose(found, expected[:rows], atol=bound)


@needs_compiler
def test_what_is_not_a_number_stays_so_and_in_its_row():
    x = jnp.ones((7, 8)).at[3, 2].set(jnp.nan).at[5, 0].set(jnp.inf)
    y = np.asarray(_native(16, x, to_panels(jnp.ones((8, 16)))))
    assert np.isnan(y[3]).all() and np.isinf(y[5]).all() and (y[[0, 1, 2, 4, 6]] == 8).all()
    for how in (_native, _plain):
        y = np.asarray(how(16, x, *quantize_kernel(jnp.ones((8, 16)))))
        assert np.isnan(y[[3, 5]]).all()
        np.testing.assert_allclose(y[[0, 1, 2, 4, 6]], 8, rtol=1e-6)


@needs_compiler
def test_many_products_at_once_do_not_wait_for_each_other():
    """More products in flight than there are threads: none may hold up what another needs."""
    arguments = quantize_kernel(jnp.asarray(np.random.default_rng(0).standard_normal((256, 1024)), jnp.float32))

    @jax.jit
    def fan(x):
        return sum(_native(1024, x + i, *arguments) for i in range(32))

    x = jnp.ones((2, 256))
    expected = sum(np.asarray(plain_product(1024, x + i, *arguments)) for i in range(32))
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


def test_without_a_compiler_it_is_plain_and_says_so(monkeypatch, tmp_path, converted):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(native, "unavailable_reason", native.unavailable_reason.__wrapped__)
    assert not native.available()
    with pytest.warns(UserWarning, match="slower, plain path: false failed"):
        nemojax.load(converted)
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(native.CompileError, match=r"no C\+\+ compiler"):
        native.build_library(tmp_path)


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.unavailable_reason.__wrapped__() == "$NEMOJAX_NATIVE is 0"


@needs_compiler
def test_what_was_compiled_is_kept(tmp_path, monkeypatch):
    (tmp_path / "small.cc").write_text('extern "C" int one() { return 1; }')  # compiles in no time
    monkeypatch.setattr(native, "SOURCE", tmp_path / "small.cc")
    first = native.build_library(tmp_path)
    made = first.stat().st_mtime_ns
    assert native.build_library(tmp_path) == first and first.stat().st_mtime_ns == made
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-DANOTHER"))
    assert native.build_library(tmp_path) != first


@pytest.mark.parametrize("int8, error", [(False, 1e-5), (True, 0.05)])
def test_a_layer_keeps_its_bias(int8, error):
    linear = Linear(32, 41, rngs=nnx.Rngs(0))
    linear.bias[...] = jnp.arange(41.0)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 32)), jnp.float32)
    np.testing.assert_allclose(PackedLinear(linear, int8)(x), linear(x), atol=error)


LAYERS = {
    f"encoder.blocks.{block}.{layer}.kernel"
    for block in range(2)
    for layer in (
        *("feedforward1.linear1", "feedforward1.linear2", "feedforward2.linear1", "feedforward2.linear2"),
        *("attention.query", "attention.key", "attention.value", "attention.output"),
        *("convolution.pointwise1", "convolution.pointwise2"),
    )
}


def test_the_blocks_are_quantized_and_nothing_else(tiny_model):
    before = named_parameters(tiny_model)
    model = quantize(tiny_model)
    after = named_parameters(model)
    assert {name for name, value in after.items() if value.dtype == jnp.int8} == LAYERS
    assert set(after) == set(before) | {f"{name}_scale" for name in LAYERS}
    assert all(value is before[name] for name, value in after.items() if name in before and name not in LAYERS)
    assert not is_quantized(tiny_model) and is_quantized(model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packing_keeps_every_weight(tiny_model, dtype):
    narrow = jax.tree.map(lambda x: x.astype(dtype), tiny_model)
    before, after = named_parameters(narrow), named_parameters(pack(narrow))
    assert set(after) == set(before)
    for name, value in after.items():
        assert value.dtype == (dtype if name in LAYERS else jnp.float32), name
        same = kernel_of(value, *before[name].shape) if name in LAYERS else value
        np.testing.assert_array_equal(np.asarray(same, np.float32), np.asarray(before[name], np.float32))


@needs_compiler
@pytest.mark.parametrize("dtype, error", [("float32", 2e-5), ("bfloat16", 0.1)])
def test_a_large_model_is_packed_on_a_cpu(checkpoint_directory, monkeypatch, dtype, error):
    """A packed model gives the labels of the plain one, streaming and offline."""
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 0)
    samples = glides(np.random.default_rng(0), 48_000)

    def transcribe_both_ways() -> tuple:
        one = nemojax.load(checkpoint_directory, dtype)
        assert one.dtype == dtype
        state = streaming.init_state(one.model, one.constants, 1)
        segments = streaming.segments_of(jnp.asarray(samples[None]), jnp.array([48_000]), 6, 10, one.config)
        first = jax.tree.map(lambda x: np.asarray(x)[0], segments)
        encode = jax.jit(lambda model, *given: streaming.encode(thaw(model), *given, 6)[0])
        encoded = encode(one.model, one.constants, state, first)
        return jax.tree.structure(one.model), encoded, one.transcribe(samples, 6).tokens

    fast = transcribe_both_ways()
    monkeypatch.setattr(native, "unavailable_reason", lambda: "it is switched off")
    plain = transcribe_both_ways()
    assert fast[0] != plain[0]
    np.testing.assert_allclose(fast[1], plain[1], atol=error)
    if dtype == "float32":
        assert fast[2] == plain[2]


def test_a_small_model_is_left_as_it_is(checkpoint_directory):
    assert isinstance(thaw(nemojax.load(checkpoint_directory).model).encoder.blocks[0].feedforward1.linear1, Linear)


@pytest.fixture(scope="module")
def converted(checkpoint_directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8") / "model"
    convert(["int8", str(checkpoint_directory), str(out)])
    return out


def test_a_quantized_checkpoint_is_what_loading_quantizes(converted, checkpoint_directory):
    stored, made = nemojax.load(converted), nemojax.load(checkpoint_directory, "int8")
    assert stored.dtype == made.dtype == "int8"
    assert jax.tree.structure(stored.model) == jax.tree.structure(made.model)
    for one, other in zip(jax.tree.leaves(stored.model), jax.tree.leaves(made.model), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_scales_are_never_narrowed(converted):
    model, *_ = checkpoint.load(converted, jnp.bfloat16)
    types = {name: str(value.dtype) for name, value in named_parameters(model).items()}
    assert {types[name] for name in types if name.endswith("kernel_scale")} == {"float32"}
    assert types["joint.output.kernel"] == "bfloat16"


def test_streaming_equals_offline(converted):
    recognizer = nemojax.load(converted)
    samples = glides(np.random.default_rng(0), 48_000)
    for lookahead in (6, 0):
        stream = recognizer.stream(lookahead)
        stream.push(samples)
        assert stream.finish().tokens == recognizer.transcribe(samples, lookahead).tokens


def test_other_toolkits_refuse_it(converted, tmp_path, capsys):
    for command in ("to-nemo", "to-hf", "int8"):
        with pytest.raises(SystemExit) as end:
            convert([command, str(converted), str(tmp_path / command)])
        assert end.value.code == 2 and "has weights in int8" in capsys.readouterr().err
        assert not (tmp_path / command).exists()
