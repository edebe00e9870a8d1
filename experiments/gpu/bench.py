"""One set of weights on the device in all variants, and the jitted steps that are timed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import weights
from experiments.gpu.points import Point
from experiments.gpu.variants import variant
from experiments.speed.roofline import tree_bytes
from nemojax import streaming
from nemojax.config import ModelConfig
from nemojax.kernels.selection import step_options
from nemojax.model.parameters import FrozenModel, freeze, thaw
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_batch import jit_step
from nemojax.streaming import GREEDY, Constants, Segment, StreamState, init_state, prepare

SEGMENTS = 4  # inputs that take turns


def encoder_step(
    model: Transducer | FrozenModel, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[StreamState, jax.Array]:
    """Advances streams without the search for labels; returns their state and encoder frames."""
    encoded, _, state = streaming.encode(thaw(model), constants, state, segment, lookahead)
    return state, encoded


class Bench:
    """The weights and the jitted functions.

    Attributes:
      arrays: the parameters in float32 on the host, by path.
      bias: the bias on blank, by look-ahead.
      speech: samples, repeated without end; every stream begins at another place of them.
    """

    def __init__(self, config: ModelConfig, arrays: weights.Arrays, speech: np.ndarray, dtype: Any):
        self.config, self.speech, self._dtype = config, speech, dtype
        self.bias: dict[int, float] = {}
        self._last_segments: tuple[Any, list[Segment]] | None = None
        self.load(arrays)

    def load(self, arrays: weights.Arrays) -> None:
        """Puts parameters on the device in place of the earlier ones."""
        self.arrays = arrays
        model = weights.placed(self.config, arrays, self._dtype)
        names = ("plain", "fused", "narrow") if self._dtype == jnp.bfloat16 else ("plain", "fused")
        self._models: dict[str, FrozenModel] = {name: freeze(variant(model, name)) for name in names}
        self.constants = prepare(self._models["plain"])

    @functools.cached_property
    def weights_bytes(self) -> int:
        return tree_bytes(self._models["plain"]) + tree_bytes(self.constants)

    def state_bytes(self, lookahead: int) -> int:
        """Returns the bytes of one stream's state."""
        return tree_bytes(self._state_shape(1, lookahead))

    def state(self, point: Point) -> StreamState:
        """Returns the state of a point's new streams."""
        state: StreamState = init_state(self.model(point), self.constants, point.streams, GREEDY, point.lookahead)
        return state

    def _state_shape(self, streams: int, lookahead: int) -> Any:
        shape = lambda model, constants: init_state(model, constants, streams, GREEDY, lookahead)
        return jax.eval_shape(shape, self._models["plain"], self.constants)

    def model(self, point: Point) -> FrozenModel:
        """Returns the point's variant, with the bias on blank of its look-ahead."""
        model = self._models[point.variant]
        bias = self.bias.get(point.lookahead, next(iter(self.bias.values()), None))
        return model if bias is None else weights.with_blank_bias(model, bias)

    @staticmethod
    def options(point: Point) -> dict[str, Any]:
        """Returns XLA's options for a point's step."""
        return dict(step_options()) if point.buffers else {}

    def function(self, point: Point) -> Any:
        """Returns a point's jitted step: of (model, constants, state, segment), without further arguments."""
        options = self.options(point)
        if point.part == "encoder":
            return functools.partial(_jit_encoder(tuple(sorted(options.items()))), lookahead=point.lookahead)
        return functools.partial(jit_step(options), lookahead=point.lookahead, search=GREEDY)

    def lower(self, point: Point, samples: int | None = None) -> Any:
        """Lowers a point's step, for a segment of `samples`, by default one chunk."""
        shape: Any = jax.ShapeDtypeStruct
        streams = point.streams
        samples = samples or self.config.chunk_samples(point.lookahead)
        arrays: Any = (
            shape((streams, samples), jnp.float32),
            shape((streams,), jnp.int32),
            *(shape((streams,), jnp.bool) for _ in range(2)),
        )
        function, state = self.function(point), self._state_shape(streams, point.lookahead)
        model = self._models[point.variant]
        return function.func.lower(model, self.constants, state, Segment(*arrays), **function.keywords)

    def chunk(self, streams: int, lookahead: int, number: int) -> np.ndarray:
        """Returns the samples of all streams in one chunk, [streams, N]."""
        size = self.config.chunk_samples(lookahead)
        begins = np.arange(streams)[:, None] * 7919 + number * size
        return np.asarray(self.speech[(begins + np.arange(size)) % len(self.speech)])

    def segments(self, point: Point) -> list[Segment]:
        """Returns the inputs that take turns, equal for all variants; those of the last point stay on the device."""
        size = (point.streams, point.lookahead, point.active)
        if self._last_segments is None or self._last_segments[0] != size:
            self._last_segments = None  # frees their memory first
            self._last_segments = size, [self._segment(point, number) for number in range(SEGMENTS)]
        return self._last_segments[1]

    def _segment(self, point: Point, number: int) -> Segment:
        samples = self.chunk(point.streams, point.lookahead, number)
        active = np.arange(point.streams) < (point.active or point.streams)
        length = np.full(point.streams, samples.shape[1], np.int32)
        return Segment(*map(jnp.asarray, (samples, length, active, np.zeros(point.streams, bool))))


@functools.cache
def _jit_encoder(options: tuple[tuple[str, Any], ...]) -> Any:
    """Returns `encoder_step` under `jax.jit` with these compiler options; the state given to it is used up."""
    return jax.jit(
        encoder_step,
        static_argnames="lookahead",
        donate_argnames="state",
        compiler_options=dict(options) or None,
    )
