"""Recordings side by side: which segments they are cut into, which rows they take, and when each is done."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

import jax
import numpy as np

from nemojax.audio.source import AudioSource
from nemojax.audio.voice_activity import SpeechSource, VoiceActivity
from nemojax.config import ModelConfig
from nemojax.decoding.state import AnyEmission
from nemojax.errors import AudioError
from nemojax.recognition.hypothesis import Hypothesis
from nemojax.recognition.stream_batch import StepInput, StreamBatch
from nemojax.recognition.stream_graphs import NO_GRAPHS, StreamGraphs
from nemojax.text.transcript import Transcript

# Lengths of segments, in left contexts (5.6 s at 70 frames): long segments cost less per second (relative costs as
# measured on a CPU), short ones need less padding. Each length in use is compiled once.
SEGMENT_LEFT_CONTEXTS = (1, 2, 4)
COST_PER_SECOND = (1.25, 1.15, 1.0)

Result = tuple[int, Transcript | AudioError]  # with the index of the source


@dataclass
class Job:
    """One recording that is waiting for, or occupies, a row of the batch."""

    index: int
    audio: AudioSource | SpeechSource
    hypothesis: Hypothesis
    samples: int = 0  # read so far

    def samples_left(self, config: ModelConfig) -> int | None:
        """Returns the samples still to read, virtual history included; None if the length is not known in advance."""
        if self.audio.duration_s is None:
            return None
        history = 0 if self.samples else config.history_samples
        left = round(self.audio.duration_s * config.features.sample_rate_hz) - self.samples
        return max(left, 0) + history  # the header may give fewer samples than there are

    def read(self, samples: int) -> np.ndarray:
        """Reads the next samples; fewer than asked for end the recording."""
        block = self.audio.read(samples)
        self.samples += len(block)
        return block

    def extend(self, emission: Any, row: int, config: ModelConfig) -> None:
        """Extends the hypothesis by the labels of a row; their frames are those of the recording."""
        decoded = config.encoder_frames(self.samples)
        if isinstance(self.audio, SpeechSource):
            frames = emission.frames.copy()
            frames[row] = self.audio.original_frames(frames[row])
            emission = emission._replace(frames=frames)
            decoded = int(self.audio.original_frames(np.array(decoded - 1))) + 1
        self.hypothesis.extend(emission, row, decoded)

    def transcript(self, lookahead: int) -> Transcript:
        """Returns the transcript of the whole recording, which has been read to its end."""
        samples = self.audio.samples if isinstance(self.audio, SpeechSource) else self.samples
        return self.hypothesis.transcript(samples, lookahead, "offline", self.audio.notes)


def transcribe_each(
    new_batch: Callable[[int], StreamBatch],
    config: ModelConfig,
    new_hypothesis: Callable[[], Hypothesis],
    sources: Iterable[Any],
    batch_size: int,
    open_source: Callable[[Any], AudioSource],
    progress: Callable[[float], object],
    voice_activity: VoiceActivity | None = None,
    graphs: StreamGraphs = NO_GRAPHS,
) -> Iterator[Result]:
    """Transcribes any number of recordings; see `Recognizer.transcribe_each`. `new_batch(size)` makes the batch."""
    speech_of = None
    if voice_activity is not None:
        voice_activity.detector()  # a missing package is an error of the call, not of each recording
        speech_of = lambda audio: SpeechSource(audio, voice_activity, config.frame_samples)
    jobs = open_each(sources, open_source, new_hypothesis, speech_of)
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
        rows = row_count(len(first), batch_size)
        more = rows < len(first) or not (isinstance(sources, Sized) and len(sources) <= batch_size)
        segment_samples = cheapest_length(first, config, more)
        yield from OfflineBatch(new_batch(rows), waiting, segment_samples, progress, graphs).run()


class OfflineBatch:
    """A batch whose rows take recordings in turn: where one ends, the next begins in its row.

    Args:
      waiting: (index, job or error) of every source.
      segment_samples: the samples of a step's rows, a whole number of chunks.
      progress: called with the seconds of audio of each step.
      graphs: the language model and phrases of all recordings.
    """

    def __init__(
        self,
        batch: StreamBatch,
        waiting: Iterator[tuple[int, Job | AudioError]],
        segment_samples: int,
        progress: Callable[[float], object],
        graphs: StreamGraphs = NO_GRAPHS,
    ):
        self._batch, self._config, self._waiting = batch, batch.config, waiting
        self._segment_samples, self._progress, self._graphs = segment_samples, progress, graphs
        self._rows: list[Job | None] = [None] * batch.size

    def run(self) -> Iterator[Result]:
        """Yields the result of each recording as soon as it is known."""
        while True:
            given = StepInput.empty(self._config, self._batch.size, self._segment_samples)
            for row in range(self._batch.size):
                yield from self._fill(row, given)
            if not given.active.any():
                return
            if (kept := worth_keeping(self._rows, self._config)) is not None:
                self._batch.keep(kept)
                given.keep(kept)
                self._rows = [self._rows[row] for row in kept]
            yield from self._hand_out(given, self._step(given))

    def _fill(self, row: int, given: StepInput) -> Iterator[Result]:
        """Fills a row: with more of its recording, or with the first one waiting that can be read."""
        while not given.active[row]:
            job, first = self._rows[row], self._rows[row] is None
            if job is None:
                index, next_job = next(self._waiting, (0, None))
                if next_job is None:
                    return
                if isinstance(next_job, AudioError):
                    yield index, next_job
                    continue
                job = next_job
            try:
                given.fill(row, job.read(given.room(first)), first)
                given.graphs.put(row, self._graphs)
                self._rows[row] = job
            except AudioError as error:
                self._rows[row] = None
                job.audio.close()
                yield job.index, error

    def _step(self, given: StepInput) -> AnyEmission:
        # where all recordings end, the segment may be a shorter one
        longest = given.length.max()
        given.shorten(next((n for n in segment_lengths(self._config) if n > longest), self._segment_samples))
        samples = given.length.sum() - given.reset.sum() * self._config.history_samples
        emission: AnyEmission = jax.device_get(self._batch.step(given))
        self._progress(float(samples) / self._config.features.sample_rate_hz)
        return emission

    def _hand_out(self, given: StepInput, emission: AnyEmission) -> Iterator[Result]:
        """Extends every row's hypothesis, and yields the transcripts of the recordings that ended."""
        for row, job in enumerate(self._rows):
            if job is None:
                continue
            job.extend(emission, row, self._config)
            if given.length[row] < self._segment_samples:
                self._rows[row] = None
                job.audio.close()
                yield job.index, job.transcript(self._batch.lookahead)


