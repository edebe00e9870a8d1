"""The state of a batch of streams on the device, the compiled step, and its input on the host."""

import functools
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nemojax import garbage
from nemojax.checks import check_count
from nemojax.config import ModelConfig
from nemojax.decoding.graph_pool import GraphPool
from nemojax.decoding.graphs import Graphs, Rows
from nemojax.decoding.state import AnyEmission, FusingSearch, Search
from nemojax.device import check_process
from nemojax.errors import ConfigError
from nemojax.kernels.selection import step_options, step_rows
from nemojax.model.parameters import FrozenModel, thaw
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_graphs import GraphRows
from nemojax.streaming import GREEDY, Constants, Segment, StreamState, init_state, step

_compiled_steps: set[Any] = set()  # with graphs, in this process; to lower one again takes longer than to run it


class StepInput:
    """One step's samples on the host, a row for each stream; a row that is not filled is an inactive stream.

    Args:
      samples: memory for the samples, float32 [B, N]; what a row holds past its filled part is not used.
    """

    def __init__(self, config: ModelConfig, samples: np.ndarray):
        size = len(samples)
        self._history_samples = config.history_samples
        self.samples, self.length = samples, np.zeros(size, np.int32)
        self.active, self.reset = np.zeros(size, bool), np.zeros(size, bool)
        self.graphs = GraphRows(size)

    @classmethod
    def empty(cls, config: ModelConfig, size: int, samples: int) -> "StepInput":
        """Makes an input of `size` rows of `samples` samples each, virtual history included."""
        return cls(config, np.zeros((size, samples), np.float32))

    def room(self, first: bool) -> int:
        """Returns how many samples a row takes; a stream's `first` segment begins with its virtual history."""
        return int(self.samples.shape[1]) - (self._history_samples if first else 0)

    def fill(self, row: int, samples: np.ndarray, first: bool) -> None:
        """Gives a row its samples, at most `room(first)`; fewer end the stream. `first` begins a new stream."""
        self.fill_pieces(row, [samples], first)

    def fill_pieces(self, row: int, pieces: Sequence[np.ndarray], first: bool) -> None:
        """Gives a row its samples, as `fill` does, where they are in pieces."""
        begin, samples = self._history_samples if first else 0, self.samples[row]
        for piece in pieces:
            end = begin + len(piece)
            samples[begin:end] = piece
            begin = end
        self.length[row], self.active[row], self.reset[row] = begin, True, first

    def clear(self, row: int | None = None) -> None:
        """Makes a row inactive, or all; the samples stay, and are not used."""
        rows = slice(None) if row is None else row
        self.length[rows], self.active[rows], self.reset[rows] = 0, False, False
        self.graphs.clear(row)

    def head(self, size: int) -> "StepInput":
        """Returns the first `size` rows, in the same memory."""
        head = copy(self)
        head.samples, head.length = self.samples[:size], self.length[:size]
        head.active, head.reset = self.active[:size], self.reset[:size]
        head.graphs = self.graphs.chosen(slice(size))
        return head

    def segment(self) -> Segment:
        """Returns the input on the device."""
        return Segment(*jax.device_put((self.samples, self.length, self.active, self.reset)))

    def keep(self, rows: np.ndarray) -> None:
        """Keeps the rows of these indices alone."""
        self.samples, self.length = self.samples[rows], self.length[rows]
        self.active, self.reset = self.active[rows], self.reset[rows]
        self.graphs = self.graphs.chosen(rows)

    def shorten(self, samples: int) -> None:
        """Cuts every row to `samples` samples."""
        self.samples = self.samples[:, :samples]


