"""One of an engine's live streams, as its caller sees it: samples in, updates out, in an event loop."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nemojax.audio.stream_input import Piece, StreamInput
from nemojax.config import ModelConfig
from nemojax.decoding.graph_pool import PlacedGraph
from nemojax.errors import Backlog, EngineError
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update, merged
from nemojax.recognition.stream_graphs import NO_GRAPHS, StreamGraphs
from nemojax.text.phrases import Phrases
from nemojax.text.transcript import Transcript


@dataclass(eq=False)
class Seat:
    """A stream's place in an engine: its row of the batch, its hypothesis, and how far it is.

    The engine holds seats, and a seat does not hold its stream, so a stream that its caller forgets is collected.
    `hypothesis` belongs to the thread that reads emissions, the other fields to the event loop.
    """

    slot: int
    hypothesis: Hypothesis
    graphs: StreamGraphs = NO_GRAPHS
    samples: int = 0  # given to the engine so far, at the model's rate
    chunks: int = 0  # that these have completed
    chunks_done: int = 0  # of these, transcribed
    complete: bool = False  # it takes no more samples
    samples_s: float = field(default_factory=time.monotonic)  # when it last got samples
    stream: "Callable[[], LiveStream | None]" = lambda: None  # None once nobody refers to it any more
    awaited: "list[LiveStream]" = field(default_factory=list)  # held while a task waits: nothing else may hold the task

    def fail(self, error: EngineError) -> None:
        """Ends the stream with an error, unless it has ended."""
        if (stream := self.stream()) is not None:
            stream.fail(error)


@runtime_checkable
class Server(Protocol):
    """The engine as its streams see it; declared here, so that streams need not import the engine."""

    backlog: int  # chunks of a stream that may wait

    def waiting(self, seat: Seat) -> int:
        """Returns how many chunks of a stream wait for a step."""

    def take(self, seat: Seat, samples: np.ndarray) -> None:
        """Takes checked samples of a stream, float32 [N] at the model's rate."""

    def complete(self, seat: Seat) -> None:
        """Ends a stream after the samples taken so far."""

    def cancel(self, seat: Seat) -> None:
        """Ends a stream at once; chunks that wait are dropped."""

    def set_phrases(self, seat: Seat, phrases: Phrases | PlacedGraph | None) -> None:
        """Expects other phrases in a stream."""


