"""Models as values: other settings for the same weights, and layers that are swapped from the outside."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.errors import ConfigError
from nemojax.kernels.quantization import pack, quantize
from nemojax.model.attention import Attention, AttentionCache
from nemojax.model.parameters import fill, freeze, named_parameters, thaw, with_config
from nemojax.recognition.recognizer import Recognizer


def with_left_context(config, frames, lookaheads=(6, 0)):
    encoder = dataclasses.replace(config.encoder, left_context_frames=frames, lookaheads=lookaheads)
    return dataclasses.replace(config, encoder=encoder)


@pytest.mark.parametrize("layout", [lambda model: model, pack, quantize])
def test_another_left_context(tiny_model, layout):
    """Whatever the layout of the kernels: the weights are the same arrays, caches have the other length."""
    model = layout(tiny_model)
    config = with_left_context(model.config, 28)
    other = with_config(model, config)
    assert other.config == config and model.config == tiny_model.config
    ring = other.encoder.initial_cache(2).blocks[1].attention.keys
    assert ring.slots == 28 + config.encoder.largest_chunk_frames
    assert len(other.encoder.project_positions()[0]) == 3 * 28 - 1
    before, after = named_parameters(model), named_parameters(other)
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)


def test_a_recognizer_with_another_left_context(recognizer, speech):
    shorter = recognizer.with_config(with_left_context(recognizer.config, 7))
    samples = np.asarray(speech)
    assert shorter.transcribe(samples, 6).tokens != recognizer.transcribe(samples, 6).tokens
    stream = shorter.stream(0)
    stream.push(samples)
    assert stream.finish().tokens == shorter.transcribe(samples, 0).tokens  # streaming is still the whole
    again = shorter.with_config(recognizer.config)
    assert again.transcribe(samples, 6).tokens == recognizer.transcribe(samples, 6).tokens
    assert again.tokenizer is recognizer.tokenizer and again.origin == recognizer.origin


def test_settings_of_other_weights_are_refused(tiny_model):
    encoder = dataclasses.replace(tiny_model.config.encoder, feedforward_width=24)
    with pytest.raises(ConfigError, match=r"need other weights: encoder\.blocks\.0\.feedforward1\.linear1\.kernel and"):
        with_config(tiny_model, dataclasses.replace(tiny_model.config, encoder=encoder))


class CountedCache(NamedTuple):
    keys_and_values: AttentionCache
    frames: jax.Array


class CountingAttention(Attention):
    """Attention with a cache of another type: it counts the frames of every stream, too."""

    def __init__(self, attention):
        for name, value in vars(attention).items():
            if not name.startswith("_"):
                setattr(self, name, value)

    def initial_cache(self, batch, dtype=jnp.float32):
        return CountedCache(super().initial_cache(batch, dtype), jnp.zeros(batch, jnp.int32))

    def step(self, x, mask, cache, positions, chunk, key=None):
        y, inner = super().step(x, mask, cache.keys_and_values, positions, chunk, key)
        return y, CountedCache(inner, cache.frames + mask.sum(1))


def test_a_layer_with_another_cache_is_one_class_and_one_line(recognizer, speech):
    model = jax.tree.map(lambda x: x, thaw(recognizer.model))
    model.encoder.blocks[1].attention = CountingAttention(model.encoder.blocks[1].attention)
    swapped = Recognizer(model, recognizer.config, recognizer.tokenizer)
    stream = swapped.stream(1)
    stream.push(np.asarray(speech)[:40_000])
    assert stream.finish().tokens == recognizer.transcribe(np.asarray(speech)[:40_000], 1).tokens
    counted = stream._batch._state.encoder.blocks[1].attention.frames
    assert counted.tolist() == [recognizer.config.encoder_frames(40_000)]


def test_a_model_is_filled_by_names_in_any_order(tiny_model):
    named = named_parameters(tiny_model)
    filled = named_parameters(fill(tiny_model.config, dict(reversed(named.items()))))
    assert all(filled[name] is array for name, array in named.items())


def test_frozen_models_of_one_structure_are_equal(tiny_model, family_model):
    """So that a step which is compiled for one runs the other."""
    again = jax.tree.map(lambda x: x, tiny_model)
    one, same, other = (freeze(model).structure for model in (tiny_model, again, family_model))
    assert one == same and hash(one) == hash(same) and one != other
