"""The samples that wait for a step: complete chunks in the memory that the step will read, and incomplete ones."""

from collections import deque

import numpy as np

from nemojax.config import ModelConfig
from nemojax.recognition.stream_batch import StepInput
from nemojax.recognition.stream_graphs import NO_GRAPHS, StreamGraphs


class PendingSteps:
    """The inputs of the next steps. A stream's chunks wait in its row of the first step, of the second, and so on.

    The samples of a chunk that is not complete are kept apart, in a row for each slot. A stream's first chunk begins
    with its virtual history. Memory of steps is used again after `give_back`; `prepare` allocates and touches what is
    likely to be needed, for page faults would slow steps down.

    Many streams are pushed as quickly as a few, for their rows are copied together. It is not safe among threads, apart
    from `give_back`.

    Attributes:
      ready: the number of streams that have a chunk in the first step.
    """

    def __init__(self, config: ModelConfig, slots: int, chunk_samples: int):
        self._config, self._shape = config, (slots, chunk_samples)
        self._chunk_samples, self._history_samples = chunk_samples, config.history_samples
        self._steps: deque[StepInput] = deque()
        self._spare: list[StepInput] = []
        self._incomplete = np.zeros(self._shape, np.float32)
        self._filled = np.zeros(slots, np.int32)  # samples of each incomplete chunk, virtual history included
        self._first = np.zeros(slots, bool)  # the incomplete chunk begins the stream
        self._graphs: dict[int, StreamGraphs] = {}  # of slots whose streams have some
        self.ready = 0

    def prepare(self, count: int) -> None:
        """Allocates the inputs of `count` steps."""
        self._spare += [self._allocate() for _ in range(count)]

    def begin(self, slot: int, graphs: StreamGraphs = NO_GRAPHS) -> None:
        """Begins a stream."""
        self._filled[slot], self._first[slot] = self._history_samples, True
        self.set_graphs(slot, graphs)

    def set_graphs(self, slot: int, graphs: StreamGraphs) -> None:
        """Gives a stream the graphs of the chunks that are complete from now on."""
        self._graphs.pop(slot, None)
        if graphs.placed:
            self._graphs[slot] = graphs

    def push(self, slot: int, samples: np.ndarray, waiting: int) -> int:
        """Adds samples [N] of a stream that has `waiting` chunks; returns how many chunks they complete."""
        before = waiting
        for begin in range(0, len(samples), self._chunk_samples):
            part = samples[begin : begin + self._chunk_samples]
            waiting += self._add(slot, int(self._filled[slot]), waiting, part)
        return waiting - before

    def push_rows(self, slots: np.ndarray, rows: np.ndarray, waiting: np.ndarray) -> np.ndarray:
        """Adds samples [streams, N], at most a chunk, of different streams.

        Args:
          waiting: how many chunks each stream has.

        Returns:
          Which streams' chunks are complete now.
        """
        filled = self._filled[slots]
        alike = filled.astype(np.int64) * (int(waiting.max(initial=0)) + 1) + waiting
        for value in np.unique(alike):  # few: streams that get packets of one size are at few places of a chunk
            group = np.flatnonzero(alike == value)
            first = int(group[0])
            samples = rows if len(group) == len(rows) else rows[group]
            self._add(slots[group], int(filled[first]), int(waiting[first]), samples)
        complete: np.ndarray = filled + rows.shape[1] >= self._chunk_samples
        return complete

    def _add(self, slots: int | np.ndarray, filled: int, waiting: int, samples: np.ndarray) -> bool:
        """Adds samples, [N] of a slot or [slots, N], where all are alike; returns whether they complete a chunk."""
        count, missing = samples.shape[-1], self._chunk_samples - filled
        if count < missing:
            self._incomplete[slots, filled : filled + count] = samples
            self._filled[slots] = filled + count
            return False
        step = self._step(waiting)
        step.samples[slots, :filled] = self._incomplete[slots, :filled]
        step.samples[slots, filled:] = samples[..., :missing]
        self._complete(step, slots, self._chunk_samples, waiting)
        self._incomplete[slots, : count - missing] = samples[..., missing:]
        self._filled[slots] = count - missing
        return True

    def end(self, slot: int, waiting: int) -> bool:
        """Makes the last samples of a stream a chunk; returns whether there were any, or no chunk at all."""
        filled = int(self._filled[slot])
        if not (filled or self._first[slot]):
            return False
        step = self._step(waiting)
        step.samples[slot, :filled] = self._incomplete[slot, :filled]
        self._complete(step, slot, filled, waiting)
        self._filled[slot] = 0
        return True

    def _step(self, number: int) -> StepInput:
        if number == len(self._steps):
            self._steps.append(self._spare.pop() if self._spare else self._allocate())
        return self._steps[number]

    def _complete(self, step: StepInput, slots: int | np.ndarray, length: int, number: int) -> None:
        step.length[slots], step.active[slots], step.reset[slots] = length, True, self._first[slots]
        self._first[slots] = False
        if self._graphs:
            for slot in np.atleast_1d(slots).tolist():
                step.graphs.put(slot, self._graphs.get(slot, NO_GRAPHS))
        self.ready += np.size(slots) if number == 0 else 0

    def drop(self, slot: int) -> None:
        """Removes all chunks of a stream."""
        for number, step in enumerate(self._steps):
            self.ready -= number == 0 and bool(step.active[slot])
            step.clear(slot)
        self._filled[slot], self._first[slot] = 0, False
        self._graphs.pop(slot, None)

    def take(self) -> StepInput:
        """Removes the first step and returns its input."""
        step = self._steps.popleft()
        self.ready = int(np.count_nonzero(self._steps[0].active)) if self._steps else 0
        return step

    def give_back(self, step: StepInput) -> None:
        """Takes back the input of a step that has been computed; from any thread."""
        step.clear()
        self._spare.append(step)

    def _allocate(self) -> StepInput:
        return StepInput(self._config, np.full(self._shape, 0, np.float32))