class LiveStream:
    """One stream of an engine, used from the event loop that opened it. Final text is never taken back.

    As an async context manager it is closed at the end of the block, unless it is finished.
    """

    def __init__(self, server: Server, seat: Seat, config: ModelConfig, lookahead: int, audio: StreamInput):
        self.seat, self.lookahead, self._input = seat, lookahead, audio
        self._server, self.is_direct = server, audio.is_direct
        self._chunk_samples, self._history_samples = config.chunk_samples(lookahead), config.history_samples
        self._rate_hz = config.features.sample_rate_hz
        self._part_samples = max(1, self._chunk_samples * audio.rate_hz // self._rate_hz)  # at most a chunk
        self._turn = asyncio.Lock()  # long pushes and the end wait for each other
        self._in_turn = 0  # that have the lock or wait for it
        self._unread: list[Update] = []
        self._chunks_read = 0
        self._changed = asyncio.Event()
        self._transcript: Transcript | None = None
        self._error: EngineError | None = None
        seat.stream = weakref.ref(self)

    async def __aenter__(self) -> "LiveStream":
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._transcript is None:
            self.close()

    @property
    def backlog(self) -> int:
        """Chunks that wait for a step."""
        return self._server.waiting(self.seat)

    @property
    def chunks_pushed(self) -> int:
        """Chunks that the samples taken so far have completed."""
        return self.seat.chunks

    @property
    def chunks_done(self) -> int:
        """Chunks transcribed so far."""
        return self.seat.chunks_done

    @property
    def duration_s(self) -> float:
        """Seconds of audio taken so far."""
        return self._input.duration_s

    @property
    def transcribed_s(self) -> float:
        """Seconds of audio transcribed so far."""
        samples = self.chunks_done * self._chunk_samples - self._history_samples  # which begin the first chunk
        return max(0, min(samples, self.seat.samples)) / self._rate_hz

    async def push(self, samples: Any) -> None:
        """Takes more samples, as `Stream.push` does, a chunk at a time as there is room for it.

        Where it is canceled, `duration_s` tells how much was taken.

        Raises:
          AudioError: the samples are not one channel, or not all audio; the stream is as it was before.
          EngineError: the engine has stopped.
          ValueError: the stream is finished.
        """
        if self.room > 0:
            piece = self._input.check(samples)
            if len(piece.samples) <= self._part_samples:
                return self._push(piece)  # most pushes: they need no turn
            async with self._taking_turns():  # at once, for there is room only where nobody waits
                return await self._push_parts(piece)
        async with self._taking_turns():
            await self._push_parts(self._input.check(samples))

    @asynccontextmanager
    async def _taking_turns(self) -> AsyncIterator[None]:
        self._in_turn += 1
        try:
            async with self._turn:
                yield
        finally:
            self._in_turn -= 1

    async def _push_parts(self, piece: Piece) -> None:
        for part in piece.parts(self._part_samples):
            while self.backlog >= self._server.backlog and not self.ended:
                await self._change()
            self._push(part)

    def push_nowait(self, samples: Any) -> None:
        """Takes more samples without waiting. Raises Backlog, with nothing taken, where `push` would wait."""
        piece = self._input.check(samples)
        self._check_open()
        if (room := self.room) <= 0:
            raise Backlog(f"{self.backlog} chunks wait to be processed; push slower, or open fewer streams")
        if len(piece.samples) > room * self._part_samples:
            given_s, room_s = (count / self._input.rate_hz for count in (len(piece.samples), room * self._part_samples))
            raise Backlog(f"{given_s:.3f} s of samples are more than there is room for ({room_s:.3f} s); await push()")
        self._push(piece)

    @property
    def room(self) -> int:
        """Chunks that the stream takes without waiting; none while a push waits, or once the stream takes no more."""
        return 0 if self._in_turn or self.ended else self._server.backlog - self.backlog

    @property
    def ended(self) -> bool:
        """Whether it takes no more samples: it is finished or closed, or has failed."""
        return self.seat.complete or self._error is not None

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self.seat.complete:
            raise ValueError("this stream is finished; open another")

    def _push(self, piece: Piece) -> None:
        self._check_open()
        self._server.take(self.seat, self._input.take(piece))

    # Packets of many streams at once, see `packets`.

    @property
    def is_free(self) -> bool:
        """Whether it takes samples at all: it has not ended, and no push waits."""
        return not (self._in_turn or self.seat.complete or self._error is not None)

    def took(self, count: int, now_s: float, chunks: int) -> None:
        """Counts samples that were taken as they are, and the chunks that they completed."""
        self._input.count(count)
        seat = self.seat
        seat.samples, seat.chunks, seat.samples_s = seat.samples + count, seat.chunks + chunks, now_s

    def check_part(self, server: Server, samples: int) -> None:
        """Raises ValueError if this is a stream of another server, or if `samples` samples are more than a chunk."""
        if self._server is not server:
            raise ValueError("this is a stream of another engine; push its samples there")
        if samples > self._part_samples:
            raise ValueError(f"push at most a chunk of each stream, {self._part_samples} samples, not {samples}")

    def set_phrases(self, phrases: Phrases | PlacedGraph | None) -> None:
        """Expects other phrases from the next chunk on, as `Stream.set_phrases` does.

        A long list takes a while, up to a second for a thousand phrases: `Recognizer.phrases` prepares it, in any
        thread.
        """
        self._check_open()
        self._server.set_phrases(self.seat, phrases)

    async def finish(self) -> Transcript:
        """Transcribes the samples of the last, incomplete chunk and returns the transcript.

        Raises:
          EngineError: the engine has stopped, or the stream was closed.
        """
        async with self._taking_turns():
            if not self.seat.complete and self._error is None:
                self.seat.complete = True
                self._server.take(self.seat, self._input.end())
                self._server.complete(self.seat)
        while self._transcript is None:
            if self._error is not None:
                raise self._error
            await self._change()
        return self._transcript

    def close(self) -> None:
        """Leaves at once; chunks that wait are dropped. A finished stream needs no closing."""
        self.fail(EngineError("the stream was closed"))
        self._server.cancel(self.seat)

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Yields an update after each step, until the stream ends; updates that pile up between reads are merged."""
        while True:
            if (update := self.read_nowait()) is not None:
                yield update
            elif self._transcript is not None:
                return
            elif self._error is not None:
                raise self._error
            else:
                await self._change()

    def read_nowait(self) -> Update | None:
        """Returns what was added since the last read; None if no step was taken.

        A program with thousands of streams reads the streams of each `StepReport` so, in place of a task for each, and
        once more after `finish`: the end of a stream may add text without a step.
        """
        if not self._unread and self._chunks_read == self.chunks_done:
            return None
        update = merged(self._unread) if self._unread else NOTHING
        self._unread, self._chunks_read = [], self.chunks_done
        return update.at(self.transcribed_s)

    async def _change(self) -> None:
        self._changed.clear()
        self.seat.awaited.append(self)
        try:
            await self._changed.wait()
        finally:
            self.seat.awaited.pop()

    # The engine calls these, in the event loop.

    def publish(self, update: Update) -> None:
        """Gives the caller what a step has added; `wake` follows."""
        self._unread.append(update)

    def wake(self) -> None:
        """Lets the tasks that wait for the stream look at it again."""
        self._changed.set()

    def end(self) -> None:
        """Ends the stream: all its updates are published."""
        if self._error is None:
            hypothesis, notes = self.seat.hypothesis, self._input.notes
            self._transcript = hypothesis.transcript(self.seat.samples, self.lookahead, "stream", notes)
        self.wake()

    def fail(self, error: EngineError) -> None:
        """Ends the stream with an error, unless it has ended."""
        if self._transcript is None and self._error is None:
            where = f" ({self.duration_s:.2f} s taken, {self.chunks_done} chunks transcribed)" if self.backlog else ""
            self._error = EngineError(f"{error}{where}") if where else error
        self.wake()
