"""The owner of the pool of graphs: adds graphs to it, and uses the places of those that nobody refers to any more."""

import functools
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nemojax.decoding.graphs import Graph, Pool

PAGE = 256  # states or arcs: a graph takes whole pages
PIECES = (256 * PAGE, 16 * PAGE, PAGE)  # what is written at once: a few sizes, each of which is compiled once
STATES = ("begin", "end", "backoff", "backoff_scores", "most", "pending")
ARCS = ("labels", "scores", "targets")
TYPES = {"backoff_scores": np.float32, "most": np.float32, "pending": np.float32, "scores": np.float32}


class PlacedGraph:
    """A graph in the pool. It has its place as long as something refers to this object.

    Attributes:
      pool: where it has its place.
      start: the state of a new stream, in the pool.
      number: its own, from 1 on.
      digest: the same for graphs that are alike.
    """

    def __init__(self, pool: "GraphPool", place: "_Place", start: int, number: int, digest: str):
        self.pool, self._place = pool, place
        self.start, self.number, self.digest = start, number, digest
        self._give_back_at_end()

    def _give_back_at_end(self) -> None:
        weakref.finalize(self, self.pool.dropped.append, self._place).atexit = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a copy: it has the same place in a copy of the pool
        self._give_back_at_end()


class _Place(NamedTuple):
    """The pages of a graph: the first of its states, their count, and the same of its arcs."""

    first_state: int
    states: int
    first_arc: int
    arcs: int


class _Pages:
    """Which pages are free; runs of pages are taken from the lowest that fits."""

    def __init__(self, count: int):
        self.count, self._free = count, [(0, count)]  # (first, past the last), in order

    def take(self, count: int) -> int | None:
        """Returns the first of `count` pages in a row; None if there are none."""
        for index, (first, end) in enumerate(self._free):
            if end - first >= count:
                self._free[index : index + 1] = [(first + count, end)] if first + count < end else []
                return first
        return None

    def give_back(self, first: int, count: int) -> None:
        """Frees pages."""
        runs = sorted([*self._free, (first, first + count)])
        self._free = runs[:1]
        for begin, end in runs[1:]:
            if begin == self._free[-1][1]:
                self._free[-1] = (self._free[-1][0], end)
            else:
                self._free.append((begin, end))

    def grow(self, count: int) -> None:
        """Makes it `count` pages altogether."""
        before, self.count = self.count, count
        self.give_back(before, count - before)


