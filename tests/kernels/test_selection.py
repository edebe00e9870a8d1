"""Which form of the model and of the step runs, and what is refused."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nemojax import checkpoint
from nemojax.bundled import SMALL
from nemojax.errors import ConfigError
from nemojax.kernels import native, selection
from nemojax.kernels.fixed_order import FixedAttention
from nemojax.kernels.fused_attention import FusedAttention
from nemojax.kernels.quantization import PackedLinear, is_quantized, quantize
from nemojax.kernels.selection import GPU_OPTIONS, for_backend, step_options
from nemojax.model.attention import Attention
from nemojax.model.joint import Joint
from nemojax.model.layers import LayerNorm, Linear, PartSizes
from nemojax.model.prediction import LSTMLayer


@pytest.fixture
def gpu(monkeypatch):
    """An H100, as far as the choice can see."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability="9.0")])


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(native, "unavailable_reason", lambda: "there is no C++ compiler here")


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.setattr(native, "unavailable_reason", lambda: None)


def layer(model):
    return model.encoder.blocks[0].feedforward1.linear1


def attention(model):
    return model.encoder.blocks[0].attention


def test_auto_packs_large_models_on_a_cpu_with_a_compiler(tiny_model, monkeypatch, compiler):
    assert isinstance(layer(for_backend(tiny_model)), Linear)
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 1)
    assert isinstance(layer(for_backend(tiny_model)), PackedLinear)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert isinstance(layer(for_backend(tiny_model)), Linear)


def test_auto_packs_nothing_without_a_compiler(tiny_model, monkeypatch, no_compiler):
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 1)
    assert isinstance(layer(for_backend(tiny_model)), Linear)


def test_native_packs_any_model_or_says_why_not(tiny_model, compiler, monkeypatch):
    packed = layer(for_backend(tiny_model, kernels="native"))
    assert isinstance(packed, PackedLinear) and packed.native_product and not is_quantized(tiny_model)
    monkeypatch.setattr(native, "unavailable_reason", lambda: "there is no C++ compiler here")
    with pytest.raises(ConfigError, match=r"kernels='native' can't run here: there is no C\+\+ compiler here"):
        for_backend(tiny_model, kernels="native")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match="it runs on a CPU alone"):
        for_backend(tiny_model, kernels="native")


@pytest.mark.filterwarnings("error")
def test_xla_leaves_products_to_xla(tiny_model, monkeypatch, compiler):
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 1)
    assert isinstance(layer(for_backend(tiny_model, kernels="xla")), Linear)
    plain = layer(for_backend(tiny_model, int8=True, kernels="xla"))
    assert isinstance(plain, PackedLinear) and not plain.native_product
    saved = quantize(tiny_model)
    assert not layer(for_backend(saved, kernels="xla")).native_product and layer(saved).native_product


def test_int8_products_by_xla_call_no_native_kernel(tiny_model, monkeypatch, compiler):
    called = []
    monkeypatch.setattr("nemojax.kernels.panels.native_products", lambda *given: called.append(1))
    plain = layer(for_backend(tiny_model, int8=True, kernels="xla"))
    plain(jax.numpy.ones((1, layer(tiny_model).kernel.shape[0])))
    assert not called


def test_kernels_are_read_in_tiles_where_products_take_tiles(monkeypatch, compiler):
    monkeypatch.setattr(native, "tiles", lambda: "amx")
    assert selection.reads_tiles() and selection.reads_tiles("native") and not selection.reads_tiles("xla")
    monkeypatch.setattr(native, "tiles", lambda: None)
    assert not selection.reads_tiles()
    monkeypatch.setattr(native, "tiles", lambda: "amx")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not selection.reads_tiles()


def test_int8_without_a_compiler_warns(tiny_model, no_compiler):
    with pytest.warns(UserWarning, match=r"the slower, plain path: there is no C\+\+ compiler here"):
        assert is_quantized(for_backend(tiny_model, int8=True))


