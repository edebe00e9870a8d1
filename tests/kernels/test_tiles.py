"""Products by tiles: those of panels, computed by AMX where this machine has it, and emulated everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nemojax
from experiments.references.sound import glides
from nemojax.arena import Arena
from nemojax.errors import ConfigError
from nemojax.kernels import native, processors, selection
from nemojax.kernels.panels import (
    PackedKernel,
    from_panels,
    in_tiles,
    native_products,
    plain_product,
    product,
    quantize_kernel,
    tiles_in,
    to_panels,
    to_tiles,
)
from nemojax.kernels.quantization import PackedLinear, quantize
from tests.helpers.compiler import COMPILER, needs_compiler

ROWS = (1, 2, 7, 8, 9, 15, 16, 17, 28, 33, 45, 375, 400)
SIZES = [(1, 1), (7, 16), (64, 32), (130, 33), (600, 70), (1030, 129)]
to_panels_jit, quantize_kernel_jit = jax.jit(to_panels), jax.jit(quantize_kernel)


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


def native_product(outputs, x, kernel, scale=None, bias=None, activation=None):
    return native_products(x, [PackedKernel(kernel, outputs, scale, bias)], activation)[0]


@functools.partial(jax.jit, static_argnums=0)
def by_xla(outputs, x, *kernel):
    return plain_product(x, PackedKernel(kernel[0], outputs, *kernel[1:]), None)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def products(kind, rows, outputs, x, *arguments):
    """The products of the first rows of `x`, by each of these numbers; `kind` is that of the tiles."""
    return [native_product(outputs, x[:count], *arguments) for count in rows]


@pytest.fixture(params=[processors.EMULATED, processors.AMX])
def tiles(request, monkeypatch):
    if request.param == processors.AMX and native.tiles() != processors.AMX:
        pytest.skip("this processor has no AMX, or the system does not let this process use it")
    monkeypatch.setattr(native, "tiles", lambda: request.param)
    return request.param


def awkward_rows(inputs: int) -> np.ndarray:
    rng = np.random.default_rng(inputs)
    x = rng.standard_normal((max(ROWS), inputs)).astype(np.float32) * 10
    x[1] = 0
    x[2] = np.where(rng.random(inputs) < 0.5, -3, 3)  # each is the largest
    x[3], x[4] = -1e-39, 3.4e38
    x[5, inputs // 2], x[6, -1], x[7, 0] = np.nan, np.inf, -np.inf
    x[8, 0] = 1e6  # beside it the others are small
    return x


def weights(inputs: int, outputs: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(outputs).standard_normal((inputs, outputs)), jnp.float32)


@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_the_layout_can_be_undone(inputs, outputs):
    kernel = weights(inputs, outputs).astype(jnp.bfloat16)
    values, _ = quantize_kernel_jit(kernel)
    for panels, depth in ((to_panels_jit(kernel), 32), (values, 64)):
        laid_out = to_tiles(panels)
        assert laid_out.shape == (-(-outputs // 32), -(-inputs // depth), 2, 16, 16, depth // 16)
        assert in_tiles(laid_out) and not in_tiles(panels)
        np.testing.assert_array_equal(from_panels(laid_out, inputs, outputs), from_panels(panels, inputs, outputs))


@needs_compiler
@pytest.mark.parametrize("inputs, outputs", [*SIZES, (256, 64)])
def test_the_library_lays_out_the_same_tiles(inputs, outputs):
    kernel, arena = weights(inputs, outputs).astype(jnp.bfloat16), Arena()
    for panels in (to_panels_jit(kernel), quantize_kernel_jit(kernel)[0]):
        laid_out = tiles_in(arena, np.asarray(panels))
        np.testing.assert_array_equal(laid_out, to_tiles(panels), strict=True)


@needs_compiler
@pytest.mark.parametrize("inputs, outputs", SIZES)
def test_int8_products_have_the_bits_of_panels(tiles, inputs, outputs):
    x, (values, scale) = awkward_rows(inputs), quantize_kernel_jit(weights(inputs, outputs))
    by_panels = products(tiles, ROWS, outputs, x, values, scale)
    by_tiles = products(tiles, ROWS, outputs, x, to_tiles(values), scale)
    for one, other in zip(by_panels, by_tiles, strict=True):
        np.testing.assert_array_equal(one, other)
    plain = np.asarray(by_xla(outputs, x, values, scale))
    largest = np.abs(plain).max(1, keepdims=True, initial=0, where=np.isfinite(plain))
    scaled = lambda y: np.asarray(y) / np.where(largest > 0, largest, 1)
    np.testing.assert_allclose(scaled(by_tiles[-1]), scaled(plain), rtol=0, atol=4e-7 * np.sqrt(inputs))
    assert np.isnan(plain[~np.isfinite(x).all(1)]).all()


@needs_compiler
@pytest.mark.parametrize("activation", [None, "silu", "relu"])
def test_several_kernels_with_bias_and_activation_have_the_bits_of_panels(tiles, activation):
    x, bias = jnp.asarray(awkward_rows(130)[:33]), jnp.linspace(-3.0, 3.0, 70)
    by_panels, by_tiles = [], []
    for outputs in (33, 70):
        values, scale = quantize_kernel_jit(weights(130, outputs))
        for kernels, laid_out in ((by_panels, values), (by_tiles, to_tiles(values))):
            kernels.append(PackedKernel(laid_out, outputs, scale, bias if outputs == 70 else None))
    expected = native_products(x, by_panels, activation)
    for one, other in zip(native_products(x, by_tiles, activation), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@needs_compiler
@pytest.mark.parametrize("inputs", [1024, 4096])
def test_no_sum_overflows(tiles, inputs):
    kernel = jnp.ones((inputs, 16)).at[:, 1].set(-1.0)
    values, scale = quantize_kernel_jit(kernel)
    (y,) = products(tiles, (6,), 16, jnp.ones((6, inputs)), to_tiles(values), scale)
    np.testing.assert_allclose(y[:, 0], inputs, rtol=1e-6)
    np.testing.assert_allclose(y[:, 1], -inputs, rtol=1e-6)


@needs_compiler
@pytest.mark.parametrize("inputs, outputs", [(7, 16), (130, 33), (600, 70)])
def test_bfloat16_products_have_activations_of_16_bits(tiles, inputs, outputs):
    x, panels = awkward_rows(inputs), to_panels_jit(weights(inputs, outputs).astype(jnp.bfloat16))
    x[4] = 7
    by_tiles = products(tiles, ROWS, outputs, x, to_tiles(panels))
    for y in by_tiles:
        np.testing.assert_array_equal(y, by_tiles[-1][: len(y)])  # a row depends on itself alone
    (exact,) = products(tiles, (max(ROWS),), outputs, x, panels)
    whole = np.isfinite(x).all(1)
    np.testing.assert_array_equal(np.isfinite(by_tiles[-1]), np.isfinite(exact))
    kernel = np.abs(np.asarray(from_panels(panels, inputs, outputs), np.float32))
    bound = 2.0**-17 * np.abs(x[whole]) @ kernel + 1e-37
    assert (np.abs(by_tiles[-1][whole] - exact[whole]) <= 1.1 * bound).all()


@needs_compiler
def test_products_at_once_keep_their_tiles_apart(tiles):
    """Each thread has tiles of its own, and each product its own number of rows."""
    values, scale = quantize_kernel_jit(weights(200, 512))
    x = jnp.asarray(awkward_rows(200)[9:])
    fan = jax.jit(lambda kernel: [native_product(512, x[: 1 + i], kernel, scale) for i in range(24)])
    expected, laid_out = fan(values), to_tiles(values)
    for _ in range(5):
        for one, other in zip(fan(laid_out), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_tiles_are_multiplied_without_them(monkeypatch):
    """By XLA, as on another machine."""
    monkeypatch.setattr(native, "tiles", lambda: None)
    values, scale = quantize_kernel_jit(weights(70, 33))
    x = jnp.asarray(awkward_rows(70)[9:12])
    np.testing.assert_array_equal(product(x, to_tiles(values), 33, scale), by_xla(33, x, values, scale))


@pytest.mark.parametrize(
    "requested, usable, expected",
    [
        (None, True, "amx"),
        (None, False, None),
        ("", True, "amx"),
        ("0", True, None),
        ("emulated", True, "emulated"),
        ("emulated", False, "emulated"),
    ],
)
def test_the_choice(monkeypatch, requested, usable, expected):
    monkeypatch.delenv(processors.TILES_SWITCH, raising=False)
    if requested is not None:
        monkeypatch.setenv(processors.TILES_SWITCH, requested)
    assert processors.tiles(lambda: usable) == expected


def test_an_unknown_choice(monkeypatch):
    monkeypatch.setenv(processors.TILES_SWITCH, "yes")
    with pytest.raises(ConfigError) as error:
        processors.tiles(lambda: True)
    assert str(error.value) == "$NEMOJAX_TILES must be 0 or emulated, not 'yes'; unset, AMX is used where it is"


@pytest.fixture
def has_tiles(monkeypatch):
    """A machine with AMX, as far as the choice can see."""
    monkeypatch.setattr(native, "unavailable_reason", lambda: None)
    monkeypatch.setattr(native, "tiles", lambda: processors.AMX)


def laid_out(model) -> bool:
    layer = model.encoder.blocks[1].convolution.pointwise2
    return isinstance(layer, PackedLinear) and in_tiles(layer.kernel[...])


def test_native_products_of_narrow_weights_take_tiles(tiny_model, has_tiles, monkeypatch):
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model)
    quantized = quantize(tiny_model)
    assert laid_out(selection.for_backend(quantized)) and not laid_out(quantized)
    assert laid_out(selection.for_backend(narrow, kernels="native"))
    assert not laid_out(selection.for_backend(tiny_model, kernels="native"))  # float32
    assert not laid_out(selection.for_backend(quantized, kernels="xla"))
    monkeypatch.setattr(native, "tiles", lambda: None)
    assert not laid_out(selection.for_backend(quantized))


@needs_compiler
@pytest.mark.slow
def test_transcripts_are_the_same(checkpoint_directory, monkeypatch):
    samples = glides(np.random.default_rng(0), 48_000)
    transcripts = []
    for kind in (None, processors.EMULATED):
        monkeypatch.setattr(native, "tiles", lambda kind=kind: kind)
        recognizer = nemojax.load(checkpoint_directory, "int8")
        stream = recognizer.stream(0)
        stream.push(samples)
        transcripts.append((recognizer.transcribe(samples, 6), stream.finish()))
    assert transcripts[0] == transcripts[1]
