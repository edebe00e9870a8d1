"""Many live streams on one device: each has a slot of one batch, and the batch takes a step for all at once.

    async with Engine(recognizer, lookahead=1, slots=(8, 64)) as engine:
        stream = engine.open()
        await stream.push(samples)  # any number of samples; waits while too many chunks wait
        async for update in stream: ...
        transcript = await stream.finish()

Streams join and leave at any step. A step begins when every stream that is expected to has a chunk, or `patience_s`
after the first one had: an idle stream delays no other, see `Schedule`. A stream without a chunk keeps its state. Each
stream gets what `Recognizer.stream` would give it alone: the same bits if the recognizer is `reproducible`; else token
for token, unless two labels are nearly alike.

A stream keeps its slot until it is finished or closed. `async with engine.open() as stream:` closes it at the end of
the block, also where the task is canceled. A stream that nobody refers to any more is closed, and with `idle_limit_s`
one that gets no samples for that long.

An engine has one look-ahead. Engines of one recognizer share its weights: see `open_engines`.

Three threads share the work, so that none waits for another's: the caller's event loop cuts samples into chunks and
puts each into its row of a step's input, the stepper dispatches the steps, the reader waits for their labels and makes
them text. All state stays on the device.
"""

import asyncio
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np

from nemojax.audio.inputs import Rate
from nemojax.audio.raw import SampleFormat
from nemojax.audio.stream_input import StreamInput
from nemojax.checks import check_count, check_seconds
from nemojax.decoding.graph_pool import PlacedGraph
from nemojax.errors import ConfigError, EngineError, EngineFull
from nemojax.recognition.end_of_utterance import EndOfUtterance
from nemojax.recognition.hypothesis import Update
from nemojax.recognition.recognizer import Recognizer
from nemojax.recognition.stream_graphs import NO_GRAPHS, StreamGraphs
from nemojax.serving.live_stream import LiveStream, Seat
from nemojax.serving.packets import push_packets
from nemojax.serving.pending_steps import PendingSteps
from nemojax.serving.schedule import Schedule
from nemojax.serving.sized_batch import SizedBatch
from nemojax.serving.slots import Slots
from nemojax.serving.step_report import Dispatched, StepReport
from nemojax.serving.step_text import updates_of
from nemojax.text.phrases import Phrases

IN_FLIGHT = 2  # steps whose labels wait to be read
PREPARED = IN_FLIGHT + 2  # inputs of steps: beside these, one step's labels are being read, and one fills