class StreamBatch:
    """Streams that advance together: their state on the device, and the compiled step.

    It is the only owner of device state outside the pure layer. Rows are independent streams: each begins anew with a
    `first` segment and pauses where it is not filled.

    Args:
      model: the weights, and `constants` as `prepare` makes them.
      lookahead: in encoder frames.
      size: the number of rows.
      search: the search over labels. It gets `fusion` with the first step of which a stream has graphs.
      compiler_options: XLA's options for the step; None is those of `selection.step_options`.
      pool: where the graphs of streams are.
    """

    def __init__(
        self,
        model: Transducer | FrozenModel,
        constants: Constants,
        lookahead: int,
        size: int,
        search: Search = GREEDY,
        compiler_options: Mapping[str, Any] | None = None,
        pool: GraphPool | None = None,
    ):
        check_process()
        check_count("size", size)
        self.config: ModelConfig = thaw(model).config
        self.lookahead, self.chunk_samples = lookahead, self.config.chunk_samples(lookahead)
        self._model, self._constants, self._search = model, constants, search
        self._step = jit_step(compiler_options)
        self._graph_rows: tuple[Any, Rows] | None = None
        self._compiled: set[Any] = set()  # sizes of the steps so far
        self._size, self._pool = size, pool or GraphPool(self.config.vocabulary)
        with garbage.paused():
            self._state = self._fresh_state()

    def _fresh_state(self) -> StreamState:
        """Returns the state of new streams. It may have more rows than the batch; they stay inactive."""
        rows = step_rows(self._size, self.config.chunk_frames(self.lookahead))
        fresh: StreamState = init_state(self._model, self._constants, rows, self._search, self.lookahead)
        return fresh

    @property
    def size(self) -> int:
        """The number of rows."""
        return self._size

    @property
    def is_lost(self) -> bool:
        """Whether a step that failed has used the state up."""
        return bool(self._state.position.is_deleted())

    def step(self, given: StepInput) -> AnyEmission:
        """Advances every active row by its samples. The emission stays on the device until it is read.

        Raises:
          ProcessError: this process was forked from the one that made the batch.
        """
        check_process()
        if given.graphs.placed:
            self.fuse()
        segment = given.segment()
        rows = self._graph_rows_of(given) if self._has_fusion else None
        sizes = self._sizes(segment)
        if sizes in self._compiled:
            return self._run(segment, rows)
        with garbage.paused():
            if rows is not None and self._step_key(segment) not in _compiled_steps:
                self._compile(segment, rows)  # before the step, for the pool's other users would wait
            emission = self._run(segment, rows)
        self._compiled.add(sizes)
        return emission

    def _sizes(self, segment: Segment) -> Any:
        return segment.samples.shape, self._rows, self._pool.sizes if self._has_fusion else None

    def _step_key(self, segment: Segment) -> Any:
        """Returns what a compiled step is for."""
        leaves, structure = jax.tree.flatten((self._model, self._constants, self._state))
        types = tuple(leaf.dtype for leaf in leaves)
        return self._step, structure, types, self.lookahead, self._search, self._sizes(segment)

    def _run(self, segment: Segment, rows: Rows | None) -> AnyEmission:
        """Runs the step. `rows` are the graphs of a search with fusion."""
        emission: AnyEmission
        if rows is None:
            self._state, emission = self._step(*self._arguments(segment, None), **self._settings)
            return emission
        with self._pool.lock:
            graphs = Graphs(self._pool.arrays, rows)
            self._state, emission = self._step(*self._arguments(segment, graphs), **self._settings)
        return emission

    def _graph_rows_of(self, given: StepInput) -> Rows:
        key = self._rows, given.graphs.key
        if self._graph_rows is None or self._graph_rows[0] != key:
            self._graph_rows = key, given.graphs.on_device(self._rows)  # mostly they stay the same
        return self._graph_rows[1]

    def _arguments(self, segment: Segment, graphs: Graphs | None) -> tuple[Any, ...]:
        """Returns the arguments of the step whose values may change."""
        return self._model, self._constants, self._state, segment, graphs

    @property
    def _settings(self) -> dict[str, Any]:
        return {"lookahead": self.lookahead, "search": self._search}

    @property
    def _rows(self) -> int:
        """The rows of the state, at least `size`."""
        return int(self._state.position.shape[0])

    @property
    def _has_fusion(self) -> bool:
        return isinstance(self._search, FusingSearch) and self._search.fusion

    def fuse(self) -> None:
        """Makes the search one with `fusion`, unless it is.

        Raises:
          ConfigError: there is no such form of it.
        """
        if self._has_fusion:
            return
        self._search = fusing(self._search)
        decoder = _with_fusion(self._state.decoder, self._search, self._rows)
        self._state = self._state._replace(decoder=decoder)

    def compile(self, samples: int) -> None:
        """Compiles the step for segments of this many samples, without taking it."""
        zeros = lambda dtype, *shape: jnp.zeros((self.size, *shape), dtype)
        segment = jax.eval_shape(
            lambda: Segment(zeros(jnp.float32, samples), zeros(jnp.int32), zeros(jnp.bool_), zeros(jnp.bool_))
        )
        self._compile(segment, self._graph_rows_of(StepInput.empty(self.config, self.size, 1)))

    def _compile(self, segment: Segment, rows: Rows) -> None:
        graphs = Graphs(self._pool.shapes, rows) if self._has_fusion else None
        key = self._step_key(segment)  # meanwhile the pool may grow
        with garbage.paused():
            self._step.lower(*self._arguments(segment, graphs), **self._settings).compile()
        if graphs is not None:
            _compiled_steps.add(key)

    def keep(self, rows: np.ndarray) -> None:
        """Keeps the rows of these indices alone, in their order."""
        self._size = len(rows)
        self._state = _kept(self._state, self._fresh_state(), jax.device_put(rows.astype(np.int32)))

    def resize(self, size: int) -> None:
        """Keeps the first rows, or appends new ones."""
        if size != self.size:
            kept, self._size = min(size, self.size), size
            self._state = _resized(self._state, self._fresh_state(), kept)

    def wait(self) -> None:
        """Waits until all steps are done."""
        jax.block_until_ready(self._state)