def test_the_fused_attention_needs_a_gpu(tiny_model):
    with pytest.raises(ConfigError, match="attention='fused' can't run here: it needs a GPU, and"):
        for_backend(tiny_model, attention="fused")
    assert not isinstance(attention(for_backend(tiny_model)), FusedAttention)


def test_attention_is_fused_on_an_h100(tiny_model, gpu, monkeypatch):
    assert isinstance(attention(for_backend(tiny_model)), FusedAttention)
    assert isinstance(attention(for_backend(tiny_model, attention="fused")), FusedAttention)
    assert not isinstance(attention(for_backend(tiny_model, attention="plain")), FusedAttention)
    assert not isinstance(attention(tiny_model), FusedAttention)  # the model that was given is unchanged
    monkeypatch.setenv(selection.FUSED_ATTENTION_SWITCH, "0")  # overrides "auto" alone
    assert not isinstance(attention(for_backend(tiny_model)), FusedAttention)
    assert isinstance(attention(for_backend(tiny_model, attention="fused")), FusedAttention)


@pytest.mark.parametrize("device", [{"compute_capability": "8.9"}, {"compute_capability": "gfx942"}, {}])
def test_other_gpus_fuse_attention_on_request_alone(tiny_model, gpu, monkeypatch, device):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(**device)])
    assert not isinstance(attention(for_backend(tiny_model)), FusedAttention)
    assert isinstance(attention(for_backend(tiny_model, attention="fused")), FusedAttention)


@pytest.mark.parametrize("request_", [{}, {"kernels": "xla"}])
def test_a_small_model_needs_no_compiler(tiny_model, monkeypatch, request_):
    monkeypatch.setattr(native, "unavailable_reason", lambda: pytest.fail("the kernel was compiled"))
    for_backend(tiny_model, **request_)
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 1)
    for_backend(tiny_model, kernels="xla")
    for_backend(quantize(tiny_model), kernels="xla")


@pytest.fixture
def small():
    """The model that comes with the package: its heads have a width of 36."""
    return checkpoint.load(SMALL)[0]


def test_heads_that_the_fused_attention_can_not_take_are_plain(small, gpu):
    assert not isinstance(attention(for_backend(small)), FusedAttention)
    with pytest.raises(ConfigError, match="heads whose width is a power of two, not 36"):
        for_backend(small, attention="fused")


@pytest.mark.parametrize("int8", [False, True])
def test_reproducible_results_are_by_a_form_of_the_whole_model(tiny_model, int8):
    if native.unavailable_reason() is not None:
        pytest.skip("there is no C++ compiler here")
    model = for_backend(tiny_model, int8, reproducible=True)
    assert isinstance(attention(model), FixedAttention) and is_quantized(model) == int8
    plain = [m for _, m in nnx.iter_modules(model) if type(m) in (Linear, LayerNorm, Attention, LSTMLayer, Joint)]
    assert all(isinstance(module, Linear) and module.kernel.shape == (32, 32) for module in plain)  # of positions
    assert not isinstance(attention(tiny_model), FixedAttention)


def test_sums_are_in_a_fixed_order_where_products_are_native(tiny_model, monkeypatch):
    if native.unavailable_reason() is not None:
        pytest.skip("there is no C++ compiler here")
    is_fixed = lambda **asked: isinstance(attention(for_backend(tiny_model, **asked)), FixedAttention)
    assert not is_fixed() and is_fixed(kernels="native") and is_fixed(int8=True)
    assert not is_fixed(kernels="native", reproducible=False) and not is_fixed(int8=True, kernels="xla")
    half = quantize(jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model))
    assert not isinstance(attention(for_backend(half)), FixedAttention)  # its other weights would become float32
    assert isinstance(attention(for_backend(half, reproducible=True)), FixedAttention)
    monkeypatch.setattr(selection, "PACKED_PARAMETERS", 1)
    assert is_fixed()


@pytest.mark.parametrize(
    "asked, message",
    [
        ({}, "it needs the C++ kernels, but there is no C++ compiler here"),
        ({"kernels": "xla"}, "can't be met with kernels='xla': XLA's sums depend on the shape"),
    ],
)
def test_reproducible_results_need_the_kernels(tiny_model, no_compiler, asked, message):
    with pytest.raises(ConfigError, match=rf"reproducible=True .*{re.escape(message)}"):
        for_backend(tiny_model, reproducible=True, **asked)


