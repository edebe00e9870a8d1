"""What users call: load a checkpoint, transcribe recordings, hear a stream."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nemojax import checkpoint
from nemojax.bundled import SMALL
from nemojax.config import ModelConfig
from nemojax.errors import AudioError, TranscriptionError
from nemojax.kernels import native, quantization
from nemojax.kernels.selection import for_backend, with_fused_attention
from nemojax.model.parameters import freeze, parameter_count
from nemojax.model.transducer import Transducer
from nemojax.recognition.offline import Job, cheapest_length, open_each, segment_lengths, worth_keeping
from nemojax.recognition.stream import Stream
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment, init_state, prepare
from nemojax.text.tokenizer import Tokenizer
from nemojax.text.transcript import Transcript


def load(directory: str | Path = SMALL, dtype: str = "float32") -> "Recognizer":
    """A recogniser from a directory that `nemojax-convert` or training wrote.

    Args:
      directory: a native checkpoint; without it, the small model that comes with the package.
      dtype: "float32", exact; "bfloat16", half the memory and faster (accumulation, softmax, norms, features
        and decoding scores stay float32); or "int8", the encoder's weights in int8, what they are multiplied with
        in 13 to 16 bits, and all else in float32, the fastest on a CPU. Weights that were saved in int8 stay so.

    On a CPU, a large model's kernels are packed for `nemojax.kernels.native`, where a C++ compiler is at hand: faster, and with
    bfloat16 more exact, as only weights are rounded. NEMOJAX_NATIVE=0 leaves them as they are. On a GPU,
    NEMOJAX_FUSED_ATTENTION=1 has attention computed by `nemojax.kernels.fused_attention`.

    Raises:
      CheckpointError: it is not a checkpoint, or not a complete one.
    """  # noqa: E501
    dtypes: dict[str, Any] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "int8": jnp.float32}
    if str(dtype) not in dtypes:
        raise ValueError(f"dtype must be one of {', '.join(dtypes)}, not {dtype!r}")
    loaded, config, tokenizer, origin = checkpoint.load(directory, dtypes[dtype])
    trees = [loaded]
    del loaded  # packed kernel by kernel, each of which then goes: it is never there twice
    model = with_fused_attention(for_backend(trees.pop(), int8=dtype == "int8"))
    if jax.default_backend() == "cpu" and quantization.is_quantized(model) and (reason := native.unavailable_reason()):
        warnings.warn(f"products of int8 weights take the slower, plain path: {reason}", stacklevel=2)
    return Recognizer(model, config, Tokenizer(tokenizer), origin)


class Recognizer:
    """A model and its tokenizer. Immutable: streams and transcriptions share it freely."""

    def __init__(
        self, model: Transducer, config: ModelConfig, tokenizer: Tokenizer, origin: dict[str, Any] | None = None
    ):
        if tokenizer.size != config.vocabulary:
            raise ValueError(f"the tokenizer has {tokenizer.size} pieces, the model {config.vocabulary}")
        self.config, self.tokenizer, self.origin = config, tokenizer, origin or {}
        self.parameters = parameter_count(model)
        self.model = freeze(model)
        self.constants = prepare(self.model)

    @property
    def dtype(self) -> str:
        """Of the weights; see `load`."""
        return str(quantization.weights_dtype(self.model))

    def lookahead(self, lookahead: int | None) -> int:
        """The look-ahead asked for, or the default one. Raises ConfigError where it does not fit."""
        lookahead = self.config.encoder.lookaheads[0] if lookahead is None else lookahead
        self.config.chunk_frames(lookahead)
        return lookahead

    def stream(self, lookahead: int | None = None, sample_rate_hz: int = 16_000) -> "Stream":
        """A new live stream of mono audio at the model's sample rate."""
        expected = self.config.features.sample_rate_hz
        if sample_rate_hz != expected:
            raise ValueError(f"a stream takes samples at {expected} Hz; resample from {sample_rate_hz} Hz first")
        return Stream(self, self.lookahead(lookahead))

    def transcribe(
        self, audio: Any, lookahead: int | None = None, batch_size: int = 8, sample_rate_hz: int = 16_000
    ) -> Transcript | list[Transcript]:
        """Transcribes one recording or a list of them, in their order.

        Args:
          audio: a path, an array of samples ([N] or [N, channels], at `sample_rate_hz`), an AudioSource, or
            a list or tuple of those.
          lookahead: in encoder frames; None is the model's default, its most accurate.
          batch_size: recordings computed side by side.

        Raises:
          AudioError: the recording can't be read. For a list TranscriptionError, once all others are done.
        """
        many = isinstance(audio, list | tuple)
        sources = list(audio) if many else [audio]
        transcripts: list[Transcript | None] = [None] * len(sources)
        errors: dict[int, AudioError] = {}
        for index, result in self.transcribe_each(sources, lookahead, batch_size, sample_rate_hz):
            if isinstance(result, AudioError):
                errors[index] = result
            else:
                transcripts[index] = result
        if errors and not many:
            raise errors[0]
        if errors:
            raise TranscriptionError(dict(sorted(errors.items())), transcripts)
        done = [transcript for transcript in transcripts if transcript is not None]
        return done if many else done[0]

    def transcribe_each(
        self,
        sources: Iterable[Any],
        lookahead: int | None = None,
        batch_size: int = 8,
        sample_rate_hz: int = 16_000,
        progress: Callable[[float], object] = lambda seconds: None,
    ) -> Iterator[tuple[int, Transcript | AudioError]]:
        """Transcribes any number of recordings; gives (index, transcript or error) as each is done.

        Rows of one batch are independent: where a recording ends, the next begins. Memory does not grow with
        the recordings' number or length.

        Args:
          sources: as for `transcribe`, and AudioErrors, which are handed on.
          progress: told the seconds of audio of each step.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        lookahead = self.lookahead(lookahead)
        jobs = open_each(sources, sample_rate_hz)
        first: list[Job] = []
        for index, job in jobs:
            if isinstance(job, AudioError):
                yield index, job
                continue
            first.append(job)
            if len(first) == batch_size:
                break
        if first:
            waiting = chain(((job.index, job) for job in first), jobs)
            more = not (isinstance(sources, Sized) and len(sources) <= batch_size)
            segment_samples = cheapest_length(first, self.config, more)
            yield from self._transcribe_batch(waiting, len(first), segment_samples, lookahead, progress)

    def _transcribe_batch(
        self,
        waiting: Iterator[tuple[int, Any]],
        batch: int,
        segment_samples: int,
        lookahead: int,
        progress: Callable[[float], object],
    ) -> Iterator[tuple[int, Transcript | AudioError]]:
        state = init_state(self.model, self.constants, batch)
        rows: list[Job | None] = [None] * batch
        while True:
            samples = np.zeros((len(rows), segment_samples), np.float32)
            length, active, reset = (np.zeros(len(rows), kind) for kind in (np.int32, bool, bool))
            heard_s = 0.0
            for row in range(len(rows)):
                # a row takes recordings until one has audio for this segment
                while not active[row]:
                    job, reset[row] = rows[row], rows[row] is None
                    if job is None:
                        index, job = next(waiting, (0, None))
                        if job is None:
                            break
                        if isinstance(job, AudioError):
                            yield index, job
                            continue
                    history = self.config.history_samples if reset[row] else 0
                    try:
                        heard = job.read(segment_samples - history)
                    except AudioError as error:
                        rows[row] = None
                        job.audio.close()
                        yield job.index, error
                        continue
                    samples[row, history : history + len(heard)] = heard
                    length[row], active[row], rows[row] = history + len(heard), True, job
                    heard_s += len(heard) / self.config.features.sample_rate_hz
            if not active.any():
                return
            if (kept := worth_keeping(rows, self.config)) is not None:
                state = jax.tree.map(lambda x: x[kept], state)
                samples, length, active, reset = (x[kept] for x in (samples, length, active, reset))
                rows = [rows[row] for row in kept]
            # where all recordings end, the segment may be a shorter one
            needed = next((short for short in segment_lengths(self.config) if short > length.max()), segment_samples)
            segment = Segment(*map(jnp.asarray, (samples[:, :needed], length, active, reset)))
            state, emission = step_jit(self.model, self.constants, state, segment, lookahead=lookahead)
            emission = jax.device_get(emission)
            progress(heard_s)
            for row, job in enumerate(rows):
                if job is None:
                    continue
                job.hypothesis.extend(emission, row)
                if length[row] < segment_samples:
                    rows[row] = None
                    job.audio.close()
                    yield job.index, self._finish(job, lookahead)

    def _finish(self, job: Job, lookahead: int) -> Transcript:
        return job.hypothesis.transcript(
            self.config, self.tokenizer, job.samples, lookahead, "offline", job.audio.notes
        )
