"""What memory a step takes and what it moves: caches are read once and written in place, and nothing copies them."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from nemojax import streaming
from nemojax.kernels.selection import for_backend
from nemojax.model.parameters import abstract_model
from nemojax.recognition.stream_batch import jit_step
from nemojax.streaming import Segment

ROWS = 64


def tree_bytes(tree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def deep_config(tiny_config):
    """The tiny model with a left context so long that its caches outweigh all else."""
    encoder = dataclasses.replace(tiny_config.encoder, layers=4, left_context_frames=840, lookaheads=(6, 1, 0))
    return dataclasses.replace(tiny_config, encoder=encoder)


def compiled_step(config, dtype, cache, lookahead):
    """Compiles a step of `ROWS` streams; returns it and the shapes of the state."""
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), abstract_model(config))
    model = jax.eval_shape(lambda model: for_backend(model, kernels="xla", cache=cache), weights)
    constants, chunk = jax.eval_shape(streaming.prepare, model), config.chunk_samples(lookahead)
    state = jax.eval_shape(lambda *given: streaming.init_state(*given, ROWS, lookahead=lookahead), model, constants)
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((ROWS, *shape), dtype)
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
