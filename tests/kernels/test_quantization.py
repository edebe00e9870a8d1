import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nemojax
from convert.__main__ import main as convert
from experiments.references.sound import glides
from nemojax import checkpoint, streaming
from nemojax.kernels import native, selection
from nemojax.kernels.panels import from_panels
from nemojax.kernels.quantization import PackedLinear, is_quantized, pack, quantize, quantize_but_positions
from nemojax.model.layers import Linear
from nemojax.model.parameters import named_parameters, thaw
from tests.helpers.compiler import COMPILER, needs_compiler


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


kernel_of = jax.jit(from_panels, static_argnums=(1, 2))


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


POSITIONS = {f"encoder.blocks.{block}.attention.position.kernel" for block in range(2)}


@pytest.mark.parametrize("form, layers", [(quantize, LAYERS | POSITIONS), (quantize_but_positions, LAYERS)])
def test_the_blocks_are_quantized_and_nothing_else(tiny_model, form, layers):
    before = named_parameters(tiny_model)
    model = form(tiny_model)
    after = named_parameters(model)
    assert {name for name, value in after.items() if value.dtype == jnp.int8} == layers
    assert set(after) == set(before) | {f"{name}_scale" for name in layers}
    assert all(value is before[name] for name, value in after.items() if name in before and name not in layers)
    assert not is_quantized(tiny_model) and is_quantized(model)


def test_positions_are_those_of_rounded_kernels(tiny_model):
    """They keep the type of the other parameters, and are the product with what int8 makes of the kernels."""
    model = quantize(tiny_model)
    for block, before in zip(model.encoder.blocks, tiny_model.encoder.blocks, strict=True):
        layer = block.attention.position
        kernel = kernel_of(layer.kernel[...], *before.attention.position.kernel.shape) * layer.kernel_scale[...][None]
        rounded = jax.tree.map(lambda x: x, before.attention)
        rounded.position.kernel = nnx.Param(kernel)
        expected, found = rounded.project_positions(), block.attention.project_positions()
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert found.dtype == expected.dtype == jnp.float32
        assert np.abs(before.attention.project_positions() - expected).max() > 3e-3


@pytest.mark.parametrize("tiles", [None, "emulated"])
def test_a_checkpoint_whose_positions_are_not_in_int8_is_read(tiny_model, pieces, tmp_path, tiles, monkeypatch):
    """Those that were saved before positions were rounded too: nothing is rounded anew."""
    monkeypatch.setattr(native, "tiles", lambda: tiles)
    saved = quantize_but_positions(tiny_model)
    checkpoint.save(tmp_path / "model", saved, pieces, {})
    recognizer = nemojax.load(tmp_path / "model")
    assert recognizer.dtype == "int8"
    wanted, found = named_parameters(saved), named_parameters(thaw(recognizer.model))
    for name in POSITIONS:
        np.testing.assert_array_equal(found[name], wanted[name])
    assert recognizer.transcribe(glides(np.random.default_rng(0), 32_000)).tokens


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


def test_a_small_model_is_left_as_it_is(checkpoint_directory, monkeypatch):
    monkeypatch.setattr(native, "_loaded", lambda: pytest.fail("it needs no compiler"))
    assert isinstance(thaw(nemojax.load(checkpoint_directory).model).encoder.blocks[0].feedforward1.linear1, Linear)


@pytest.fixture(scope="module")
def converted(checkpoint_directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8") / "model"
    convert(["int8", str(checkpoint_directory), str(out)])
    return out


@pytest.mark.parametrize("tiles", [None, "emulated"])
def test_a_quantized_checkpoint_is_what_loading_quantizes(converted, checkpoint_directory, tiles, monkeypatch):
    """Where the processor has tiles, one is read in tiles, and the other's panels become tiles."""
    monkeypatch.setattr(native, "tiles", lambda: tiles)
    stored, made = nemojax.load(converted), nemojax.load(checkpoint_directory, "int8")
    assert stored.dtype == made.dtype == "int8"
    assert jax.tree.structure(stored.model) == jax.tree.structure(made.model)
    for one, other in zip(jax.tree.leaves(stored.model), jax.tree.leaves(made.model), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_without_a_compiler_it_is_plain_and_says_so(monkeypatch, tmp_path, converted):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(native, "_loaded", native._loaded.__wrapped__)
    monkeypatch.setattr(native, "tiles", native.tiles.__wrapped__)
    assert not native.available()
    with pytest.warns(UserWarning, match="slower, plain path: false failed"):
        nemojax.load(converted)


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