def open_each(
    sources: Iterable[Any],
    open_source: Callable[[Any], AudioSource],
    hypothesis: Callable[[], Hypothesis],
    speech_of: Callable[[AudioSource], SpeechSource] | None = None,
) -> Iterator[tuple[int, Job | AudioError]]:
    """Yields (index, Job or AudioError) for every source, each opened only when its turn comes.

    `speech_of` leaves out the silence of a recording.
    """
    for index, source in enumerate(sources):
        try:
            audio = source if isinstance(source, AudioSource) else open_source(source)
            yield index, Job(index, audio if speech_of is None else speech_of(audio), hypothesis())
        except AudioError as error:
            yield index, error


def batch_sizes(batch_size: int) -> list[int]:
    """Returns the sizes that a batch can have, largest first: few, for each is compiled at its first use."""
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return sizes


def row_count(recordings: int, batch_size: int) -> int:
    """Returns the size of a batch for 1 to `batch_size` recordings.

    On a CPU, where a row costs its share, no row is empty; elsewhere no recording waits.
    """
    sizes = batch_sizes(batch_size)
    if jax.default_backend() == "cpu":
        return next(size for size in sizes if size <= recordings)
    return min(size for size in sizes if size >= recordings)


def segment_lengths(config: ModelConfig) -> list[int]:
    """Returns the lengths of segments in samples, shortest first."""
    return [config.frame_samples * config.encoder.left_context_frames * n for n in SEGMENT_LEFT_CONTEXTS]


def cheapest_length(jobs: Sequence[Job], config: ModelConfig, more: bool) -> int:
    """Returns the length of segments at which these recordings cost least.

    Each is padded to whole segments, but for a short last one. Where `more` recordings may follow, rows take them at
    different times, and rarely end together.
    """
    left = [job.samples_left(config) for job in jobs]
    costs = dict(zip(segment_lengths(config), COST_PER_SECOND, strict=True))
    if None in left:
        return max(costs)

    def cost(length: int) -> float:
        counts = [-(-samples // length) for samples in left if samples is not None]
        rest = max(samples or 0 for samples in left) - (max(counts) - 1) * length
        last = length if more else next(short for short in costs if short >= rest)
        saved = counts.count(max(counts)) * (length * costs[length] - last * costs[last])
        return sum(counts) * length * costs[length] - saved

    return min(costs, key=cost)


def worth_keeping(rows: Sequence[Job | None], config: ModelConfig) -> np.ndarray | None:
    """Returns row indices of a batch of half the size (or a quarter, ...) that still holds every unfinished recording.

    None if the batch can't shrink, or if no recording has more than is read already. Only on a CPU: there a row costs
    its share, elsewhere less than compiling the step again.
    """
    busy, size = [row for row, job in enumerate(rows) if job is not None], len(rows)
    while 2 * len(busy) <= size:
        size //= 2
    done = all(job is None or job.samples_left(config) == 0 for job in rows)
    if size == len(rows) or done or jax.default_backend() != "cpu":
        return None
    idle = [row for row, job in enumerate(rows) if job is None]
    return np.asarray([*busy, *idle][:size])
