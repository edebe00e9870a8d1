"""When an engine begins a step, and whose chunks it takes. Streams come from one thread, steps are taken by another."""

import threading
import time
from typing import NamedTuple

import numpy as np

from nemojax.recognition.stream_batch import StepInput
from nemojax.recognition.stream_graphs import StreamGraphs
from nemojax.serving.live_stream import Seat
from nemojax.serving.pending_steps import PendingSteps

EXPECTED_INTERVALS = 1.5  # a stream whose last chunk came longer ago, in intervals between its chunks, is idle
LONGEST_INTERVAL = 4  # in chunks; a longer one was a pause


class Step(NamedTuple):
    """The streams of a step, and its input."""

    given: StepInput | None  # None where no stream has a chunk, and streams end
    rows: np.ndarray  # slots of the streams that have a chunk in it
    stepped: list[Seat]  # those streams
    ended: list[Seat]  # the streams that end with it
    slots: int  # those up to the highest that is open
    ready_s: float  # when the first chunk arrived, or the step before began
    begun_s: float


class Schedule:
    """The open streams and their chunks. A step begins when every stream that is expected to has a chunk.

    A stream is expected for `EXPECTED_INTERVALS` intervals after its last chunk: an idle one delays no other. Its
    interval is that between its last two chunks, from the duration of a chunk, at which live audio comes, up to
    `LONGEST_INTERVAL` of them, where the engine is too slow for live audio. A step waits for the expected streams no
    longer than `patience_s` after its first chunk.

    What is kept of each slot is in arrays, so that a step of thousands of streams costs the host little.
    """

    def __init__(self, pending: PendingSteps, slots: int, patience_s: float, chunk_s: float):
        self._pending, self._patience_s, self._duration_s = pending, patience_s, chunk_s
        self._lock = threading.Lock()  # guards what follows
        self._changed = threading.Condition(self._lock)
        self._running = True
        self._seats: list[Seat | None] = [None] * slots  # streams themselves are held by their callers alone
        self._open, self._complete = np.zeros(slots, bool), np.zeros(slots, bool)
        self._waiting = np.zeros(slots, np.int32)  # chunks
        self._chunk_s = np.zeros(slots)  # when the last chunk came, or the stream
        self._until_s = np.zeros(slots)  # until when the next chunk is expected
        self._expected, self._expected_count = np.zeros(slots, bool), 0  # streams that the next step waits for
        self._ready_s = 0.0  # since when the next step has a chunk
        self._ended: list[Seat] = []  # streams that end without another chunk

    @property
    def open_streams(self) -> int:
        """Number of streams that have joined and not left."""
        return int(np.count_nonzero(self._open))

    def stop(self) -> None:
        """Ends `next`, in the other thread."""
        with self._lock:
            self._running = False
            self._changed.notify_all()

    def join(self, seat: Seat) -> None:
        """Adds a stream, in a slot that is free."""
        with self._lock:
            self._seats[seat.slot] = seat
            self._open[seat.slot], self._complete[seat.slot] = True, False
            now_s = time.monotonic()
            self._waiting[seat.slot], self._chunk_s[seat.slot] = 0, now_s
            self._pending.begin(seat.slot, seat.graphs)
            self._until_s[seat.slot] = now_s + EXPECTED_INTERVALS * self._duration_s

    def set_graphs(self, seat: Seat, graphs: StreamGraphs) -> None:
        """Gives a stream other graphs, from its next chunk on."""
        with self._lock:
            if self._seats[seat.slot] is seat:
                seat.graphs = graphs
                self._pending.set_graphs(seat.slot, graphs)

    def leave(self, seat: Seat) -> bool:
        """Removes a stream and its chunks. Returns whether it was there."""
        with self._lock:
            if self._seats[seat.slot] is not seat:
                return False
            self._seats[seat.slot], self._open[seat.slot] = None, False
            self._pending.drop(seat.slot)
            self._arrived(seat.slot)
            return True

    def waiting(self, seat: Seat) -> int:
        """Returns how many chunks of a stream wait for a step."""
        return int(self._waiting[seat.slot]) if self._seats[seat.slot] is seat else 0

    def waiting_of(self, slots: np.ndarray) -> np.ndarray:
        """Returns how many chunks of each slot's stream wait for a step."""
        waiting: np.ndarray = self._waiting[slots]
        return waiting

    def push(self, seat: Seat, samples: np.ndarray) -> int:
        """Adds samples [N] of a stream; returns how many chunks they complete, each for a step of its own."""
        slot = seat.slot
        with self._lock:
            if self._seats[slot] is not seat:
                return 0
            ready = self._pending.ready
            count = self._pending.push(slot, samples, int(self._waiting[slot]))
            if count:
                self._came(slot, count, ready == 0)
            return count

    def push_rows(self, slots: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Adds samples [streams, N] of streams, at most a chunk; returns which streams completed a chunk."""
        with self._lock:
            ready = self._pending.ready
            complete = self._pending.push_rows(slots, rows, self._waiting[slots])
            if complete.any():
                self._came(slots[complete], 1, ready == 0)
            return complete

    def _came(self, slots: int | np.ndarray, count: int, was_empty: bool) -> None:
        """Notes that `count` chunks of each stream have come; before, the next step had none if it `was_empty`."""
        now_s, longest_s = time.monotonic(), LONGEST_INTERVAL * self._duration_s
        self._waiting[slots] += count
        interval_s = np.clip((now_s - self._chunk_s[slots]) / count, self._duration_s, longest_s)
        self._chunk_s[slots], self._until_s[slots] = now_s, now_s + EXPECTED_INTERVALS * interval_s
        if was_empty and self._pending.ready:  # the first chunk of the next step
            self._begin_waiting()
            self._changed.notify()
        else:
            self._arrived(slots)

    def complete(self, seat: Seat) -> int:
        """Ends a stream after the chunks that wait and its last samples; returns how many chunks these are, 0 or 1."""
        slot = seat.slot
        with self._lock:
            if self._seats[slot] is not seat:
                return 0
            self._complete[slot] = True
            ready = self._pending.ready
            count = int(self._pending.end(slot, int(self._waiting[slot])))
            if count:
                self._came(slot, count, ready == 0)
            elif not self._waiting[slot]:
                self._ended.append(seat)
                self._changed.notify()
            self._arrived(slot)
            return count

    def next(self) -> Step | None:
        """Waits for the next step and takes it; None once it is stopped."""
        with self._lock:
            while self._running:
                left_s = self._ready_s + self._patience_s - time.monotonic()
                if self._pending.ready and (not self._expected_count or left_s <= 0):
                    return self._take()
                if self._ended:  # on their own, for the streams that have a chunk still wait
                    ended, self._ended = self._ended, []
                    return Step(None, np.zeros(0, np.intp), [], ended, 0, self._ready_s, time.monotonic())
                self._changed.wait(left_s if self._pending.ready else None)
            return None

    def _take(self) -> Step:
        begun_s, ready_s = time.monotonic(), self._ready_s
        given = self._pending.take()
        rows = np.flatnonzero(given.active)
        self._waiting[rows] -= 1
        last = rows[self._complete[rows] & (self._waiting[rows] == 0)]
        ended, self._ended = [*self._ended, *self._seated(last)], []
        if self._pending.ready:
            self._begin_waiting()
        slots = int(np.flatnonzero(self._open)[-1]) + 1
        return Step(given, rows, self._seated(rows), ended, slots, ready_s, begun_s)

    def _seated(self, slots: np.ndarray) -> list[Seat]:
        return [seat for slot in slots.tolist() if (seat := self._seats[slot]) is not None]

    def _begin_waiting(self) -> None:
        self._ready_s = time.monotonic()
        self._expected = self._open & ~self._complete & (self._waiting == 0) & (self._until_s >= self._ready_s)
        self._expected_count = int(np.count_nonzero(self._expected))

    def _arrived(self, slots: int | np.ndarray) -> None:
        """Notes that the next step need not wait for one stream, or for many."""
        if arrived := int(np.count_nonzero(self._expected[slots])):
            self._expected[slots] = False
            self._expected_count -= arrived
            if not self._expected_count:
                self._changed.notify()
