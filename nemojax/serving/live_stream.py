"""One of an engine's live streams, as its caller sees it: samples in, updates out, in an event loop."""

import asyncio
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nemojax.audio.stream_input import Piece, StreamInput
from nemojax.config import ModelConfig
from nemojax.decoding.state import Emission
from nemojax.errors import Backlog, EngineError
from nemojax.recognition.chunker import Chunker
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.text.transcript import Transcript


@dataclass(eq=False)
class Seat:
    """A stream's place in an engine: its row of the batch, the chunks that wait, and its hypothesis.

    The engine holds seats, and a seat does not hold its stream, so a stream that its caller forgets is collected.
    The engine guards `chunks` and `complete` by its lock. `begun` belongs to the thread that steps, `hypothesis` to the
    thread that reads emissions, `last_s` to the event loop.
    """

    slot: int
    hypothesis: Hypothesis
    chunks: deque[np.ndarray] = field(default_factory=deque)
    begun: bool = False  # a step has had its first chunk
    complete: bool = False  # the chunks that wait are the last ones
    last_s: float = field(default_factory=time.monotonic)  # when it last got samples
    stream: "Callable[[], LiveStream | None]" = lambda: None  # None once nobody refers to it any more
    awaited: "list[LiveStream]" = field(default_factory=list)  # held while a task waits: nothing else may hold the task

    def decode(self, emission: Emission | None, ended: bool) -> Update:
        """Returns what a step adds to the transcript; the text is finished where the stream has `ended`."""
        update = NOTHING if emission is None else self.hypothesis.extend(emission, self.slot)
        return update + self.hypothesis.finish() if ended else update

    def fail(self, error: EngineError) -> None:
        """Ends the stream with an error, unless it has ended."""
        if (stream := self.stream()) is not None:
            stream.fail(error)


@runtime_checkable
class Server(Protocol):
    """The engine as its streams see it; declared here, so that streams need not import the engine."""

    backlog: int  # chunks of a stream that may wait

    def enqueue(self, seat: Seat, chunk: np.ndarray) -> None:
        """Takes a chunk for the next step."""

    def complete(self, seat: Seat) -> None:
        """Ends a stream after the chunks that wait."""

    def cancel(self, seat: Seat) -> None:
        """Ends a stream at once; chunks that wait are dropped."""


class LiveStream:
    """One stream of an engine, used from the event loop that opened it. Final text is never taken back.

    As an async context manager it is closed at the end of the block, unless it is finished.
    """

    def __init__(self, server: Server, seat: Seat, config: ModelConfig, lookahead: int, audio: StreamInput):
        self.seat, self.lookahead, self._input = seat, lookahead, audio
        self._server, self._chunker = server, Chunker(config, lookahead)
        self._finished = False  # no more samples are taken
        self._unread: Update | None = None
        self._changed = asyncio.Event()
        self._transcript: Transcript | None = None
        self._error: EngineError | None = None
        self.chunks_done = 0
        seat.stream = weakref.ref(self)

    async def __aenter__(self) -> "LiveStream":
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._transcript is None:
            self.close()

    @property
    def backlog(self) -> int:
        """Chunks that wait for a step."""
        return len(self.seat.chunks)

    async def push(self, samples: Any) -> None:
        """Takes more samples, as `Stream.push` does, once there is room for them.

        Raises:
          AudioError: the samples are not one channel, or not all audio; the stream is as it was before.
          EngineError: the engine has stopped.
          ValueError: the stream is finished.
        """
        piece = self._input.check(samples)
        while self.backlog >= self._server.backlog and self._error is None:
            await self._change()
        self._push(piece)

    def push_nowait(self, samples: Any) -> None:
        """Takes more samples without waiting. Raises Backlog, with nothing taken, where `push` would wait."""
        piece = self._input.check(samples)
        if self.backlog >= self._server.backlog:
            raise Backlog(f"{self.backlog} chunks wait to be processed; push slower, or open fewer streams")
        self._push(piece)

    def _push(self, piece: Piece) -> None:
        if self._error is not None:
            raise self._error
        if self._finished:
            raise ValueError("this stream is finished; open another")
        self.seat.last_s = time.monotonic()
        for chunk in self._chunker.push(self._input.take(piece)):
            self._server.enqueue(self.seat, chunk)

    async def finish(self) -> Transcript:
        """Transcribes the samples of the last, incomplete chunk and returns the transcript.

        Raises:
          EngineError: the engine has stopped, or the stream was closed.
        """
        if not self._finished and self._error is None:
            self._finished = True
            for chunk in self._chunker.push(self._input.end()):
                self._server.enqueue(self.seat, chunk)
            if (rest := self._chunker.rest()) is not None:
                self._server.enqueue(self.seat, rest)
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
        """Yields updates until the stream ends; updates that pile up between reads are merged into one."""
        while True:
            if self._unread is not None:
                update, self._unread = self._unread, None
                yield update
            elif self._transcript is not None:
                return
            elif self._error is not None:
                raise self._error
            else:
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        self.seat.awaited.append(self)
        try:
            await self._changed.wait()
        finally:
            self.seat.awaited.pop()

    # The engine calls these, in the event loop.

    def publish(self, update: Update, chunks: int, ended: bool) -> None:
        """Gives the caller what a step of `chunks` chunks of this stream, 0 or 1, has added; and the end."""
        self._unread = update if self._unread is None else self._unread + update
        self.chunks_done += chunks
        if ended and self._error is None:
            samples, notes = self._chunker.samples, self._input.notes
            self._transcript = self.seat.hypothesis.transcript(samples, self.lookahead, "stream", notes)
        self._changed.set()

    def fail(self, error: EngineError) -> None:
        """Ends the stream with an error, unless it has ended."""
        if self._transcript is None and self._error is None:
            taken = sum(map(len, self.seat.chunks))
            where = f" ({self._input.duration_s:.2f} s taken, {self.chunks_done} chunks transcribed)" if taken else ""
            self._error = EngineError(f"{error}{where}") if where else error
        self._changed.set()