def fusing(search: Search) -> Search:
    """Returns a search with fusion.

    Raises:
      ConfigError: there is no such form of it.
    """
    if not isinstance(search, FusingSearch):
        raise ConfigError(f"{type(search).__name__} takes no language model and no phrases; use Greedy or Beam")
    return search.with_fusion()


# jitted, so that the state is placed like every other; else the step compiles twice
@functools.partial(jax.jit, static_argnames=("search", "rows"), donate_argnames="decoder")
def _with_fusion(decoder: Any, search: FusingSearch, rows: int) -> Any:
    """Returns the state of a search with fusion from that of the one without."""
    return search.add_fusion(decoder, rows)


@functools.partial(jax.jit, donate_argnames="fresh")
def _kept(state: StreamState, fresh: StreamState, rows: Int[Array, " K"]) -> StreamState:
    """Returns the rows of these indices, then those of `fresh`, which is used up."""
    kept: StreamState = jax.tree.map(lambda x, f: f.at[: len(rows)].set(x[rows]), state, fresh)
    return kept


# written in place: there are never two states of the larger size
@functools.partial(jax.jit, static_argnames="count", donate_argnames="fresh")
def _resized(state: StreamState, fresh: StreamState, count: int) -> StreamState:
    """Returns the first `count` rows of `state`, then those of `fresh`, which is used up."""
    resized: StreamState = jax.tree.map(lambda x, f: f.at[:count].set(x[:count]), state, fresh)
    return resized


def _step_of_rows(
    model: Transducer | FrozenModel,
    constants: Constants,
    state: StreamState,
    segment: Segment,
    graphs: Graphs | None = None,
    *,
    lookahead: int,
    search: Search = GREEDY,
) -> tuple[StreamState, AnyEmission]:
    """Runs `step` on the first rows of a state, as many as the segment has; the others are not used.

    `graphs` have all rows of the state.
    """
    rows, owned = segment.active.shape[0], state.position.shape[0]
    if rows == owned:
        return step(model, constants, state, segment, lookahead, search, graphs)
    if segment.samples.shape[1] == thaw(model).config.chunk_samples(lookahead):
        fill = lambda x: jnp.pad(x, [(0, owned - rows)] + [(0, 0)] * (x.ndim - 1))
        state, emission = step(model, constants, state, jax.tree.map(fill, segment), lookahead, search, graphs)
        return state, jax.tree.map(lambda x: x[:rows], emission)
    # a segment of many chunks has products of many rows
    first = lambda tree: jax.tree.map(lambda x: x[:rows], tree)
    if graphs is not None:
        graphs = graphs._replace(rows=first(graphs.rows))
    after, emission = step(model, constants, first(state), segment, lookahead, search, graphs)
    return jax.tree.map(lambda x, y: x.at[:rows].set(y), state, after), emission


_step_of_rows.__name__ = "step"  # what the program is called in traces and in the directory of compiled programs


def jit_step(compiler_options: Mapping[str, Any] | None = None) -> Any:
    """Returns `step` under `jax.jit`, the same one for the same options; the state given to it is used up.

    `compiler_options` are XLA's; None is `selection.step_options()`, the options for this backend.
    """
    options = step_options() if compiler_options is None else compiler_options
    return _jit_step(tuple(sorted(options.items())))


@functools.cache
def _jit_step(options: tuple[tuple[str, Any], ...]) -> Any:
    static = ("lookahead", "search")
    return jax.jit(
        _step_of_rows, static_argnames=static, donate_argnames="state", compiler_options=dict(options) or None
    )


def step_jit(
    model: Transducer | FrozenModel,
    constants: Constants,
    state: StreamState,
    segment: Segment,
    lookahead: int,
    search: Search = GREEDY,
    graphs: Graphs | None = None,
) -> tuple[StreamState, AnyEmission]:
    """Runs `step`, compiled at its first call with the backend's options; the state given to it is used up."""
    after, emission = jit_step()(model, constants, state, segment, graphs, lookahead=lookahead, search=search)
    return after, emission