def test_reproducible_results_need_a_cpu(tiny_model, gpu):
    with pytest.raises(ConfigError, match="it needs a CPU, and jax computes on 'gpu' here; JAX_PLATFORMS=cpu chooses"):
        for_backend(tiny_model, reproducible=True)


@pytest.mark.parametrize("wrong", [{"kernels": "cuda"}, {"attention": "flash"}])
def test_requests_that_do_not_exist(tiny_model, wrong):
    with pytest.raises(ConfigError, match=r"must be one of auto, \w+, \w+, not '(cuda|flash)'"):
        for_backend(tiny_model, **wrong)


@pytest.mark.parametrize("switch, options", [(None, GPU_OPTIONS), ("0", {})])
def test_on_a_gpu_loops_are_recorded_too(monkeypatch, gpu, switch, options):
    if switch is not None:
        monkeypatch.setenv(selection.COMMAND_BUFFERS_SWITCH, switch)
    assert step_options() == options


def test_on_a_cpu_there_are_no_options():
    assert step_options() == {}


def test_this_xla_knows_the_options_for_a_gpu():
    assert jax.jit(lambda x: x + 1, compiler_options=GPU_OPTIONS)(1) == 2
    with pytest.raises(jax.errors.JaxRuntimeError):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_no_such_option": 1})(1)


def test_a_device_that_fails_is_reported_before_a_model_is_read(monkeypatch):
    def missing():
        raise ConfigError("there is no device")

    monkeypatch.setattr(selection, "default_device", missing)
    with pytest.raises(ConfigError, match="there is no device"):
        selection.check("auto", "auto")


def test_activations_are_bfloat16_on_a_gpu_where_weights_are(tiny_model, gpu, monkeypatch):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model)
    rounded = lambda model: layer(for_backend(model, attention="plain")).rounded
    assert rounded(half) == "bfloat16" and rounded(tiny_model) == "float32"
    monkeypatch.setenv("NEMOJAX_NARROW", "0")
    assert rounded(half) == "float32"
    monkeypatch.undo()
    assert rounded(half) == "float32"  # on a CPU


def test_products_on_a_gpu_have_sixteen_rows(gpu):
    frames = {1: (16, 20), 2: (8, 20), 14: (2, 20), 70: (1, 20)}
    assert {n: (selection.step_rows(1, n), selection.step_rows(20, n)) for n in frames} == frames


def test_products_on_a_cpu_have_as_many_rows_as_there_are_streams():
    assert selection.step_rows(1, 1) == 1


def test_the_search_is_recorded_too():
    """It is a loop with a condition."""
    assert {"FUSION", "CUBLAS", "CONDITIONAL", "WHILE"} <= set(GPU_OPTIONS["xla_gpu_enable_command_buffer"].split(","))


def test_cached_keys_and_values_in_int8(tiny_model):
    model = for_backend(tiny_model, cache="int8")
    cache = model.encoder.initial_cache(2).blocks[1].attention
    assert cache.keys.frames.dtype == cache.values.frames.dtype == jnp.int8 and cache.keys.scale is not None
    assert tiny_model.encoder.initial_cache(2).blocks[1].attention.keys.frames.dtype == jnp.float32
    with pytest.raises(ConfigError, match="cache must be one of auto, int8, not 'fp8'"):
        for_backend(tiny_model, cache="fp8")


def test_a_gpu_subsamples_many_frames_at_a_time(tiny_model, gpu):
    encoder = for_backend(tiny_model, attention="plain").encoder
    parts = [encoder.parts, *(block.parts for block in encoder.blocks), *(b.attention.parts for b in encoder.blocks)]
    assert set(parts) == {selection.GPU_PARTS} and tiny_model.encoder.parts == PartSizes()
    assert PartSizes().subsampled < selection.GPU_PARTS.subsampled
