"""One live stream: samples in, text out."""

from typing import Any

import jax
import numpy as np

from nemojax.audio.stream_input import StreamInput
from nemojax.recognition.chunker import Chunker
from nemojax.recognition.hypothesis import NOTHING, Hypothesis, Update
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.text.transcript import Transcript


class Stream:
    """One live stream of mono audio. Final text is never taken back.

    Args:
      batch: a batch of one row, which this stream owns.
      hypothesis: an empty one.
      audio: the input, which resamples to the model's rate; by default it is at that rate already.
    """

    def __init__(self, batch: StreamBatch, hypothesis: Hypothesis, audio: StreamInput | None = None):
        self.lookahead, self.chunk_samples = batch.lookahead, batch.chunk_samples
        self._batch, self._hypothesis = batch, hypothesis
        self._chunker = Chunker(batch.config, batch.lookahead)
        self._input = audio or StreamInput(batch.config.features.sample_rate_hz)
        self._first, self._finished = True, False

    @property
    def text(self) -> str:
        """The final text so far."""
        return self._hypothesis.text

    @property
    def duration_s(self) -> float:
        """Seconds of audio pushed so far."""
        return self._input.duration_s

    def push(self, samples: Any) -> Update:
        """Transcribes more samples, any number of them, at the rate that the stream was opened with.

        A chunk is computed as soon as its last sample arrives. If a step fails, the stream is lost: open another.

        Args:
          samples: [N], [1, N] or [N, 1], float in -1 to 1, int16, int32 or uint8; and what else
            `StreamInput.check` takes.

        Raises:
          AudioError: the samples are not one channel, or not all audio; the stream is as it was before.
          ValueError: the stream is finished.
        """
        if self._finished:
            raise ValueError("this stream is finished; begin another with recognizer.stream()")
        update = NOTHING
        for chunk in self._chunker.push(self._input.take(self._input.check(samples))):
            update += self._step(chunk)
        return update

    def finish(self) -> Transcript:
        """Transcribes the samples of the last, incomplete chunk, and returns the transcript of the whole stream."""
        if not self._finished:
            self._finished = True
            for chunk in self._chunker.push(self._input.end()):
                self._step(chunk)
            if (rest := self._chunker.rest()) is not None:
                self._step(rest)
        return self._hypothesis.transcript(self._chunker.samples, self.lookahead, "stream", self._input.notes)

    def _step(self, chunk: np.ndarray) -> Update:
        given = StepInput.empty(self._batch.config, 1, self.chunk_samples)
        given.fill(0, chunk, self._first)
        self._first = False
        return self._hypothesis.extend(jax.device_get(self._batch.step(given)), 0)
