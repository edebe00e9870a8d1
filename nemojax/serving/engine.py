"""Many live streams on one device: each has a slot of one batch, and the batch takes a step for all at once.

    async with Engine(recognizer, lookahead=1, slots=(8, 64)) as engine:
        stream = engine.open()
        await stream.push(samples)  # any number of samples; waits while too many chunks wait
        async for update in stream: ...
        transcript = await stream.finish()

Streams join and leave at any step. A step begins when every open stream has a chunk, or `patience_s` after the first
one had: a stream without a chunk keeps its state and delays the others by that much at most. Each stream gets what
`Recognizer.stream` would give it alone, token for token; in int8, where activations are rounded, near-ties apart.

A stream keeps its slot until it is finished or closed. `async with engine.open() as stream:` closes it at the end of
the block, also where the task is canceled. A stream that nobody refers to any more is closed, and with `idle_limit_s`
one that gets no samples for that long.

Three threads share the work, so that none waits for another's: the caller's event loop cuts samples into chunks, the
stepper gathers a chunk of each stream and dispatches the step, the reader waits for its labels and makes them text.
All state stays on the device.
"""

import asyncio
import heapq
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import jax
import numpy as np

from nemojax.audio.inputs import Rate
from nemojax.audio.raw import SampleFormat
from nemojax.audio.stream_input import StreamInput
from nemojax.checks import check_count, check_seconds
from nemojax.decoding.state import Emission
from nemojax.errors import ConfigError, EngineError, EngineFull
from nemojax.recognition.hypothesis import Update
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import StepInput
from nemojax.serving.live_stream import LiveStream, Seat

SHRINK_AFTER = 50  # consecutive steps for which a smaller batch would do
IN_FLIGHT = 2  # steps whose labels wait to be read
BUFFERS = IN_FLIGHT + 2  # beside these, one step's labels are being read and one step is being gathered


class _StepResult(NamedTuple):
    """A step whose labels the reader makes text of."""

    emission: Emission | None  # on the device; None where no stream had a chunk
    stepped: list[Seat]  # of the streams that had a chunk in this step
    ended: list[Seat]  # of the streams that end with this step


