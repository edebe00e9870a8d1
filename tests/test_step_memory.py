"""What memory a step takes and what it moves: caches are read once and written in place, and nothing copies them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from nemojax import streaming
from nemojax.config import PRESETS
from nemojax.kernels.selection import for_backend
from nemojax.model.parameters import abstract_model
from nemojax.model.ring import Ring, without_slots
from nemojax.model.subsampling import bins_per_stage
from nemojax.recognition.stream_batch import jit_step
from nemojax.streaming import Segment
from tests.helpers.traffic import moved, parse

ROWS = 64


def tree_bytes(tree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def deep_config(tiny_config):
    """The tiny model with a left context so long that its caches outweigh all else."""
    encoder = dataclasses.replace(tiny_config.encoder, layers=4, left_context_frames=840, lookaheads=(6, 1, 0))
    return dataclasses.replace(tiny_config, encoder=encoder)


def compiled_step(config, dtype, cache, lookahead, streams=ROWS):
    """Compiles a step of live streams; returns it and the shapes of the state."""
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), abstract_model(config))
    model = jax.eval_shape(lambda model: for_backend(model, kernels="xla", cache=cache), weights)
    constants, chunk = jax.eval_shape(streaming.prepare, model), config.chunk_samples(lookahead)
    state = jax.eval_shape(lambda *given: streaming.init_state(*given, streams, lookahead=lookahead), model, constants)
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((streams, *shape), dtype)
    segment = Segment(array(jnp.float32, chunk), array(jnp.int32), array(jnp.bool_), array(jnp.bool_))
    lowered = jit_step().lower(model, constants, state, segment, lookahead=lookahead, search=streaming.GREEDY)
    return lowered.compile(), state


# at longer look-aheads the scores of all queries take more than a ring
@pytest.mark.parametrize(
    "lookahead, dtype, cache",
    [(0, "float32", "auto"), (1, "float32", "auto"), (0, "bfloat16", "auto"), (1, "bfloat16", "int8")],
)
def test_a_step_copies_no_ring(deep_config, lookahead, dtype, cache):
    """All caches are written in place; nothing is made beside them but what products of one layer need."""
    compiled, state = compiled_step(deep_config, dtype, cache, lookahead)
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= tree_bytes(state)
    keys = 4 * math.prod(state.encoder.blocks[0].attention.keys.frames.shape)
    # a CPU has products of float32 alone: it makes keys and values of one layer in float32
    limit = keys if dtype == "float32" else 2.8 * keys
    assert memory.temp_size_in_bytes < limit, f"{keys} bytes are one layer's keys in float32"


def test_subsampling_takes_little_for_many_streams(tiny_config):
    """The first stage alone would take more memory than everything else if all streams were subsampled at once."""
    encoder = dataclasses.replace(tiny_config.encoder, subsampling_channels=64)
    lookahead, bins = 13, bins_per_stage(tiny_config)[1]
    compiled, _ = compiled_step(dataclasses.replace(tiny_config, encoder=encoder), "float32", "auto", lookahead)
    first_stage = 4 * ROWS * (4 * (lookahead + 1)) * bins * encoder.subsampling_channels
    assert compiled.memory_analysis().temp_size_in_bytes < first_stage


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", [0, 13])
@pytest.mark.parametrize("dtype, cache", [("float32", "auto"), ("bfloat16", "auto"), ("bfloat16", "int8")])
def test_temporary_memory_is_a_tenth_of_the_caches(lookahead, dtype, cache):
    """At the released size, whatever the number of layers: no layer holds memory while others are computed."""
    released, streams, found = PRESETS["0.6b"], 512, []
    for layers in (2, 4):
        config = dataclasses.replace(released, encoder=dataclasses.replace(released.encoder, layers=layers))
        compiled, state = compiled_step(config, dtype, cache, lookahead, streams)
        found.append(compiled.memory_analysis().temp_size_in_bytes)
    caches = tree_bytes(state.encoder.blocks) / layers * released.encoder.layers
    assert found[1] < 1.01 * found[0] and found[1] < 0.1 * caches


def must_move(encoder, frames: int) -> int:
    """Returns the bytes of float32 that a block of the encoder must move for `frames` frames of a stream.

    Cached frames are read once and new ones are written once. The input and the output of each product, normalization,
    activation function, gate and residual sum are moved once.
    """
    width, hidden = encoder.width, encoder.feedforward_width
    cached = (2 * encoder.left_context_frames + encoder.convolution_kernel - 1) * width
    norms, feedforward = 5 * 2 * width, 2 * (5 * width + 4 * hidden)
    attention, convolution = 13 * width, 15 * width
    return 4 * (cached + frames * (3 * width + norms + feedforward + attention + convolution))


@pytest.mark.parametrize("rows", [64, 512])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_block_moves_little_more_than_it_must(rows, frames):
    """A block of the released size, in float32: a CPU computes other types in float32, by way of copies."""
    config = PRESETS["0.6b"]
    encoder = dataclasses.replace(config.encoder, layers=1)
    block = abstract_model(dataclasses.replace(config, encoder=encoder)).encoder.blocks[0]
    spare = encoder.largest_chunk_frames - frames
    cache = jax.eval_shape(lambda block: without_slots(block.initial_cache(rows), spare), block)
    positions = jax.eval_shape(lambda block: block.attention.project_positions(), block)
    given = jax.ShapeDtypeStruct((rows, frames, encoder.width), jnp.float32), jax.ShapeDtypeStruct((rows, frames), bool)
    step = jax.jit(
        lambda block, cache, positions, x, mask: block.step(x, mask, cache, positions, frames), donate_argnums=1
    )
    compiled = step.lower(block, cache, positions, *given).compile()
    once = tree_bytes(block) + tree_bytes(positions)  # whatever the number of streams
    share = (moved(parse(compiled.as_text())) - once) / rows / must_move(encoder, frames)
    assert 0.9 < share < 1.5, f"{share:.2f} times what it must"


def test_a_write_into_a_ring_counts_as_what_is_written():
    shape = jax.eval_shape(lambda: Ring.zeros(8, 2, 100, 16, jnp.float32))
    new = jax.eval_shape(lambda: Ring.zeros(8, 2, 3, 16, jnp.float32))
    number, mask = jax.ShapeDtypeStruct((8,), jnp.int32), jax.ShapeDtypeStruct((8, 3), jnp.bool_)
    lowered = jax.jit(lambda ring, *given: ring.write(*given), donate_argnums=0).lower(shape, new, number, mask)
    counted = moved(parse(lowered.compile().as_text()))
    assert 2 * tree_bytes(new) <= counted < 6 * tree_bytes(new) < tree_bytes(shape)
    whole = jax.jit(lambda ring: ring.frames + 1.0).lower(shape).compile()
    assert moved(parse(whole.as_text())) == 2 * tree_bytes(shape)
