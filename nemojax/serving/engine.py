"""Many live streams on one device: each has a slot of one batch, and the batch takes a step for all at once.

    async with Engine(recognizer, lookahead=1, slots=(8, 64)) as engine:
        stream = engine.open()
        await stream.push(samples)  # any number of samples; waits while too many chunks wait
        async for update in stream: ...
        transcript = await stream.finish()

Streams join and leave at any step. A step begins when every open stream has a chunk, or `patience_s` after the first
had one: a stream without a chunk keeps its state, and costs the others that much and no more. What a stream is told is
what `Recognizer.stream` would tell it alone, token for token; in int8, where activations are rounded, near-ties apart.

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
import jax.numpy as jnp
import numpy as np

from nemojax.decoding.state import Emission
from nemojax.errors import ConfigError, EngineError, EngineFull
from nemojax.recognition.hypothesis import Update
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_batch import step_jit
from nemojax.serving.live_stream import Chunk, LiveStream
from nemojax.streaming import Segment, StreamState, init_state

SHRINK_AFTER = 50  # steps in a row that a smaller batch would have held
IN_FLIGHT = 2  # steps whose labels wait to be read
BUFFERS = IN_FLIGHT + 2  # one step's labels are being read beside them, and one step is being gathered


class _Work(NamedTuple):
    """What the reader is to make text of."""

    emission: Emission | None  # on the device; None where there are only ends to be told
    heard: list[LiveStream]
    ended: list[LiveStream]  # with this, or earlier: nothing of theirs is left


@jax.jit
def _resized(state: StreamState, fresh: StreamState) -> StreamState:
    """The first streams of a state, and those of a fresh one after them, as many as the fresh one has."""
    return jax.tree.map(lambda x, f: jnp.concatenate([x[: len(f)], f[len(x) :]]), state, fresh)


class Engine:
    """Serves live streams at one look-ahead. Use it as an async context manager; see the module.

    Args:
      recognizer: the model; its type decides that of the caches.
      lookahead: in encoder frames; None is the model's default.
      slots: the sizes of batches that are compiled. The largest is how many streams there can be; each step is of the
        smallest that has all slots in use.
      patience_s: how long a step waits for those that have no chunk yet.
      backlog: so many chunks of a stream may wait; then `push` does.
      on_step: called in the event loop with the streams that a step was for, once they are told what it brought.
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
        self._state = init_state(recognizer.model, recognizer.constants, self.sizes[0])
        self._spare_steps = 0
        self._buffers: list[np.ndarray] = []  # of samples, used in turn
        self._wake = threading.Condition()  # guards what follows
        self._running = False
        self._free = list(range(self.sizes[-1]))  # a heap: low slots first, so that batches stay small
        self._open: dict[int, LiveStream] = {}
        self._ready: dict[LiveStream, None] = {}  # those with a chunk
        self._ready_since_s = 0.0
        self._ended: list[LiveStream] = []
        self._work: queue.Queue[_Work | None] = queue.Queue(IN_FLIGHT)
        self._unfinished: set[LiveStream] = set()  # touched in the event loop alone
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._step_on, self._read_on)]

    @property
    def open_streams(self) -> int:
        return len(self._open)

    def open(self) -> LiveStream:
        """A new stream. Raises EngineFull where all slots are taken."""
        with self._wake:
            if not self._running:
                raise EngineError("the engine is not running")
            if not self._free:
                raise EngineFull(f"all {self.sizes[-1]} slots are taken; try again when a stream has ended")
            slot = heapq.heappop(self._free)
            self._open[slot] = stream = LiveStream(self, slot)
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
        """All that steps will need, so that none of them waits."""
        for size in (*self.sizes, *reversed(self.sizes)):
            self._resize(size)
            off = np.zeros(size, bool)
            self._advance(np.zeros((size, self.chunk_samples), np.float32), np.zeros(size, np.int32), off, off)
        jax.block_until_ready(self._state)
        self._allocate()

    def _allocate(self) -> None:
        """Memory that is new at each step is slow, so it is had, and touched, beforehand."""
        shape = (self.sizes[-1], self.chunk_samples)
        self._buffers = [np.full(shape, 0, np.float32) for _ in range(BUFFERS)]

    def _stop(self, reason: str) -> None:
        """From any thread, any number of times."""
        with self._wake:
            self._running = False
            self._wake.notify_all()
        with suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(self._fail_all, EngineError(reason))

    def _fail_all(self, error: EngineError) -> None:
        for stream in self._unfinished:
            stream._fail(error)
        self._unfinished.clear()

    # From streams, in the event loop.

    def _offer(self, stream: LiveStream, chunk: Chunk) -> None:
        with self._wake:
            if stream not in self._ready:
                if not self._ready:
                    self._ready_since_s = time.monotonic()
                self._ready[stream] = None
            stream._chunks.append(chunk)
            if len(self._ready) in (1, len(self._open)):
                self._wake.notify()

    def _finish(self, stream: LiveStream) -> None:
        with self._wake:
            stream._complete = True
            if not stream._chunks:
                self._end(stream)
            self._wake.notify()

    def _end(self, stream: LiveStream) -> None:
        self._ended.append(stream)
        self._leave(stream)

    def _leave(self, stream: LiveStream) -> None:
        if self._open.get(stream._slot) is stream:
            del self._open[stream._slot]
            heapq.heappush(self._free, stream._slot)
        self._ready.pop(stream, None)

    def _abandon(self, stream: LiveStream) -> None:
        self._unfinished.discard(stream)
        with self._wake:
            stream._chunks.clear()
            self._leave(stream)
            self._wake.notify()

    # The stepper.

    def _step_on(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._work.put(work)
        except Exception as error:
            self._stop(f"the engine failed: {error}")
            raise
        finally:
            self._work.put(None)

    def _next(self) -> _Work | None:
        with self._wake:
            stepping = self._wait()
            if stepping is None:
                return None
            taken = [(stream, stream._chunks.popleft()) for stream in self._ready] if stepping else []
            slots = max(self._open, default=-1) + 1  # before any of them leaves
            for stream, _ in taken:
                if not stream._chunks:
                    del self._ready[stream]
                    if stream._complete:
                        self._end(stream)
            if stepping:  # telling an end must not make those that are ready wait longer
                self._ready_since_s = time.monotonic()
            ended, self._ended = self._ended, []
        return _Work(self._hear(taken, slots) if taken else None, [stream for stream, _ in taken], ended)

    def _wait(self) -> bool | None:
        """Until there is something to do: whether that is a step. None to stop."""
        while self._running:
            left_s = self._ready_since_s + self.patience_s - time.monotonic()
            if self._ready and (len(self._ready) == len(self._open) or left_s <= 0):
                return True
            if self._ended:
                return False
            self._wake.wait(left_s if self._ready else None)
        return None

    def _hear(self, taken: list[tuple[LiveStream, Chunk]], slots: int) -> Emission:
        fitting = next(size for size in self.sizes if size >= slots)
        size = len(self._state.position)
        self._spare_steps = self._spare_steps + 1 if fitting < size else 0
        if fitting > size or self._spare_steps > SHRINK_AFTER:
            self._resize(size := fitting)
        samples = self._buffers[self.steps % BUFFERS][:size]  # rows that are not filled hold what was there before
        length = np.zeros(size, np.int32)
        active, reset = np.zeros(size, bool), np.zeros(size, bool)
        for stream, chunk in taken:
            slot = stream._slot
            samples[slot], length[slot], active[slot], reset[slot] = *chunk, True, not stream._begun
            stream._begun = True
        self.steps += 1
        return self._advance(samples, length, active, reset)

    def _advance(self, *arrays: np.ndarray) -> Emission:
        model, constants = self.recognizer.model, self.recognizer.constants
        segment = Segment(*map(jnp.asarray, arrays))
        self._state, emission = step_jit(model, constants, self._state, segment, lookahead=self.lookahead)
        return emission

    def _resize(self, size: int) -> None:
        if size != len(self._state.position):
            fresh = init_state(self.recognizer.model, self.recognizer.constants, size)
            self._state = _resized(self._state, fresh)
        self._spare_steps = 0

    # The reader.

    def _read_on(self) -> None:
        try:
            while (work := self._work.get()) is not None:
                emission, heard, over = jax.device_get(work.emission), set(work.heard), set(work.ended)
                told = [
                    (stream, stream._read(emission if stream in heard else None, stream in over))
                    for stream in dict.fromkeys([*work.heard, *work.ended])
                ]
                self._loop.call_soon_threadsafe(self._tell, told, work.heard, over)
        except Exception as error:
            self._stop(f"the engine failed: {error}")
            while self._work.get() is not None:  # so that the stepper is not kept from its end
                pass
            raise

    def _tell(self, told: list[tuple[LiveStream, Update]], heard: list[LiveStream], over: set[LiveStream]) -> None:
        self._unfinished -= over
        for index, (stream, update) in enumerate(told):  # those that were heard come first
            stream._tell(update, int(index < len(heard)), stream in over)
        if heard:
            self.on_step(heard)
