import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh

from nemojax import streaming
from nemojax.kernels import fused_attention
from nemojax.kernels.fused_attention import FusedAttention, fuse
from nemojax.model.attention import AttentionCache
from nemojax.model.ring import BITS, Ring
from tests.helpers.streaming import assert_streams


@pytest.fixture(params=["tiny", "family"])
def layer(request, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[request.param]
    module, config = model.encoder.blocks[1].attention, model.config.encoder
    return module, config, module.project_positions()


stored = jax.jit(lambda ring, frames: ring.stored(frames))


def drawn(config, batch: int, frames: int, seed: int, dtype=jnp.float32):
    """A segment and a cache of random values, after any number of frames, none included."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    mask = np.arange(frames)[None] < rng.integers(0, frames + 1, batch)[:, None]
    slots = config.left_context_frames + config.largest_chunk_frames
    length = rng.integers(0, 3 * slots, batch).astype(np.int32)
    ring = Ring.zeros(batch, config.heads, slots, config.head_width, dtype)
    keys, values = (stored(ring, normal(*ring.frames.shape)) for _ in range(2))
    return normal(batch, frames, config.width), mask, AttentionCache(keys, values, length)


def both(layer, x, mask, cache, chunk, key=None):
    """Computes what the plain form gives, and what the kernel gives, each in one program."""
    module, _, positions = layer
    dtype = jnp.bfloat16 if cache.keys.frames.dtype in (jnp.bfloat16, BITS) else jnp.float32
    given = (x, mask, cache, positions.astype(dtype))
    moving = () if isinstance(chunk, int) else (chunk,)  # a traced look-ahead
    return tuple(
        jax.jit(lambda *given, form=form: form.step(*given[:4], *(given[4:] or (chunk,)), key))(*given, *moving)
        for form in (module, FusedAttention(module, interpret=True))
    )


# few shapes, for each compiles a program: chunk, frames, batch
SHAPES = [(1, 1, 3), (1, 14, 1), (2, 6, 2), (5, 10, 1), (7, 7, 4), (7, 14, 2), (14, 14, 3)]


@settings(max_examples=10, deadline=None)
@given(shape=st.sampled_from(SHAPES), dtype=st.sampled_from([jnp.float32, jnp.int8]), seed=st.integers(0, 2**16))
def test_it_computes_what_the_plain_form_does(tiny_model, shape, dtype, seed):
    config, (chunk, frames, batch) = tiny_model.config.encoder, shape
    module = tiny_model.encoder.blocks[0].attention
    layer = (module, config, module.project_positions())
    (plain, plain_cache), (y, cache) = both(layer, *drawn(config, batch, frames, seed, dtype), chunk)
    np.testing.assert_allclose(y, plain, atol=2e-5)
    jax.tree.map(np.testing.assert_array_equal, cache, plain_cache)


@pytest.mark.parametrize("stored", [jnp.bfloat16, BITS])
@pytest.mark.parametrize("chunk", [1, 7])
def test_in_bfloat16_it_rounds_where_the_plain_form_does(layer, chunk, stored):
    x, mask, cache = drawn(layer[1], 3, 7, 0, stored)
    (plain, _), (y, _) = both(layer, x, mask, cache, chunk)
    wide = lambda ring: Ring(ring.values(jnp.float32).astype(jnp.float32))
    (exact, _), _ = both(layer, x, mask, AttentionCache(wide(cache.keys), wide(cache.values), cache.length), chunk)
    plain, y = np.asarray(plain), np.asarray(y)
    assert np.abs(y - plain).max() < max(1e-5, np.abs(plain - exact).max() / 2)


@pytest.mark.parametrize("chunk,size", [(1, 1), (7, 7), (14, 28)])
def test_streams(layer, chunk, size):
    module, config, positions = layer
    kernel = FusedAttention(module, interpret=True)
    x = jax.random.normal(jax.random.key(1), (3, 84, config.width))
    mask = jnp.arange(84)[None] < jnp.array([84, 45, 1])[:, None]
    step = lambda x, mask, cache: kernel.step(x, mask, cache, positions, chunk)
    assert_streams(step, x, mask, module.initial_cache(3), size, atol=2e-5)


def test_what_is_not_valid_is_not_read(layer):
    """Not even a NaN that another stream left in this one's place."""
    x, mask, cache = drawn(layer[1], 2, 7, 3)
    cache = cache._replace(length=np.array([3, 0], np.int32))
    stale = np.arange(cache.keys.slots)[None] >= cache.length[:, None]
    spoilt = lambda ring: Ring(np.where(stale[:, None, :, None], np.float32(np.nan), ring.frames))
    _, (clean, _) = both(layer, x, mask, cache, 7)
    _, (y, _) = both(layer, x, mask, cache._replace(keys=spoilt(cache.keys), values=spoilt(cache.values)), 7)
    np.testing.assert_array_equal(y, clean)


def test_old_keys_may_weigh_most(layer):
    """Their exponentials would overflow if only the new keys' scores were compared."""
    x, mask, cache = drawn(layer[1], 2, 7, 3)
    cache = cache._replace(
        keys=Ring(1000 * np.asarray(cache.keys.frames)), length=np.full(2, layer[1].left_context_frames, np.int32)
    )
    (_, (plain, _)), (_, (y, _)) = ((None, step) for step in both(layer, x, mask, cache, 7))
    np.testing.assert_allclose(y, plain, atol=1e-4)


def test_nothing_to_see_is_zero(layer):
    module, config, _ = layer
    zeros = module.initial_cache(1)
    _, (y, _) = both(layer, np.ones((1, 2, config.width), np.float32), np.zeros((1, 2), bool), zeros, 2)
    bias = 0.0 if module.output.bias is None else module.output.bias[...]
    np.testing.assert_allclose(y, jnp.broadcast_to(bias, y.shape), atol=1e-6)


@pytest.mark.parametrize("what", ["a long segment", "dropout", "a look-ahead drawn while training"])
def test_all_else_takes_the_plain_form(layer, what, monkeypatch):
    config = layer[1]
    monkeypatch.setattr(fused_attention, "fused", lambda *given: pytest.fail("the kernel was called"))
    frames = 2 * config.left_context_frames if what == "a long segment" else 14
    x, mask, cache = drawn(config, 1, frames, 5)
    chunk = jnp.array(7) if "drawn" in what else 7
    key = jax.random.key(0) if what == "dropout" else None
    plain, kernel = both(layer, x, mask, cache, chunk, key)
    jax.tree.map(np.testing.assert_array_equal, kernel, plain)


@pytest.mark.parametrize("lookahead", [0, 6])
def test_a_stream_says_the_same(tiny_model, lookahead):
    config = tiny_model.config
    sound = jnp.asarray(np.random.default_rng(0).normal(0, 0.1, (2, 60_000)), jnp.float32)
    segments = streaming.segments_of(sound, jnp.array([60_000, 31_111], jnp.int32), lookahead, 1, config)
    emissions = []
    for model in (tiny_model, fuse(tiny_model, interpret=True)):
        constants = streaming.prepare(model)
        state = streaming.init_state(model, constants, 2)
        emissions.append(streaming.transcribe_scan(model, constants, state, segments, lookahead=lookahead)[1])
    plain, kernel = emissions
    assert plain.length.sum() > 10
    for name in ("labels", "frames", "length"):
        np.testing.assert_array_equal(getattr(kernel, name), getattr(plain, name))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8])
@pytest.mark.parametrize("frames", [1, 2, 7, 14])
def test_it_compiles_to_a_kernel_of_triton(frames, dtype):
    """At the released model's sizes, as far as that goes without a GPU."""
    shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct(sizes, dtype)
    query = shape(3, frames, 8, 128, dtype=jnp.bfloat16 if dtype == jnp.int8 else dtype)
    scores, length = shape(3, 8, frames, 69 + 2 * frames), shape(3, dtype=jnp.int32)
    ring = jax.eval_shape(lambda: Ring.zeros(3, 8, 84, 128, dtype))
    call = jax.jit(lambda *given: fused_attention.fused(*given, left=70, chunk=frames))
    allowed = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    card = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    with use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=card)):
        export = jax.export.export(call, platforms=["cuda"], disabled_checks=allowed)
        exported = export(query, scores, AttentionCache(ring, ring, length), length)
    assert "__gpu$xla.gpu.triton" in exported.mlir_module()
