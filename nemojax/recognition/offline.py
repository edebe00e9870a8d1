"""How recordings lie in a batch: which segments they are cut into, and which rows are worth computing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from nemojax.audio.source import AudioSource, open_audio
from nemojax.config import ModelConfig
from nemojax.errors import AudioError
from nemojax.recognition.hypothesis import Hypothesis

# A recording is transcribed in segments of so many left contexts (5.6 s at 70 frames): long ones cost less per second
# (this much, as measured on a CPU), short ones are not padded as much. Whichever is used is compiled once.
SEGMENT_LEFT_CONTEXTS = (1, 2, 4)
COST_PER_SECOND = (1.25, 1.15, 1.0)


@dataclass
class Job:
    """One recording on its way through a row of the batch."""

    index: int
    audio: AudioSource
    hypothesis: Hypothesis = field(default_factory=Hypothesis)
    samples: int = 0

    def samples_left(self, config: ModelConfig) -> int | None:
        """With those that stand for what was before it; None where their number is not known before they are read."""
        if self.audio.duration_s is None:
            return None
        history = 0 if self.samples else config.history_samples
        return round(self.audio.duration_s * config.features.sample_rate_hz) - self.samples + history

    def read(self, samples: int) -> np.ndarray:
        heard = self.audio.read(samples)
        self.samples += len(heard)
        return heard


def open_each(sources: Iterable[Any], sample_rate_hz: int) -> Iterator[tuple[int, Any]]:
    """(index, Job or AudioError) for every source, each opened only when its turn comes."""
    for index, source in enumerate(sources):
        try:
            audio = source if isinstance(source, AudioSource) else open_audio(source, sample_rate_hz)
            yield index, Job(index, audio)
        except AudioError as error:
            yield index, error


def segment_lengths(config: ModelConfig) -> list[int]:
    """In samples, shortest first."""
    return [config.frame_samples * config.encoder.left_context_frames * n for n in SEGMENT_LEFT_CONTEXTS]


def cheapest_length(jobs: Sequence[Job], config: ModelConfig, more: bool) -> int:
    """The length for which these recordings cost least: each padded to whole segments, but for a short last one.

    Where there may be `more`, rows take them at different times, and hardly ever end together.
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
    """Half of the rows or fewer, where the others have nothing more to hear and one of these has more than is read now.

    Only on a CPU: there a row costs its share, elsewhere less than compiling the step again.
    """
    busy, size = [row for row, job in enumerate(rows) if job is not None], len(rows)
    while 2 * len(busy) <= size:
        size //= 2
    done = all(job is None or job.samples_left(config) == 0 for job in rows)
    if size == len(rows) or done or jax.default_backend() != "cpu":
        return None
    idle = [row for row, job in enumerate(rows) if job is None]
    return np.asarray([*busy, *idle][:size])