class Engine:
    """Serves live streams at one look-ahead. Use it as an async context manager; see the module.

    Args:
      recognizer: the model; its type decides that of the caches.
      lookahead: in encoder frames; None is the model's default.
      slots: batch sizes to compile. The largest is the maximum number of streams; each step runs at the smallest size
        that covers every open slot.
      patience_s: how long a step waits for streams that have no chunk yet.
      backlog: maximum queued chunks per stream; `push` waits while the queue is full.
      on_step: called in the event loop, after each step's updates, with the streams that had a chunk in it.
      idle_limit_s: a stream that gets no samples for this long is closed, and its slot is free; None for no limit.
      reset_prediction_after_s: seconds without a label after which the prediction network begins anew, see `Greedy`;
        None for what the recognizer does.

    Raises:
      ConfigError: an argument is not a number in its range.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        lookahead: int | None = None,
        slots: Sequence[int] = (8, 64),
        patience_s: float = 0.01,
        backlog: int = 4,
        on_step: Callable[[Sequence[LiveStream]], object] = lambda streams: None,
        idle_limit_s: float | None = None,
        reset_prediction_after_s: float | None = None,
    ):
        if not isinstance(slots, Iterable) or not len(slots):
            raise ConfigError(f"slots must be a list of at least one batch size, not {slots!r}")
        for size in slots:
            check_count("each of slots", size)
        check_count("backlog", backlog)
        check_seconds("patience_s", patience_s)
        if idle_limit_s is not None:
            check_seconds("idle_limit_s", idle_limit_s, positive=True)
        if reset_prediction_after_s is not None:
            recognizer = recognizer.with_reset(reset_prediction_after_s)
        self.recognizer, self.lookahead = recognizer, recognizer.lookahead(lookahead)
        self.chunk_samples = recognizer.config.chunk_samples(self.lookahead)
        self.sizes, self.patience_s, self.backlog = tuple(sorted(set(slots))), patience_s, backlog
        self.on_step, self.steps, self.idle_limit_s = on_step, 0, idle_limit_s
        self._batch = recognizer.batch(self.sizes[0], self.lookahead)
        self._spare_steps = 0
        self._buffers: list[np.ndarray] = []  # of samples, used in turn
        self._wake = threading.Condition()  # guards the fields up to the queue
        self._running = False
        self._free = list(range(self.sizes[-1]))  # a heap: low slots first, so that batches stay small
        self._open: dict[int, Seat] = {}  # by slot; streams themselves are held by their callers alone
        self._ready: dict[Seat, None] = {}  # of the streams with a chunk, in order of arrival
        self._ready_since_s = 0.0
        self._ended: list[Seat] = []
        self._results: queue.Queue[_StepResult | None] = queue.Queue(IN_FLIGHT)
        self._unfinished: set[Seat] = set()  # only used in the event loop
        self._abandoned: deque[Seat] = deque()  # of streams that nobody refers to any more
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._stepper, self._reader)]

    @property
    def open_streams(self) -> int:
        """Number of slots in use."""
        return len(self._open)

    def open(self, sample_rate_hz: Rate | None = None, raw: str | SampleFormat | None = None) -> LiveStream:
        """Opens a stream; the arguments are those of `Recognizer.stream`.

        Raises:
          EngineFull: all slots are taken.
          ConfigError: the rate or the layout does not fit.
        """
        audio = StreamInput(self.recognizer.config.features.sample_rate_hz, sample_rate_hz, raw)
        self._close_abandoned()
        with self._wake:
            if not self._running:
                raise EngineError("the engine is not running")
            if not self._free:
                raise EngineFull(f"all {self.sizes[-1]} slots are taken; try again when a stream has ended")
            seat = Seat(heapq.heappop(self._free), self.recognizer.hypothesis())
            stream = LiveStream(self, seat, self.recognizer.config, self.lookahead, audio)
            self._open[seat.slot] = seat
        self._unfinished.add(seat)
        weakref.finalize(stream, self._abandon, seat).atexit = False
        return stream

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._compile)
        self._running = True
        for thread in self._threads:
            thread.start()
        if self.idle_limit_s is not None:
            self._loop.call_later(self.idle_limit_s, self._close_idle, self.idle_limit_s)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stop("the engine has stopped")
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join)

    def _compile(self) -> None:
        """Compiles everything that steps will need, so that none of them waits."""
        for size in (*self.sizes, *reversed(self.sizes)):
            self._resize(size)
            self._batch.step(StepInput.empty(self.recognizer.config, size, self.chunk_samples))
        self._batch.wait()
        self._allocate()

    def _allocate(self) -> None:
        """Allocates and touches the sample buffers once: page faults on fresh memory would slow every step."""
        shape = (self.sizes[-1], self.chunk_samples)
        self._buffers = [np.full(shape, 0, np.float32) for _ in range(BUFFERS)]

    def _stop(self, reason: str) -> None:
        """Stops the threads and fails every stream that has not ended; from any thread, any number of times."""
        with self._wake:
            self._running = False
            self._wake.notify_all()
        with suppress(RuntimeError):  # the loop is closed: no caller is left
            self._loop.call_soon_threadsafe(self._fail_all, EngineError(reason))

    def _fail_all(self, error: EngineError) -> None:
        for seat in self._unfinished:
            seat.fail(error)
        self._unfinished.clear()

    # Called by streams, in the event loop.

    def enqueue(self, seat: Seat, chunk: np.ndarray) -> None:
        """Takes a chunk for the next step."""
        with self._wake:
            if seat not in self._ready:
                if not self._ready:
                    self._ready_since_s = time.monotonic()
                self._ready[seat] = None
            seat.chunks.append(chunk)
            if len(self._ready) in (1, len(self._open)):
                self._wake.notify()

    def complete(self, seat: Seat) -> None:
        """Ends a stream after the chunks that wait."""
        with self._wake:
            seat.complete = True
            if not seat.chunks:
                self._end(seat)
            self._wake.notify()

    def cancel(self, seat: Seat) -> None:
        """Ends a stream at once; chunks that wait are dropped."""
        self._unfinished.discard(seat)
        with self._wake:
            seat.chunks.clear()
            self._leave(seat)
            self._wake.notify()

    def _end(self, seat: Seat) -> None:
        self._ended.append(seat)
        self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        if self._open.get(seat.slot) is seat:  # else it has left, and another may have the slot
            del self._open[seat.slot]
            heapq.heappush(self._free, seat.slot)
        self._ready.pop(seat, None)

    # Streams that their callers have left behind.

    def _abandon(self, seat: Seat) -> None:
        """Notes that nobody refers to a stream any more; called when it is collected, in any thread, at any place."""
        self._abandoned.append(seat)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._close_abandoned)

    def _close_abandoned(self) -> None:
        while self._abandoned:
            self.cancel(self._abandoned.popleft())

    def _close_idle(self, limit_s: float) -> None:
        """Closes the streams that got no samples for `limit_s`, and comes back when the next one may be due."""
        if not self._running:
            return
        now_s, next_s = time.monotonic(), limit_s
        for seat in list(self._unfinished):
            if seat.chunks or seat.complete:  # it waits for the engine, not for its caller
                seat.last_s = now_s
            left_s = seat.last_s + limit_s - now_s
            if left_s <= 0:
                seat.fail(EngineError(f"the stream was closed: it got no samples for {limit_s:g} s; open another"))
                self.cancel(seat)
            else:
                next_s = min(next_s, left_s)
        self._loop.call_later(next_s, self._close_idle, limit_s)

    # The stepper's thread.

    def _stepper(self) -> None:
        try:
            while (result := self._next()) is not None:
                self._results.put(result)
        except Exception as error:
            self._stop(f"the engine failed: {error}")
            raise
        finally:
            self._results.put(None)

    def _next(self) -> _StepResult | None:
        with self._wake:
            stepping = self._wait()
            if stepping is None:
                return None
            taken = [(seat, seat.chunks.popleft()) for seat in self._ready] if stepping else []
            slots = max(self._open, default=-1) + 1  # before any of them leaves
            for seat, _ in taken:
                if not seat.chunks:
                    del self._ready[seat]
                    if seat.complete:
                        self._end(seat)
            if stepping:  # a result with ends alone must not make the streams that are ready wait longer
                self._ready_since_s = time.monotonic()
            ended, self._ended = self._ended, []
        return _StepResult(self._run_step(taken, slots) if taken else None, [seat for seat, _ in taken], ended)

    def _wait(self) -> bool | None:
        """Waits until there is work. Returns whether it is a step; None to stop."""
        while self._running:
            left_s = self._ready_since_s + self.patience_s - time.monotonic()
            if self._ready and (len(self._ready) == len(self._open) or left_s <= 0):
                return True
            if self._ended:
                return False
            self._wake.wait(left_s if self._ready else None)
        return None

    def _run_step(self, taken: list[tuple[Seat, np.ndarray]], slots: int) -> Emission:
        fitting = next(size for size in self.sizes if size >= slots)
        size = self._batch.size
        self._spare_steps = self._spare_steps + 1 if fitting < size else 0
        if fitting > size or self._spare_steps > SHRINK_AFTER:
            self._resize(size := fitting)
        # rows that are not filled hold what was there before, which no inactive stream uses
        given = StepInput(self.recognizer.config, self._buffers[self.steps % BUFFERS][:size])
        seats = [seat for seat, _ in taken]
        given.fill_rows(
            [seat.slot for seat in seats], [chunk for _, chunk in taken], [not seat.begun for seat in seats]
        )
        for seat in seats:
            seat.begun = True
        self.steps += 1
        return self._batch.step(given)

    def _resize(self, size: int) -> None:
        self._batch.resize(size)
        self._spare_steps = 0

    # The reader's thread.

    def _reader(self) -> None:
        try:
            while (result := self._results.get()) is not None:
                emission, stepped, ended = jax.device_get(result.emission), set(result.stepped), set(result.ended)
                updates = [
                    (seat, seat.decode(emission if seat in stepped else None, seat in ended))
                    for seat in dict.fromkeys([*result.stepped, *result.ended])
                ]
                self._loop.call_soon_threadsafe(self._publish, updates, result.stepped, ended)
        except Exception as error:
            self._stop(f"the engine failed: {error}")
            while self._results.get() is not None:  # so that the stepper can end
                pass
            raise

    def _publish(self, updates: list[tuple[Seat, Update]], stepped: list[Seat], ended: set[Seat]) -> None:
        self._unfinished -= ended
        for index, (seat, update) in enumerate(updates):  # streams that had a chunk come first
            if (stream := seat.stream()) is not None:
                stream.publish(update, int(index < len(stepped)), seat in ended)
        if stepped:
            self.on_step([stream for seat in stepped if (stream := seat.stream()) is not None])
