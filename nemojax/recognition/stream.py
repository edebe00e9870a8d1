"""One live stream: samples in, text out."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from nemojax.audio.source import as_mono
from nemojax.recognition.hypothesis import Hypothesis, Update
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment, init_state
from nemojax.text.transcript import Transcript

if TYPE_CHECKING:
    from nemojax.recognition.recognizer import Recognizer


class Stream:
    """One live stream. What it has said it never takes back."""

    def __init__(self, recognizer: "Recognizer", lookahead: int):
        config = recognizer.config
        self.lookahead, self._recognizer = lookahead, recognizer
        self.chunk_samples = config.chunk_samples(lookahead)
        self._state = init_state(recognizer.model, recognizer.constants, 1)
        self._pending = np.zeros(config.history_samples, np.float32)
        self._hypothesis, self._detokenizer = Hypothesis(), recognizer.tokenizer.incremental()
        self._samples, self._finished, self.text = 0, False, ""

    @property
    def duration_s(self) -> float:
        return self._samples / self._recognizer.config.features.sample_rate_hz

    def push(self, samples: Any) -> Update:
        """Hears more samples, any number of them: [N] at 16 kHz, float in -1 to 1 or int16.

        A chunk is computed as soon as its last needed sample is in.

        Raises:
          AudioError: the samples are not one channel, or not all finite; the stream is as it was before.
          ValueError: the stream is finished.
        """
        if self._finished:
            raise ValueError("this stream is finished; begin another with recognizer.stream()")
        heard = as_mono(samples)
        self._samples += len(heard)
        self._pending = np.concatenate([self._pending, heard])
        return self._hear(whole_chunks_only=True)

    def finish(self) -> Transcript:
        """Hears what is left of the last chunk, and gives the transcript of the whole stream."""
        if not self._finished:
            self._finished = True
            self._hear(whole_chunks_only=False)
            self._append(self._detokenizer.finish())
        recognizer = self._recognizer
        return self._hypothesis.transcript(
            recognizer.config, recognizer.tokenizer, self._samples, self.lookahead, "stream"
        )

    def _hear(self, whole_chunks_only: bool) -> Update:
        recognizer, chunk, text = self._recognizer, self.chunk_samples, ""
        tokens: list[int] = []
        frames: list[int] = []
        while len(self._pending) >= chunk or (len(self._pending) and not whole_chunks_only):
            now, self._pending = self._pending[:chunk], self._pending[chunk:]
            samples = np.zeros((1, chunk), np.float32)
            samples[0, : len(now)] = now
            on = np.ones(1, bool)
            segment = Segment(*map(jnp.asarray, (samples, np.full(1, len(now), np.int32), on, ~on)))
            self._state, emission = step_jit(
                recognizer.model, recognizer.constants, self._state, segment, lookahead=self.lookahead
            )
            new_tokens, new_frames = self._hypothesis.extend(jax.device_get(emission), 0)
            tokens += new_tokens
            frames += new_frames
            text += self._append(self._detokenizer.push(new_tokens))
        return Update(text, tuple(tokens), tuple(frames))

    def _append(self, text: str) -> str:
        self.text += text
        return text
