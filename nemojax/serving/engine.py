"""Many live streams on one device: each has a slot of one batch, and the batch takes a step for all at once.

    async with Engine(recognizer, lookahead=1, slots=(8, 64)) as engine:
        stream = engine.open()
        await stream.push(samples)  # any number of samples; waits while too many chunks wait
        async for update in stream: ...
        transcript = await stream.finish()

Streams join and leave at any step. A step begins when every open stream has a chunk, or `patience_s` after the first
one had: a stream without a chunk keeps its state and delays the others by that much at most. Each stream gets what
`Recognizer.stream` would give it alone, token for token; in int8, where activations are rounded, near-ties apart.

Three threads share the work, so that none waits for another's: the caller's event loop cuts samples into chunks, the
stepper gathers a chunk of each stream and dispatches the step, the reader waits for its labels and makes them text.
All state stays on the device.
"""

import asyncio
import heapq
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

import jax
import numpy as np

from nemojax.audio.inputs import Rate
from nemojax.audio.raw import SampleFormat
from nemojax.audio.stream_input import StreamInput
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
    stepped: list[LiveStream]  # streams that had a chunk in this step
    ended: list[LiveStream]  # streams that end with this step


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
    """

    def __init__(
        self,
        recognizer: Recognizer,
        lookahead: int | None = None,
        slots: Sequence[int] = (8, 64),
        patience_s: float = 0.01,
        backlog: int = 4,
        on_step: Callable[[Sequence[LiveStream]], object] = lambda streams: None,
    ):
        if not slots or min(slots) < 1 or backlog < 1 or patience_s < 0:
            raise ConfigError("an engine needs at least one slot, a backlog of at least 1 and a patience of at least 0")
        self.recognizer, self.lookahead = recognizer, recognizer.lookahead(lookahead)
        self.chunk_samples = recognizer.config.chunk_samples(self.lookahead)
        self.sizes, self.patience_s, self.backlog = tuple(sorted(set(slots))), patience_s, backlog
        self.on_step, self.steps = on_step, 0
        self._batch = recognizer.batch(self.sizes[0], self.lookahead)
        self._spare_steps = 0
        self._buffers: list[np.ndarray] = []  # of samples, used in turn
        self._wake = threading.Condition()  # guards the fields up to the queue
        self._running = False
        self._free = list(range(self.sizes[-1]))  # a heap: low slots first, so that batches stay small
        self._open: dict[int, LiveStream] = {}  # by slot
        self._ready: dict[LiveStream, None] = {}  # streams with a chunk, in order of arrival
        self._ready_since_s = 0.0
        self._ended: list[LiveStream] = []
        self._results: queue.Queue[_StepResult | None] = queue.Queue(IN_FLIGHT)
        self._unfinished: set[LiveStream] = set()  # only used in the event loop
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
        with self._wake:
            if not self._running:
                raise EngineError("the engine is not running")
            if not self._free:
                raise EngineFull(f"all {self.sizes[-1]} slots are taken; try again when a stream has ended")
            seat = Seat(heapq.heappop(self._free), self.recognizer.hypothesis())
            self._open[seat.slot] = stream = LiveStream(self, seat, self.recognizer.config, self.lookahead, audio)
        self._unfinished.add(stream)
        return stream

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._compile)
        self._running = True
        for thread in self._threads:
            thread.start()
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
        for stream in self._unfinished:
            stream.fail(error)
        self._unfinished.clear()

    # Called by streams, in the event loop.

    def enqueue(self, stream: LiveStream, chunk: np.ndarray) -> None:
        """Takes a chunk for the next step."""
        with self._wake:
            if stream not in self._ready:
                if not self._ready:
                    self._ready_since_s = time.monotonic()
                self._ready[stream] = None
            stream.seat.chunks.append(chunk)
            if len(self._ready) in (1, len(self._open)):
                self._wake.notify()

    def complete(self, stream: LiveStream) -> None:
        """Ends a stream after the chunks that wait."""
        with self._wake:
            stream.seat.complete = True
            if not stream.seat.chunks:
                self._end(stream)
            self._wake.notify()

    def cancel(self, stream: LiveStream) -> None:
        """Ends a stream at once; chunks that wait are dropped."""
        self._unfinished.discard(stream)
        with self._wake:
            stream.seat.chunks.clear()
            self._leave(stream)
            self._wake.notify()

    def _end(self, stream: LiveStream) -> None:
        self._ended.append(stream)
        self._leave(stream)

    def _leave(self, stream: LiveStream) -> None:
        slot = stream.seat.slot
        if self._open.get(slot) is stream:  # else it has left, and another may have the slot
            del self._open[slot]
            heapq.heappush(self._free, slot)
        self._ready.pop(stream, None)

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
            taken = [(stream, stream.seat.chunks.popleft()) for stream in self._ready] if stepping else []
            slots = max(self._open, default=-1) + 1  # before any of them leaves
            for stream, _ in taken:
                if not stream.seat.chunks:
                    del self._ready[stream]
                    if stream.seat.complete:
                        self._end(stream)
            if stepping:  # a result with ends alone must not make the streams that are ready wait longer
                self._ready_since_s = time.monotonic()
            ended, self._ended = self._ended, []
        return _StepResult(self._run_step(taken, slots) if taken else None, [stream for stream, _ in taken], ended)

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

    def _run_step(self, taken: list[tuple[LiveStream, np.ndarray]], slots: int) -> Emission:
        fitting = next(size for size in self.sizes if size >= slots)
        size = self._batch.size
        self._spare_steps = self._spare_steps + 1 if fitting < size else 0
        if fitting > size or self._spare_steps > SHRINK_AFTER:
            self._resize(size := fitting)
        # rows that are not filled hold what was there before, which no inactive stream uses
        given = StepInput(self.recognizer.config, self._buffers[self.steps % BUFFERS][:size])
        seats = [stream.seat for stream, _ in taken]
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
                    (stream, stream.seat.decode(emission if stream in stepped else None, stream in ended))
                    for stream in dict.fromkeys([*result.stepped, *result.ended])
                ]
                self._loop.call_soon_threadsafe(self._publish, updates, result.stepped, ended)
        except Exception as error:
            self._stop(f"the engine failed: {error}")
            while self._results.get() is not None:  # so that the stepper can end
                pass
            raise

    def _publish(
        self, updates: list[tuple[LiveStream, Update]], stepped: list[LiveStream], ended: set[LiveStream]
    ) -> None:
        self._unfinished -= ended
        for index, (stream, update) in enumerate(updates):  # streams that had a chunk come first
            stream.publish(update, int(index < len(stepped)), stream in ended)
        if stepped:
            self.on_step(stepped)
