"""One live stream: samples in, text out."""

from collections import deque
from typing import Any

import jax

from nemojax.audio.stream_input import StreamInput
from nemojax.decoding.graph_pool import PlacedGraph
from nemojax.errors import ConfigError, StreamError
from nemojax.recognition.chunker import Chunk, Chunker
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.recognition.stream_graphs import NO_GRAPHS, GraphLibrary, StreamGraphs
from nemojax.text.phrases import Phrases
from nemojax.text.transcript import Transcript


class Stream:
    """One live stream of mono audio. Final text is never taken back.

    Args:
      batch: a batch of one row, which this stream owns.
      hypothesis: an empty one.
      audio: the input, which resamples to the model's rate; by default it is at that rate already.
      graphs: its language model and phrases.
      library: what makes graphs of other phrases.
    """

    def __init__(
        self,
        batch: StreamBatch,
        hypothesis: Hypothesis,
        audio: StreamInput | None = None,
        graphs: StreamGraphs = NO_GRAPHS,
        library: GraphLibrary | None = None,
    ):
        self.lookahead, self.chunk_samples = batch.lookahead, batch.chunk_samples
        self._batch, self._hypothesis = batch, hypothesis
        self._chunker = Chunker(batch.config, batch.lookahead)
        self._input = audio or StreamInput(batch.config.features.sample_rate_hz)
        self._graphs, self._library = graphs, library
        self._waiting: deque[tuple[Chunk, StreamGraphs]] = deque()  # chunks without a step that has succeeded
        self._samples, self._rate_hz = 0, batch.config.features.sample_rate_hz  # samples transcribed
        self._unread = NOTHING  # of steps before one that failed
        self._first, self._finished = True, False

    @property
    def text(self) -> str:
        """The final text so far."""
        return self._hypothesis.text

    @property
    def decides_ends(self) -> bool:
        """Whether it decides where utterances end; see `Recognizer.stream`."""
        return self._hypothesis.decides_ends

    @property
    def duration_s(self) -> float:
        """Seconds of audio pushed so far."""
        return self._input.duration_s

    def set_phrases(self, phrases: Phrases | PlacedGraph | None) -> None:
        """Expects other phrases from the next chunk on, or none; see `Recognizer.stream`.

        The labels that follow are those of a stream that has had these phrases from its start, if its labels so far
        were the same. In a beam, hypotheses keep what complete phrases have earned until then.

        Raises:
          ConfigError: a phrase or a boost is not one.
        """
        if self._library is None:
            raise ConfigError("this stream was made without what makes graphs of phrases; use recognizer.stream()")
        self._graphs = self._library.graphs(self._graphs, phrases or (), None)

    def push(self, samples: Any) -> Update:
        """Transcribes more samples, any number of them, at the rate that the stream was opened with.

        A chunk is computed as soon as its last sample arrives. Where a step fails, its error is raised, and the chunk
        and those after it wait: the next `push` or `finish` tries them again, if the step has left the state as it was.

        Args:
          samples: [N], [1, N] or [N, 1], float in -1 to 1, int16, int32 or uint8; and what else
            `StreamInput.check` takes.

        Raises:
          AudioError: the samples are not one channel, or not all audio; the stream is as it was before.
          StreamError: a step failed before, and the state of the stream is lost; says what was transcribed.
          ValueError: the stream is finished.
        """
        if self._finished:
            raise ValueError("this stream is finished; begin another with recognizer.stream()")
        self._wait(self._chunker.push(self._input.take(self._input.check(samples))))
        return self._transcribe_waiting()

    def finish(self) -> Transcript:
        """Transcribes the samples of the last, incomplete chunk, and returns the transcript of the whole stream.

        If the stream does not keep its transcript, that has what no update had.
        """
        if not self._finished:
            self._finished = True
            self._hypothesis.keep(self._unread)
            self._wait(self._chunker.push(self._input.end()))
            if (rest := self._chunker.rest()) is not None:
                self._wait([rest])
        self._transcribe_waiting()
        return self._hypothesis.transcript(self._chunker.samples, self.lookahead, "stream", self._input.notes)

    def _wait(self, chunks: list[Chunk]) -> None:
        self._waiting.extend((chunk, self._graphs) for chunk in chunks)

    def _transcribe_waiting(self) -> Update:
        """Transcribes the chunks that wait; a chunk waits until its step has succeeded."""
        if self._waiting and self._batch.is_lost:
            raise StreamError(
                f"a step of this stream failed, and its state is lost: {self._samples / self._rate_hz:.2f} s are "
                "transcribed (`text`); open another stream, and push what follows again"
            )
        while self._waiting:
            chunk, graphs = self._waiting[0]
            after = self._samples + sum(map(len, chunk))
            self._unread += self._step(chunk, graphs, after)
            self._samples = after
            self._waiting.popleft()
        update, self._unread = self._unread, NOTHING
        return update.at(self._samples / self._rate_hz)

    def _step(self, chunk: Chunk, graphs: StreamGraphs, samples: int) -> Update:
        """Transcribes a chunk, with which the stream has this many samples."""
        given = StepInput.empty(self._batch.config, 1, self.chunk_samples)
        given.fill_pieces(0, chunk, self._first)
        given.graphs.put(0, graphs)
        emission = jax.device_get(self._batch.step(given))
        self._first = False
        return self._hypothesis.extend(emission, 0, self._batch.config.encoder_frames(samples))
