"""Layers with sums in a fixed order: right within rounding, and the same bits whatever the rows and the cut."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.kernels import native
from nemojax.kernels.fixed_layers import FixedAttention, FixedConvolutionModule, FixedSubsampling
from nemojax.kernels.quantization import PackedLinear
from nemojax.model.attention import AttentionCache
from nemojax.model.convolution import ConvolutionModule
from nemojax.model.ring import Ring
from tests.helpers.compiler import COMPILER, needs_compiler

pytestmark = needs_compiler


@pytest.fixture(autouse=True, scope="module")
def compiled_once():
    assert native.available() or COMPILER is None


def assert_same_bits(x, y) -> None:
    np.testing.assert_array_equal(np.asarray(x).view(np.uint32), np.asarray(y).view(np.uint32))


class Case(NamedTuple):
    """New frames of a layer's attention, which are valid, and rings of earlier ones."""

    query: jax.Array
    keys: jax.Array
    values: jax.Array
    mask: jax.Array
    cache: AttentionCache

    def part(self, row: int, first: int, count: int, cache: AttentionCache) -> "Case":
        there = slice(row, row + 1), slice(first, first + count)
        return Case(*(x[there] for x in self[:4]), cache)


def attention_case(config, lengths, frames: int, seed: int, dtype=jnp.float32) -> Case:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    batch, heads, width = len(lengths), config.heads, config.head_width
    slots = config.left_context_frames + config.largest_chunk_frames
    ring = Ring.zeros(batch, heads, slots, width, dtype)
    stored = lambda: ring.stored(draw(*ring.frames.shape))
    mask = jnp.arange(frames)[None] < rng.integers(1, frames + 1, batch)[:, None]
    new = (draw(batch, frames, heads, width) for _ in range(3))
    return Case(*new, mask, AttentionCache(stored(), stored(), jnp.asarray(lengths, jnp.int32)))


def attend(module, case: Case, chunk: int):
    return FixedAttention(module).attend_to_rings(*case, module.project_positions(), chunk)


def attend_plainly(module, case: Case, chunk: int):
    cache, begin = case.cache, case.cache.length
    write = lambda ring, new: ring.write(ring.stored(jnp.swapaxes(new, 1, 2)), begin, case.mask)
    end = begin + case.mask.sum(1, dtype=jnp.int32)
    cache = AttentionCache(write(cache.keys, case.keys), write(cache.values, case.values), end)
    return module.attend_in_place(case.query, cache, begin, module.project_positions(), chunk), cache


@settings(max_examples=5, deadline=None)  # nearly each compiles a program of its own
@given(data=st.data())
def test_attention_is_that_of_the_plain_form(tiny_model, data):
    module, config = tiny_model.encoder.blocks[0].attention, tiny_model.config.encoder
    chunk = data.draw(st.sampled_from([1, 2, 5, 7, 14]))
    frames = chunk * data.draw(st.integers(1, config.largest_chunk_frames // chunk))
    dtype, seed = data.draw(st.sampled_from([jnp.float32, jnp.int8])), data.draw(st.integers(0, 2**16))
    lengths = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=4))
    case = attention_case(config, lengths, frames, seed, dtype)
    plain, cache = jax.jit(attend_plainly, static_argnums=2)(module, case, chunk)
    fixed, after = jax.jit(attend, static_argnums=2)(module, case, chunk)
    np.testing.assert_allclose(fixed, plain, atol=2e-5)
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(cache), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("chunk, chunks", [(1, 7), (2, 3), (7, 1), (7, 13)])
def test_attention_is_the_same_bits_in_any_company(family_model, chunk, chunks):
    """A segment of several rows, and each row alone, chunk by chunk; the longest segment exceeds the rings."""
    module, config = family_model.encoder.blocks[0].attention, family_model.config.encoder
    call = jax.jit(attend, static_argnums=2)
    case = attention_case(config, [0, 3, 21, 35, 71, 700], chunk * chunks, chunk)
    whole, after = call(module, case, chunk)
    for row in (0, 2, 5):
        cache = jax.tree.map(lambda x, row=row: x[row : row + 1], case.cache)
        for first in range(0, chunk * chunks, chunk):
            part = case.part(row, first, chunk, cache)
            y, cache = call(module, part, chunk)
            valid = np.asarray(part.mask[0])
            assert_same_bits(y[0][valid], whole[row, first : first + chunk][valid])
        for one, other in zip(cache[:2], after[:2], strict=True):
            assert_same_bits(one.frames[0], other.frames[row])


