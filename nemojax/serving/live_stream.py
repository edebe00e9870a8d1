"""One of an engine's live streams, as its caller sees it: samples in, updates out, in an event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nemojax.audio.source import as_mono
from nemojax.decoding.state import Emission
from nemojax.errors import Backlog, EngineError
from nemojax.recognition.hypothesis import Hypothesis, Update
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:
    from nemojax.serving.engine import Engine


NOTHING = Update()  # of most steps of most streams, of which there are many


class Chunk(NamedTuple):
    samples: np.ndarray  # float32 [N]
    length: int  # the valid ones, those of the history included


class LiveStream:
    """One stream of an engine, used from the event loop that opened it. What it has said it never takes back."""

    def __init__(self, engine: "Engine", slot: int):
        recognizer = engine.recognizer
        self._engine, self._slot, self._begun = engine, slot, False
        self._chunks: deque[Chunk] = deque()
        self._buffer = np.zeros(engine.chunk_samples, np.float32)
        self._filled = recognizer.config.history_samples  # virtual history comes first
        self._samples = 0
        self._finished = False  # no more samples are taken
        self._complete = False  # all chunks are with the engine, which guards this
        self._hypothesis, self._detokenizer = Hypothesis(), recognizer.tokenizer.incremental()
        self._unread: Update | None = None
        self._changed = asyncio.Event()
        self._transcript: Transcript | None = None
        self._error: EngineError | None = None
        self.chunks_heard = 0

    @property
    def backlog(self) -> int:
        """Chunks that wait to be heard."""
        return len(self._chunks)

    async def push(self, samples: Any) -> None:
        """Hears more samples, [N] at 16 kHz, float in -1 to 1 or int16, once there is room for them.

        Raises:
          AudioError: the samples are not one channel, or not all finite; the stream is as it was before.
          EngineError: the engine has stopped.
          ValueError: the stream is finished.
        """
        heard = as_mono(samples)
        while self.backlog >= self._engine.backlog and self._error is None:
            await self._change()
        self._push(heard)

    def push_nowait(self, samples: Any) -> None:
        """`push` for callers that can't wait. Raises Backlog, with nothing taken, where `push` would."""
        heard = as_mono(samples)
        if self.backlog >= self._engine.backlog:
            raise Backlog(f"{self.backlog} chunks wait to be heard; push slower, or fewer streams")
        self._push(heard)

    def _push(self, heard: np.ndarray) -> None:
        if self._error is not None:
            raise self._error
        if self._finished:
            raise ValueError("this stream is finished; open another")
        self._samples += len(heard)
        while len(heard):
            piece = heard[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            heard = heard[len(piece) :]
            if self._filled == len(self._buffer):
                self._cut()

    def _cut(self) -> None:
        chunk = Chunk(self._buffer, self._filled)
        self._buffer, self._filled = np.zeros(self._engine.chunk_samples, np.float32), 0
        self._engine._offer(self, chunk)

    async def finish(self) -> Transcript:
        """Hears what is left of the last chunk, and gives the transcript. Raises EngineError if it can't be had."""
        if not self._finished and self._error is None:
            self._finished = True
            if self._filled:
                self._cut()
            self._engine._finish(self)
        while self._transcript is None:
            if self._error is not None:
                raise self._error
            await self._change()
        return self._transcript

    def close(self) -> None:
        """Leaves at once; what has not been heard is dropped. A finished stream needs no closing."""
        self._finished = True
        self._fail(EngineError("the stream was closed"))
        self._engine._abandon(self)

    async def __aiter__(self) -> AsyncIterator[Update]:
        """What is new, as it comes, to the stream's end; what comes while nobody looks comes together."""
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
        await self._changed.wait()

    def _read(self, emission: Emission | None, over: bool) -> Update:
        """What a step brought, in the engine's reader."""
        new: tuple[list[int], list[int]] = ([], [])
        if emission is not None and emission.length[self._slot]:
            new = self._hypothesis.extend(emission, self._slot)
        elif not over:
            return NOTHING
        text = self._detokenizer.push(new[0]) + (self._detokenizer.finish() if over else "")
        return Update(text, tuple(new[0]), tuple(new[1]))

    def _tell(self, update: Update, chunks: int, over: bool) -> None:
        """In the event loop."""
        before, engine = self._unread, self._engine
        if before is None or before is NOTHING:
            self._unread = update
        elif update is not NOTHING:
            self._unread = Update(
                before.text + update.text, before.tokens + update.tokens, before.frames + update.frames
            )
        self.chunks_heard += chunks
        if over and self._error is None:
            recognizer = engine.recognizer
            self._transcript = self._hypothesis.transcript(
                recognizer.config, recognizer.tokenizer, self._samples, engine.lookahead, "stream"
            )
        self._changed.set()

    def _fail(self, error: EngineError) -> None:
        if self._transcript is None and self._error is None:
            self._error = error
        self._changed.set()