class GraphPool:
    """The pool on the device, and which of its pages are free. It is safe among threads.

    Adding a graph writes its pages in place and compiles nothing. Where it does not fit, the pool is doubled: then, and
    only then, the steps that use it are compiled again. It takes no memory before its first use.

    Args:
      labels: without blank; no state has more arcs.
      states, arcs: room at first; whole pages. By default 9 MB: four lists of a thousand phrases.
    """

    def __init__(self, labels: int, states: int = 131_072, arcs: int = 524_288):
        self.lock = threading.RLock()  # held where `arrays` are read and given to a step: writing uses them up
        self.dropped: deque[_Place] = deque()  # of graphs; added to by finalizers, at any place
        self._pages = {STATES: _Pages(states // PAGE), ARCS: _Pages(arcs // PAGE)}
        self._labels = labels
        self._count = 0
        self._arrays: Pool | None = None

    def __getstate__(self) -> dict[str, Any]:
        with self.lock:
            return {**self.__dict__, "lock": None, "_arrays": jax.device_get(self._arrays)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = state["_arrays"]
        self.__dict__.update(state, lock=threading.RLock(), _arrays=jax.tree.map(jnp.array, arrays))

    @property
    def sizes(self) -> tuple[int, int]:
        """How many states and arcs there is room for."""
        return self._pages[STATES].count * PAGE, self._pages[ARCS].count * PAGE

    @property
    def shapes(self) -> Pool:
        """The shapes and types of `arrays`, for compiling."""
        with self.lock:
            shapes: Pool = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.arrays)
            return shapes

    @property
    def arrays(self) -> Pool:
        """The pool on the device; hold `lock` until a step has been given it."""
        if self._arrays is None:
            size = {name: pages.count * PAGE for names, pages in self._pages.items() for name in names}
            zeros = {name: jnp.zeros(n, TYPES.get(name, np.int32)) for name, n in size.items()}
            self._arrays = Pool(**zeros, widest=jnp.zeros(self._labels + 1, bool))
            self._pages[STATES].take(1)  # state 0 is the empty graph
            for names in self._pages:
                self._compile(names, 0)
        return self._arrays

    def add(self, graph: Graph, digest: str = "") -> PlacedGraph:
        """Puts a graph into the pool."""
        with self.lock:
            self._arrays = self.arrays  # makes them, if there are none yet
            while self.dropped:
                dropped = self.dropped.popleft()
                self._pages[STATES].give_back(dropped.first_state, dropped.states)
                self._pages[ARCS].give_back(dropped.first_arc, dropped.arcs)
            states, arcs = (max(1, -(-len(array) // PAGE)) for array in (graph.begin, graph.labels))
            place = _Place(self._take(STATES, states), states, self._take(ARCS, arcs), arcs)
            first_state, first_arc = place.first_state * PAGE, place.first_arc * PAGE
            values = {name: getattr(graph, name) for name in STATES + ARCS}
            for name, first in (("begin", first_arc), ("end", first_arc), ("backoff", first_state)):
                values[name] = values[name] + first
            values["targets"] = values["targets"] + first_state
            self._write(STATES, values, first_state)
            self._write(ARCS, values, first_arc)
            self._count += 1
            return PlacedGraph(self, place, first_state + graph.start, self._count, digest)

    def _take(self, names: tuple[str, ...], count: int) -> int:
        """Returns the first of `count` free pages in a row; doubles the arrays while there are too few."""
        pages = self._pages[names]
        if (first := pages.take(count)) is not None:
            return first
        size = pages.count
        while size - pages.count < count:
            size *= 2
        before, longer = pages.count, {name: _longer(getattr(self.arrays, name), size * PAGE) for name in names}
        self._arrays = self.arrays._replace(**longer)
        pages.grow(size)
        self._compile(names, before)
        found = pages.take(count)
        assert found is not None
        return found

    def _write(self, names: tuple[str, ...], values: dict[str, np.ndarray], first: int) -> None:
        padding = -len(values[names[0]]) % PAGE
        padded = [np.pad(values[name].astype(TYPES.get(name, np.int32)), (0, padding)) for name in names]
        begin, count = 0, len(padded[0])
        while begin < count:
            size = next(size for size in PIECES if size <= count - begin)
            self._write_piece(names, [array[begin : begin + size] for array in padded], first + begin)
            begin += size

    def _write_piece(self, names: tuple[str, ...], piece: Sequence[np.ndarray], first: int) -> None:
        before = tuple(getattr(self.arrays, name) for name in names)
        after = _write(before, tuple(map(jnp.asarray, piece)), jnp.int32(first))
        self._arrays = self.arrays._replace(**dict(zip(names, after, strict=True)))

    def _compile(self, names: tuple[str, ...], first: int) -> None:
        """Compiles what writes pages: writes zeros, which the pages from `first` on have already."""
        for size in PIECES:
            if size <= (self._pages[names].count - first) * PAGE:
                zeros = [np.zeros(size, TYPES.get(name, np.int32)) for name in names]
                self._write_piece(names, zeros, first * PAGE)


@functools.partial(jax.jit, donate_argnums=0)
def _write(arrays: tuple[Array, ...], pieces: tuple[Array, ...], first: Int[Array, ""]) -> tuple[Array, ...]:
    """Writes a piece into each array, in place."""
    return tuple(jax.lax.dynamic_update_slice(a, p, (first,)) for a, p in zip(arrays, pieces, strict=True))


def _longer(array: Array, size: int) -> Array:
    return jnp.pad(array, (0, size - len(array)))