def test_attention_without_a_valid_key_is_zero_and_reads_none(family_model):
    module, config = family_model.encoder.blocks[0].attention, family_model.config.encoder
    case = attention_case(config, [0, 10], 7, 0)
    spoilt = lambda ring: Ring(ring.frames.at[0].set(jnp.nan).at[1, :, 10:].set(jnp.nan))
    cache = AttentionCache(spoilt(case.cache.keys), spoilt(case.cache.values), case.cache.length)
    mask = jnp.zeros((2, 7), bool).at[1, :2].set(True)
    keys, values = case.keys.at[0].set(jnp.nan).at[1, 2:].set(jnp.inf), case.values.at[0].set(jnp.nan)
    y, after = attend(module, Case(case.query, keys.at[1, 1, 0, 0].set(jnp.nan), values, mask, cache), 7)
    assert not np.asarray(y[0]).any() and np.isfinite(y[1]).all() and np.asarray(y[1]).any()
    assert after.keys.frames[1, 0, 11, 0] == 0 and np.isfinite(after.keys.frames[1, :, :12]).all()
    assert np.isnan(after.keys.frames[0]).all()


def test_attention_in_training_is_refused(tiny_model):
    module, config = tiny_model.encoder.blocks[0].attention, tiny_model.config.encoder
    case = attention_case(config, [0], 1, 0)
    with pytest.raises(TypeError, match="not for training"):
        x = jnp.zeros((1, 1, config.width))
        FixedAttention(module).step(x, case.mask, case.cache, module.project_positions(), jnp.int32(1))


@pytest.mark.parametrize("use_bias", [False, True])
def test_the_convolution_is_the_plain_one_and_the_same_bits_in_any_cut(tiny_model, use_bias):
    config = dataclasses.replace(tiny_model.config.encoder, use_bias=use_bias)
    module = ConvolutionModule(config, rngs=nnx.Rngs(0))
    frames, rng = 37, np.random.default_rng(0)
    if use_bias:
        module.depthwise.bias[...] = jnp.asarray(rng.standard_normal(config.width), jnp.float32)
    x = jnp.asarray(rng.standard_normal((3, frames, config.width)), jnp.float32)
    x = x.at[2, 5, 0].set(jnp.nan)
    mask = jnp.arange(frames)[None] < jnp.asarray([frames, 20, frames])[:, None]
    plain, after = module.step(x, mask, module.initial_cache(3))
    fixed = FixedConvolutionModule(module)
    for name in ("pointwise1", "pointwise2"):
        setattr(fixed, name, PackedLinear(getattr(module, name), int8=False))
    step = jax.jit(lambda *given: fixed.step(*given))
    whole, cache = step(x, mask, fixed.initial_cache(3))
    valid = np.asarray(mask) & np.isfinite(plain).all(-1)
    np.testing.assert_allclose(np.asarray(whole)[valid], np.asarray(plain)[valid], atol=2e-5)
    np.testing.assert_allclose(cache.frames.frames, after.frames.frames, atol=1e-6)
    before = fixed.initial_cache(3)
    for first in range(0, frames, 5):
        y, before = step(x[:, first : first + 5], mask[:, first : first + 5], before)
        part = np.asarray(mask[:, first : first + 5])
        assert_same_bits(np.asarray(y)[part], np.asarray(whole[:, first : first + 5])[part])
    assert_same_bits(before.frames.frames, cache.frames.frames)


def test_the_subsampling_is_the_plain_one_and_the_same_bits_in_any_cut(tiny_model):
    plain = tiny_model.encoder.subsampling
    fixed = FixedSubsampling(plain)
    fixed.pointwise = nnx.List([PackedLinear(layer, int8=False) for layer in plain.pointwise])
    fixed.linear = PackedLinear(plain.linear, int8=False)
    frames, bins = 56, tiny_model.config.features.mel_bins
    log_mel = jnp.asarray(np.random.default_rng(0).normal(-11, 4, (2, frames, bins)), jnp.float32)
    mask = (jnp.arange(frames)[None] >= 7) & (jnp.arange(frames)[None] < jnp.asarray([56, 29])[:, None])
    log_mel = jnp.where(mask[..., None], log_mel, jnp.nan)  # what is masked is not read
    expected, valid, after = plain.step(log_mel, mask, plain.initial_cache(2))
    whole, same, cache = jax.jit(fixed.step)(log_mel, mask, fixed.initial_cache(2))
    np.testing.assert_array_equal(same, valid)
    np.testing.assert_allclose(whole, expected, atol=2e-5)
    for one, other in zip(cache.stages, after.stages, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    before = fixed.initial_cache(2)
    for first in range(0, frames, 8):
        y, _, before = fixed.step(log_mel[:, first : first + 8], mask[:, first : first + 8], before)
        assert_same_bits(y, whole[:, first // 8 : first // 8 + 1])
