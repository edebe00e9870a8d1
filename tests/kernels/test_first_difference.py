"""The first operation of a step whose values depend on its shape: 8 rows of 16 chunks against 1 row of 1 chunk.

In the form for reproducible results there is none. Where a new version of XLA compiles an operation in another way, so
that its bits change with the shape, this names it: a test of labels would only say that they differ.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import nemojax
from nemojax.bundled import SMALL
from nemojax.kernels import fixed_layers, panels, selection
from nemojax.kernels.quantization import PackedLinear
from nemojax.kernels.selection import for_backend
from nemojax.model import attention, conformer, convolution, encoder, features, layers, subsampling
from nemojax.model.parameters import thaw
from nemojax.streaming import Segment, encode, init_state, prepare
from tests.helpers.compiler import needs_compiler
from tests.helpers.optimized import OPTIMIZED

pytestmark = needs_compiler
ROWS, CHUNKS = 8, 16
# what is watched: every result, or the first of several, has time in its second axis
METHODS = [
    (layers.Linear, "__call__"),
    (PackedLinear, "__call__"),
    (layers.LayerNorm, "__call__"),
    (fixed_layers.FixedLayerNorm, "__call__"),
    (subsampling.Convolution, "__call__"),
    (convolution.DepthwiseConvolution, "__call__"),
    (conformer.FeedForward, "__call__"),
    (fixed_layers.FixedFeedForward, "__call__"),
    (attention.Attention, "attend"),
    (attention.Attention, "attend_in_place"),
    (fixed_layers.FixedAttention, "attend_to_rings"),
    (fixed_layers.FixedSubsampling, "step"),
    (fixed_layers.FixedConvolutionModule, "step"),
]


class Taps:
    """Records the results of the operations of a model while it is traced, with their names."""

    def __init__(self, monkeypatch):
        self.found: list[tuple[str, jax.Array]] = []
        self._paths: dict[int, str] = {}
        for kind, method in METHODS:
            monkeypatch.setattr(kind, method, self._watched(getattr(kind, method), method))
        log_mel = features.log_mel
        monkeypatch.setattr(features, "log_mel", lambda *given: self._record("log-mel frames", log_mel(*given)))
        # blocks are parts of one program anyway; without a trace of their own, their values are within reach
        plain = SimpleNamespace(jit=lambda function: function, named_scope=jax.named_scope)
        monkeypatch.setattr(encoder, "jax", plain)

    def _watched(self, function, method):
        def call(module, *given):
            name = f"{self._paths[id(module)]}, {type(module).__name__}"
            return self._record(
                name if method == "__call__" else f"{name}.{method.partition('_')[0]}", function(module, *given)
            )

        return call

    def _record(self, name, value):
        self.found.append((name, value[0] if isinstance(value, tuple) else value))
        return value

    def step(self, model, constants, lookahead):
        """Returns the compiled step, which returns all values too, and a list that will have their names."""
        names: list[str] = []

        def run(leaves, state, samples):
            model = jax.tree.unflatten(structure, leaves)
            self._paths = {id(module): ".".join(map(str, path)) for path, module in nnx.iter_modules(model)}
            self.found = []
            batch = samples.shape[0]
            full, yes = jnp.full(batch, samples.shape[1], jnp.int32), jnp.ones(batch, bool)
            encoded, _, state = encode(model, constants, state, Segment(samples, full, yes, ~yes), lookahead)
            self._record("encoder frames", encoded)
            names[:] = [name for name, _ in self.found]
            return [value for _, value in self.found], state

        leaves, structure = jax.tree.flatten(model)
        compiled = jax.jit(run, compiler_options=OPTIMIZED)
        return lambda state, samples: compiled(leaves, state, samples), names


def first_difference(model, samples: np.ndarray, lookahead: int, monkeypatch) -> str | None:
    """Returns the name of the first operation whose bits differ between the two shapes; None if there is none."""
    with monkeypatch.context() as patched:
        # in one part, so that all values are within reach
        model.encoder.parts = selection.GPU_PARTS
        for block in model.encoder.blocks:
            block.parts = block.attention.parts = selection.GPU_PARTS
        constants = prepare(model)
        step, names = Taps(patched).step(model, constants, lookahead)
        together, _ = step(init_state(model, constants, ROWS), samples)
        differ = np.zeros(len(names), bool)
        for row in range(ROWS):
            state = init_state(model, constants, 1)
            for chunk, part in enumerate(np.split(samples[row : row + 1], CHUNKS, axis=1)):
                alone, state = step(state, part)
                for i, (one, many) in enumerate(zip(alone, together, strict=True)):
                    length = one.shape[1]
                    expected = np.asarray(many)[row : row + 1, chunk * length : (chunk + 1) * length]
                    differ[i] |= np.asarray(one).tobytes() != np.ascontiguousarray(expected).tobytes()
    return names[int(np.argmax(differ))] if differ.any() else None


def recordings(config, speech, lookahead: int) -> np.ndarray:
    samples = CHUNKS * config.chunk_samples(lookahead)
    long = np.tile(np.asarray(speech), -(-(samples + 9_000 * ROWS) // len(speech)))
    return np.stack([long[9_000 * row : 9_000 * row + samples] for row in range(ROWS)])


def test_none_in_the_tiny_model(tiny_model, speech, monkeypatch):
    model = for_backend(tiny_model, reproducible=True)
    assert first_difference(model, recordings(model.config, speech, 1), 1, monkeypatch) is None


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", [0, 1, 13])
@pytest.mark.parametrize(
    "size, dtype", [("small", "float32"), ("small", "bfloat16"), ("small", "int8"), ("family", "float32")]
)
def test_none_in_any_type(family_model, speech, monkeypatch, size, dtype, lookahead):
    if size == "small":
        model = thaw(nemojax.load(SMALL, dtype, reproducible=True).model)
    elif lookahead == 13:  # its left context is 28 frames
        lookahead, model = 6, for_backend(family_model, reproducible=True)
    else:
        model = for_backend(family_model, reproducible=True)
    assert first_difference(model, recordings(model.config, speech, lookahead), lookahead, monkeypatch) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, plain, name",
    [
        (fixed_layers.FixedLayerNorm, layers.LayerNorm, "encoder.blocks.0.norm_feedforward1, FixedLayerNorm"),
        (fixed_layers.FixedAttention, attention.Attention, "encoder.blocks.0.attention, FixedAttention.attend"),
    ],
)
def test_a_sum_by_xla_is_named(speech, monkeypatch, kind, plain, name):
    model = thaw(nemojax.load(SMALL, reproducible=True).model)
    method = "__call__" if kind is fixed_layers.FixedLayerNorm else "step"
    monkeypatch.setattr(kind, method, getattr(plain, method))
    assert first_difference(model, recordings(model.config, speech, 1), 1, monkeypatch) == name


@pytest.mark.slow
def test_products_by_xla_are_named(speech, monkeypatch):
    model = thaw(nemojax.load(SMALL, reproducible=True).model)
    by_xla = lambda x, kernels, activation: [panels.plain_product(x, kernel, activation) for kernel in kernels]
    monkeypatch.setattr(panels, "native_products", by_xla)
    assert first_difference(model, recordings(model.config, speech, 1), 1, monkeypatch) == "log-mel frames"