class Engine:
    """Serves live streams at one look-ahead. Use it as an async context manager; see the module.

    Args:
      recognizer: the model; its type decides that of the caches.
      lookahead: in encoder frames; None is the model's default.
      slots: batch sizes to compile. The largest is the maximum number of streams; each step runs at the smallest size
        that covers every open slot.
      patience_s: how long a step waits for expected streams that have no chunk yet.
      backlog: maximum queued chunks per stream; `push` waits while the queue is full. Where chunks queue, each place
        in the queue takes memory for a chunk of all slots.
      on_step: called in the event loop, after each step's updates, with a report of it.
      idle_limit_s: a stream that gets no samples for this long is closed, and its slot is free; None for no limit.
      reset_prediction_after_s: seconds without a label after which the prediction network begins anew, see `Greedy`;
        None for what the recognizer does.
      phrases: streams will have phrases; without it, steps are compiled anew for the first stream that has some.

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
        on_step: Callable[[StepReport], object] | None = None,
        idle_limit_s: float | None = None,
        reset_prediction_after_s: float | None = None,
        phrases: bool = False,
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
        self._batch = SizedBatch(recognizer.batch(self.sizes[0], self.lookahead), self.sizes)
        if phrases:
            self._batch.batch.fuse()
        self._stopped: EngineError | None = EngineError("the engine is not running")
        self._pending = PendingSteps(recognizer.config, self.sizes[-1], self.chunk_samples)
        chunk_s = recognizer.config.chunk_ms(self.lookahead) / 1000
        self._schedule = Schedule(self._pending, self.sizes[-1], patience_s, chunk_s)
        self._results: queue.Queue[Dispatched | None] = queue.Queue(IN_FLIGHT)
        self._decided_frames = 0  # of a chunk, once a stream decides the ends of its utterances
        self._slots = Slots(self.sizes[-1])  # this and what follows is only used in the event loop
        self._unfinished: set[Seat] = set()
        self._abandoned: deque[Seat] = deque()  # of streams that nobody refers to any more
        self._failed: asyncio.Future[EngineError | None]
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._stepper, self._reader)]

    @property
    def open_streams(self) -> int:
        """Number of slots in use."""
        return self._schedule.open_streams

    @property
    def failed(self) -> "asyncio.Future[EngineError | None]":
        """A future of the running engine: its result is the error that ends it, or None once it is stopped."""
        return asyncio.shield(self._failed)  # a task that is canceled while it waits leaves it to the others

    def open(
        self,
        sample_rate_hz: Rate | None = None,
        raw: str | SampleFormat | None = None,
        keep_transcript: bool = True,
        end_of_utterance: EndOfUtterance | None = None,
        phrases: Phrases | PlacedGraph | None = None,
        lm_weight: float | None = None,
    ) -> LiveStream:
        """Opens a stream; the arguments are those of `Recognizer.stream`.

        The first stream with phrases, of an engine without `phrases` and without a language model, has its steps
        compiled anew.

        Raises:
          EngineFull: all slots are taken.
          ConfigError: the rate, the layout or a phrase does not fit.
        """
        audio, graphs = self._audio(sample_rate_hz, raw), self.recognizer.requested_graphs(phrases, lm_weight)
        return self._seat(self._slots.take(), audio, keep_transcript, end_of_utterance, graphs)

    async def open_within(
        self,
        wait_s: float,
        sample_rate_hz: Rate | None = None,
        raw: str | SampleFormat | None = None,
        keep_transcript: bool = True,
        end_of_utterance: EndOfUtterance | None = None,
        phrases: Phrases | PlacedGraph | None = None,
        lm_weight: float | None = None,
    ) -> LiveStream:
        """Opens a stream as `open` does, and waits up to `wait_s` seconds for a slot; first come, first served."""
        check_seconds("wait_s", wait_s)
        audio, graphs = self._audio(sample_rate_hz, raw), self.recognizer.requested_graphs(phrases, lm_weight)
        return self._seat(await self._slots.wait(wait_s), audio, keep_transcript, end_of_utterance, graphs)

    def push_nowait(self, streams: Sequence[LiveStream], samples: Any) -> list[LiveStream]:
        """Takes samples of many of its streams as their `push_nowait` does, in less time than one by one.

        Args:
          streams: each at most once.
          samples: [streams, N], at most a chunk of each, of a type that `LiveStream.push` takes.

        Returns:
          The streams of which nothing was taken, for they have no room: try again after a step, unless they have
          `ended`.

        Raises:
          AudioError: the samples are not all audio; nothing was taken.
          ValueError: there are more than a chunk, a stream is another engine's, or is given twice; nothing was taken.
        """
        return push_packets(self, self._schedule, streams, samples)

    def _audio(self, sample_rate_hz: Rate | None, raw: str | SampleFormat | None) -> StreamInput:
        self._close_abandoned()
        self._check_running()
        return StreamInput(self.recognizer.config.features.sample_rate_hz, sample_rate_hz, raw)

    def _check_running(self) -> None:
        if self._stopped is not None:
            raise EngineError(str(self._stopped))  # a new one each time: a raised error holds its callers' frames

    def _seat(
        self,
        slot: int | None,
        audio: StreamInput,
        keep_transcript: bool,
        end_of_utterance: EndOfUtterance | None = None,
        graphs: StreamGraphs = NO_GRAPHS,
    ) -> LiveStream:
        self._check_running()
        if slot is None:
            raise EngineFull(f"all {self.sizes[-1]} slots are taken; try again when a stream has ended")
        seat = Seat(slot, self.recognizer.hypothesis(keep_transcript, end_of_utterance), graphs)
        if end_of_utterance is not None:
            self._decided_frames = self.recognizer.config.chunk_frames(self.lookahead)
        stream = LiveStream(self, seat, self.recognizer.config, self.lookahead, audio)
        self._schedule.join(seat)
        self._unfinished.add(seat)
        weakref.finalize(stream, self._abandon, seat).atexit = False
        return stream

    async def __aenter__(self) -> "Engine":
        self._loop = asyncio.get_running_loop()
        await self._loop.run_in_executor(None, self._compile)
        self._failed = self._loop.create_future()
        self._stopped = None
        for thread in self._threads:
            thread.start()
        if self.idle_limit_s is not None:
            self._loop.call_later(self.idle_limit_s, self._close_idle, self.idle_limit_s)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._stop(EngineError("the engine has stopped"), failed=False)
        for thread in self._threads:
            await self._loop.run_in_executor(None, thread.join)

    def _compile(self) -> None:
        self._batch.compile()
        self._pending.prepare(PREPARED)

    def _stop(self, error: EngineError, failed: bool) -> None:
        """Stops the threads and fails every stream that has not ended; from any thread, any number of times."""
        self._stopped = self._stopped or error
        self._schedule.stop()
        with suppress(RuntimeError):  # the loop is closed: no caller is left
            self._loop.call_soon_threadsafe(self._fail_all, error, failed)

    def _fail_all(self, error: EngineError, failed: bool) -> None:
        for seat in self._unfinished:
            seat.fail(error)
        self._unfinished.clear()
        self._slots.close(error)
        if not self._failed.done():
            self._failed.set_result(error if failed else None)

    # Called by streams, in the event loop.

    def waiting(self, seat: Seat) -> int:
        """Returns how many chunks of a stream wait for a step."""
        return self._schedule.waiting(seat)

    def take(self, seat: Seat, samples: np.ndarray) -> None:
        """Takes checked samples of a stream, float32 [N] at the model's rate."""
        seat.samples, seat.samples_s = seat.samples + len(samples), time.monotonic()
        seat.chunks += self._schedule.push(seat, samples)

    def set_phrases(self, seat: Seat, phrases: Phrases | PlacedGraph | None) -> None:
        """Expects other phrases in a stream."""
        self._schedule.set_graphs(seat, self.recognizer.requested_graphs(phrases or (), None, seat.graphs))

    def complete(self, seat: Seat) -> None:
        """Ends a stream after the samples taken so far."""
        seat.chunks += self._schedule.complete(seat)

    def cancel(self, seat: Seat) -> None:
        """Ends a stream at once; chunks that wait are dropped."""
        self._unfinished.discard(seat)
        if self._schedule.leave(seat):
            self._slots.give_back(seat.slot)

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
        if self._stopped is not None:
            return
        now_s, next_s = time.monotonic(), limit_s
        for seat in list(self._unfinished):
            if self.waiting(seat) or seat.complete:  # it waits for the engine, not for its caller
                seat.samples_s = now_s
            left_s = seat.samples_s + limit_s - now_s
            if left_s <= 0:
                seat.fail(EngineError(f"the stream was closed: it got no samples for {limit_s:g} s; open another"))
                self.cancel(seat)
            else:
                next_s = min(next_s, left_s)
        self._loop.call_later(next_s, self._close_idle, limit_s)

    # The stepper's thread.

    def _stepper(self) -> None:
        try:
            while (step := self._schedule.next()) is not None:
                gathered_s, emission = time.monotonic(), None
                if step.given is not None:
                    emission = self._batch.step(step.given, step.slots)
                    self.steps += 1
                self._results.put(Dispatched(step, emission, self._batch.batch.size, gathered_s, time.monotonic()))
        except Exception as error:
            self._stop(EngineError(f"the engine failed: {error}"), failed=True)
            raise
        finally:
            self._results.put(None)

    # The reader's thread.

    def _reader(self) -> None:
        try:
            while (result := self._results.get()) is not None:
                self._read(result)
        except Exception as error:
            self._stop(EngineError(f"the engine failed: {error}"), failed=True)
            while self._results.get() is not None:  # so that the stepper can end
                pass
            raise

    def _read(self, dispatched: Dispatched) -> None:
        """Waits for a step's labels, makes them text, and has it published."""
        step = dispatched.step
        emission = jax.device_get(dispatched.emission)
        read_s = time.monotonic()
        if step.given is not None:
            self._pending.give_back(step.given)
        updates = updates_of(step, emission, self._decided_frames)
        moments_s = dispatched.moments_s(read_s, time.monotonic())
        self._loop.call_soon_threadsafe(self._publish, updates, dispatched, moments_s)

    def _publish(self, updates: dict[Seat, Update], dispatched: Dispatched, moments_s: tuple[float, ...]) -> None:
        changed = []
        for seat, update in updates.items():
            if (stream := seat.stream()) is not None:
                stream.publish(update)
                changed.append(stream)
        stepped = dispatched.step.stepped
        for seat in stepped:
            seat.chunks_done += 1
            if seat.awaited:
                seat.awaited[0].wake()
        for seat in dispatched.step.ended:
            self.cancel(seat)
            if (stream := seat.stream()) is not None:
                stream.end()
        if stepped and self.on_step is not None:
            streams = [stream for seat in stepped if (stream := seat.stream()) is not None]
            self.on_step(StepReport(streams, changed, dispatched.rows, *moments_s))
