import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.model import attention
from nemojax.model.ring import Ring
from tests.helpers.definitions import linear, normal
from tests.helpers.streaming import assert_streams, stepped


def textbook(module, x: np.ndarray, length: int, left: int, chunk: int) -> np.ndarray:
    """One recording, one query and one key at a time: Transformer-XL's score of each visible pair."""
    heads, head_width = module.content_bias.shape
    split = lambda y: np.asarray(y).reshape(-1, heads, head_width)
    query, key, value = (split(linear(layer, x[:length])) for layer in (module.query, module.key, module.value))
    content_bias, position_bias = np.asarray(module.content_bias[...]), np.asarray(module.position_bias[...])
    out = np.zeros((length, heads, head_width))
    for t in range(length):
        start = t // chunk * chunk
        visible = range(max(0, start - left), min(length, start + chunk))
        encoded = attention.sinusoids(np.array([t - s for s in visible]), heads * head_width)
        distance = split(linear(module.position, encoded))
        for h in range(heads):
            score = [
                (query[t, h] + content_bias[h]) @ key[s, h] + (query[t, h] + position_bias[h]) @ distance[i, h]
                for i, s in enumerate(visible)
            ]
            weight = np.exp(np.array(score) / np.sqrt(head_width))
            out[t, h] = (weight / weight.sum()) @ value[visible, h]
    return linear(module.output, out.reshape(length, -1))


@pytest.fixture(params=["tiny", "family"])
def layer(request, tiny_model, family_model):
    model = {"tiny": tiny_model, "family": family_model}[request.param]
    module, config = model.encoder.blocks[1].attention, model.config.encoder
    return module, config, module.project_positions()


def stepper(layer, chunk, key=None):
    module, _, positions = layer
    return lambda x, mask, cache: module.step(x, mask, cache, positions, chunk, key)


@pytest.mark.parametrize("chunk", [1, 2, 7, 14])
def test_frames_are_those_of_the_definition(layer, chunk):
    module, config, _ = layer
    frames = 2 * config.left_context_frames + 14  # more than one block
    x, length = normal(0, 2, frames, config.width), [frames, config.left_context_frames + 5]
    mask = np.arange(frames) < np.array(length)[:, None]
    y, _ = jax.jit(stepper(layer, chunk))(x, mask, layer[0].initial_cache(2))
    for row, n in enumerate(length):
        expected = textbook(module, x[row], n, config.left_context_frames, chunk)
        np.testing.assert_allclose(y[row, :n], expected, atol=2e-5)


@pytest.mark.parametrize("chunk,size", [(1, 1), (1, 28), (2, 4), (7, 7), (14, 14), (14, 28)])
def test_streams(layer, chunk, size):
    config, frames = layer[1], 168
    x, mask = normal(1, 3, frames, config.width), np.arange(frames) < np.array([frames, 45, 1])[:, None]
    assert_streams(stepper(layer, chunk), x, mask, layer[0].initial_cache(3), size, atol=2e-5)


@pytest.mark.parametrize("size", [14, 42])  # in the ring, and with the left context in order
def test_a_cache_of_int8_is_close_to_one_of_float32(tiny_model, size):
    module, config = tiny_model.encoder.blocks[1].attention, tiny_model.config.encoder
    layer = module, config, module.project_positions()
    narrow = jax.tree.map(lambda x: x, module)
    narrow.cache_dtype = "int8"
    x, mask = normal(5, 2, 42, config.width), np.ones((2, 42), bool)
    step = stepper((narrow, config, layer[2]), 14)
    found, cache = jax.jit(lambda: stepped(step, x, mask, narrow.initial_cache(2), size))()
    assert cache.values.frames.dtype == jnp.int8 and not np.allclose(cache.values.scale, cache.keys.scale, rtol=0.1)
    expected, _ = jax.jit(stepper(layer, 14))(x, mask, module.initial_cache(2))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_cache_starts_invalid(layer):
    """Garbage behind a cache of length 0 is never seen; behind a longer one it is."""
    config = layer[1]
    x, mask = normal(2, 1, 14, config.width), np.ones((1, 14), bool)
    zeros = layer[0].initial_cache(1)
    garbage = zeros._replace(keys=Ring(zeros.keys.frames + 3.0), values=Ring(zeros.values.frames + 3.0))
    step = jax.jit(stepper(layer, 14))
    np.testing.assert_array_equal(step(x, mask, garbage)[0], step(x, mask, zeros)[0])
    assert not np.allclose(step(x, mask, garbage._replace(length=zeros.length + 1))[0], step(x, mask, zeros)[0])


def test_nothing_to_see_is_zero_not_nan(layer):
    module, config, _ = layer
    x, mask = np.ones((1, 2, config.width), np.float32), np.zeros((1, 2), bool)
    y, _ = jax.jit(stepper(layer, 2))(x, mask, layer[0].initial_cache(1))
    bias = 0.0 if module.output.bias is None else np.asarray(module.output.bias[...])
    np.testing.assert_allclose(y, np.broadcast_to(bias, y.shape), atol=1e-6)


def test_contract_catches_a_wrong_length(layer):
    config, step = layer[1], stepper(layer, 2)

    def forgetful(x, mask, cache):
        y, new = step(x, mask, cache)
        return y, new._replace(length=cache.length)

    x = normal(3, 2, 8, config.width)
    with pytest.raises(AssertionError):
        assert_streams(forgetful, x, np.ones((2, 8), bool), layer[0].initial_cache(2), 2)


def test_a_traced_chunk_equals_a_static_one_and_compiles_once(layer):
    config, frames = layer[1], layer[1].left_context_frames + 14  # two blocks
    x = jnp.asarray(normal(4, 2, frames, config.width))
    mask, cache = jnp.ones((2, frames), bool), layer[0].initial_cache(2)
    traced = jax.jit(lambda chunk: stepper(layer, chunk)(x, mask, cache)[0])
    for chunk in (1, 2, 7, 14):
        np.testing.assert_array_equal(
            attention.chunk_mask(28, 70, jnp.int32(chunk)), attention.chunk_mask(28, 70, chunk)
        )
        static = jax.jit(lambda x, chunk=chunk: stepper(layer, chunk)(x, mask, cache)[0])(x)
        np.testing.assert_allclose(traced(jnp.int32(chunk)), static, atol=1e-6)
    assert traced._cache_size() == 1


def test_dropout_is_on_the_weights(layer):
    config = layer[1]
    ones = jnp.ones((512, 4, config.width))
    mask, cache = jnp.ones((512, 4), bool), layer[0].initial_cache(512)
    step = jax.jit(lambda key: stepper(layer, 4, key)(ones, mask, cache)[0])
    results = step(None), *(step(jax.random.key(seed)) for seed in (0, 0, 1))
    clean, dropped, again, other = map(np.asarray, results)
    np.testing.assert_array_equal(dropped, again)
    assert np.abs(dropped - other).max() > 1e-3 < np.abs(dropped - clean).max()
    np.testing.assert_allclose(dropped.mean((0, 1)), clean.mean((0, 1)), atol=0.05)  # unbiased
