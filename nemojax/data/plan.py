"""Which utterances each step trains on: a pure function of the corpus, the settings, the seed and the step.

An epoch is drawn whole, from (seed, epoch): how often each utterance occurs, which are joined, the lengths that
speed and silence give them, the order. Every row goes to the first bucket that holds it. What a bucket has left
over beyond whole batches goes on to the next that holds it; what the last has left over is filled up with empty
rows. So an epoch is complete in itself, and nothing but the step number needs to be remembered.

All hosts compute the same plan, and each decodes its own rows of a batch. The order is numpy's: a run is
continued with the version of numpy that it was begun with, which `fingerprint` checks with all else.
"""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nemojax.config import ModelConfig
from nemojax.data.buckets import Bucket, check_buckets, choose_buckets, frames_multiple
from nemojax.data.corpus import Corpus, frames_of
from nemojax.data.waveform import UNCHANGED, Range, WaveformConfig, samples_at_speed
from nemojax.errors import ConfigError

BATCH_FRAMES = 12_000  # 16 minutes


class Row(NamedTuple):
    """What one row of a batch is made of. Without utterances it is empty."""

    utterances: tuple[int, ...] = ()
    gap_samples: int = 0  # between them
    speed: float = 1.0  # of them and the gaps
    before_samples: int = 0  # of silence, not affected by speed
    after_samples: int = 0


class PlannedBatch(NamedTuple):
    step: int
    epoch: int
    bucket: Bucket
    rows: tuple[Row, ...]  # of all hosts


class Rows(NamedTuple):
    """The rows of an epoch, as columns. Those of row r are `utterances[starts[r]:starts[r + 1]]`."""

    utterances: np.ndarray
    starts: np.ndarray
    gap_samples: np.ndarray
    speed: np.ndarray
    before_samples: np.ndarray
    after_samples: np.ndarray
    frames: np.ndarray
    labels: np.ndarray

    def row(self, index: int) -> Row:
        members = self.utterances[self.starts[index] : self.starts[index + 1]]
        return Row(
            tuple(members.tolist()),
            int(self.gap_samples[index]),
            float(self.speed[index]),
            int(self.before_samples[index]),
            int(self.after_samples[index]),
        )


class Epoch(NamedTuple):
    rows: Rows
    batches: list[tuple[int, np.ndarray]]  # of each step: index of the bucket, indices of rows


@dataclass(frozen=True)
class PlanConfig:
    """Settings of a plan.

    Attributes:
      seed: of everything random in the data.
      batch_frames: encoder frames (80 ms) per batch over all hosts, padding included.
      bucket_count: at most so many shapes are chosen, from the data.
      buckets: (frames, labels, batch) shapes, in place of chosen ones.
      rows_multiple: of every batch's rows: what they are divided by, hosts and devices and micro-batches.
    """

    seed: int = 0
    batch_frames: int = BATCH_FRAMES
    bucket_count: int = 12
    buckets: tuple[Bucket, ...] = ()
    rows_multiple: int = 1

    def __post_init__(self):
        for name in ("batch_frames", "bucket_count", "rows_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"the seed must not be negative, as {self.seed} is")


class Plan:
    """The batches of all steps, by random access.

    Attributes:
      buckets: the shapes of the batches.
      unfit: indices of the utterances that no bucket holds; they are never trained on.
      fingerprint: of all that the plan depends on; a run that is resumed compares it.

    Raises:
      ConfigError: the buckets do not do, or hold no utterance.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: ModelConfig,
        settings: PlanConfig = PlanConfig(),
        waveform: WaveformConfig = UNCHANGED,
    ):
        if waveform.join_probability and not corpus.joinable:
            raise ConfigError(
                "utterances can't be joined: this tokenizer spells a word otherwise within a text than at its beginning"
            )
        self.corpus, self.settings, self.waveform, self.config = corpus, settings, waveform, config
        self._frames, self._labels = frames_of(corpus.samples, config), corpus.label_counts
        self._phase = _phases(corpus.sources, np.random.default_rng([settings.seed, 0]))
        multiple = frames_multiple(config)
        if settings.buckets:
            self.buckets = check_buckets(settings.buckets, multiple, settings.rows_multiple)
        else:
            rows = draw_rows(
                corpus, np.arange(len(corpus)), np.random.default_rng([settings.seed, 1]), waveform, config
            )
            self.buckets = choose_buckets(
                np.concatenate([rows.frames, self._frames]),
                np.concatenate([rows.labels, self._labels]),
                settings.batch_frames,
                count=settings.bucket_count,
                multiple=multiple,
                rows_multiple=settings.rows_multiple,
            )
        self.unfit = np.flatnonzero(self._bucket_of(self._frames, self._labels) < 0)
        if len(self.unfit) == len(corpus):
            raise ConfigError(f"none of the {len(corpus)} utterances fits a bucket; the largest is {self.buckets[-1]}")
        self.fingerprint = self._fingerprint()
        self._first_steps = [0]  # of the epochs from 0 on, as far as is known
        self._epoch: tuple[int, Epoch] | None = None

    def batch(self, step: int) -> PlannedBatch:
        """What a step trains on. Going to a far epoch the first time draws all before it."""
        number, index = self.position(step)
        epoch = self._drawn(number)
        bucket_index, members = epoch.batches[index]
        bucket = self.buckets[bucket_index]
        rows = [epoch.rows.row(member) for member in members.tolist()]
        return PlannedBatch(step, number, bucket, tuple(rows + [Row()] * (bucket.batch - len(rows))))

    def position(self, step: int) -> tuple[int, int]:
        """The epoch that a step is in, and its index there."""
        if step < 0:
            raise ValueError(f"steps count from 0; {step} is none")
        while self._first_steps[-1] <= step:
            self._drawn(len(self._first_steps) - 1)
        epoch = bisect.bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def first_step(self, epoch: int) -> int:
        """The step that an epoch begins at."""
        while len(self._first_steps) <= epoch:
            self._drawn(len(self._first_steps) - 1)
        return self._first_steps[epoch]

    def host_rows(self, bucket: Bucket, host: int, hosts: int) -> slice:
        """Which rows of a batch are a host's; rows are divided in the order of hosts."""
        if bucket.batch % hosts:
            raise ConfigError(f"{bucket} can't be divided by {hosts} hosts; set rows_multiple to a multiple of {hosts}")
        share = bucket.batch // hosts
        return slice(host * share, (host + 1) * share)

    def _drawn(self, number: int) -> Epoch:
        """An epoch; the last one is remembered, and so is where the next begins."""
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = number, self._draw(number)
        epoch = self._epoch[1]
        if number == len(self._first_steps) - 1:
            self._first_steps.append(self._first_steps[-1] + len(epoch.batches))
        return epoch

    def _draw(self, number: int) -> Epoch:
        generator = np.random.default_rng([self.settings.seed, 2, number])
        times = self.times(number)
        occurrences = generator.permutation(np.repeat(np.arange(len(self.corpus)), times))
        rows = draw_rows(self.corpus, occurrences, generator, self.waveform, self.config, self.buckets)
        buckets = self._bucket_of(rows.frames, rows.labels)
        batches: list[tuple[int, np.ndarray]] = []
        waiting = np.zeros(0, np.int64)  # left over by the buckets so far
        for index, bucket in enumerate(self.buckets):
            fits = _inside(rows.frames[waiting], rows.labels[waiting], bucket)
            here = generator.permutation(np.concatenate([waiting[fits], np.flatnonzero(buckets == index)]))
            whole = len(here) // bucket.batch * bucket.batch
            batches += [(index, part) for part in here[:whole].reshape(-1, bucket.batch)]
            left = here[whole:]
            later = [_inside(rows.frames[left], rows.labels[left], other) for other in self.buckets[index + 1 :]]
            goes_on = np.any(later, axis=0) if later else np.zeros(len(left), bool)
            waiting = np.concatenate([waiting[~fits], left[goes_on]])
            if not goes_on.all():
                batches.append((index, left[~goes_on]))
        order = generator.permutation(len(batches))
        return Epoch(rows, [batches[i] for i in order])

    def times(self, epoch: int) -> np.ndarray:
        """How often an epoch has each utterance, [n]: over any k epochs, its weight times k, rounded up or down."""
        count = lambda epochs: np.floor(epochs * self.corpus.weights + self._phase).astype(np.int64)
        times = count(epoch + 1) - count(epoch)
        times[self.unfit] = 0
        return times

    def _bucket_of(self, frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The first bucket that holds each, -1 where none does."""
        found = np.full(len(frames), -1)
        for index, bucket in reversed(list(enumerate(self.buckets))):
            found[_inside(frames, labels, bucket)] = index
        return found

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.settings, self.waveform, self.buckets, np.__version__)).encode())
        for column in (self.corpus.samples, self.corpus.weights, self.corpus.labels, self.corpus.starts):
            digest.update(np.ascontiguousarray(column).tobytes())
        for recording in self.corpus.recordings:
            digest.update(f"{recording.name}\0{recording.offset_s}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def draw_rows(
    corpus: Corpus,
    occurrences: np.ndarray,
    generator: np.random.Generator,
    waveform: WaveformConfig,
    config: ModelConfig,
    buckets: Sequence[Bucket] = (),
) -> Rows:
    """Joins some of the occurrences of utterances into rows, and draws what changes their lengths.

    A row that no bucket would hold is not joined, or has neither silence nor a speed of its own.
    """
    rate_hz = config.features.sample_rate_hz

    def draw_samples(seconds: Range, count: int) -> np.ndarray:
        return np.round(generator.uniform(*seconds, size=count) * rate_hz).astype(np.int64)

    gaps = draw_samples(waveform.join_gap_s, len(occurrences))
    heads = _joined_heads(corpus, occurrences, gaps, generator, waveform, config, buckets)
    order = np.argsort(heads, kind="stable")  # the members of a row side by side, in the order of the draw
    utterances, (first, starts) = occurrences[order], np.unique(heads[order], return_index=True)
    starts = np.append(starts, len(occurrences))
    members, gaps = np.diff(starts), gaps[first]
    total = lambda values: np.add.reduceat(values, starts[:-1]) if len(first) else np.zeros(0, np.int64)
    plain = total(corpus.samples[utterances]) + gaps * (members - 1)
    labels = total(corpus.label_counts[utterances])
    speed = generator.choice(np.array(waveform.speeds, np.float64), len(first))
    before, after = (draw_samples(s, len(first)) for s in (waveform.silence_before_s, waveform.silence_after_s))
    frames = frames_of(samples_at_speed(plain, speed) + before + after, config)
    if buckets:
        keep = np.any([_inside(frames, labels, bucket) for bucket in buckets], axis=0)
        speed, before, after = np.where(keep, speed, 1.0), np.where(keep, before, 0), np.where(keep, after, 0)
        frames = np.where(keep, frames, frames_of(plain, config))
    return Rows(utterances, starts, gaps, speed, before, after, frames, labels)


def _joined_heads(
    corpus: Corpus,
    occurrences: np.ndarray,
    gaps: np.ndarray,
    generator: np.random.Generator,
    waveform: WaveformConfig,
    config: ModelConfig,
    buckets: Sequence[Bucket],
) -> np.ndarray:
    """For each occurrence, the index of the one that begins its row: its own, where it is not joined to any."""
    heads = np.arange(len(occurrences))
    if not waveform.join_probability:
        return heads
    rate_hz, label_counts = config.features.sample_rate_hz, corpus.label_counts
    chosen = generator.random(len(occurrences)) < waveform.join_probability
    sizes = generator.integers(2, waveform.join_parts, len(occurrences), endpoint=True)
    chosen &= corpus.samples[occurrences] <= waveform.join_longest_s * rate_hz
    limit = round(waveform.join_total_s * rate_hz)
    open_rows: dict[int, tuple[int, int, int, int]] = {}  # of each source: head, members, samples, labels
    for index in np.flatnonzero(chosen).tolist():
        utterance = int(occurrences[index])
        source, samples, labels = (int(c[utterance]) for c in (corpus.sources, corpus.samples, label_counts))
        if source in open_rows:
            head, members, so_far, labels_so_far = open_rows[source]
            samples_then, labels_then = so_far + int(gaps[head]) + samples, labels_so_far + labels
            frames = frames_of(samples_then, config)
            holds = not buckets or any(frames <= b.frames and labels_then <= b.labels for b in buckets)
            if members < sizes[head] and samples_then <= limit and holds:
                heads[index] = head
                open_rows[source] = head, members + 1, samples_then, labels_then
                continue
        open_rows[source] = index, 1, samples, labels
    return heads


def _inside(frames: np.ndarray, labels: np.ndarray, bucket: Bucket) -> np.ndarray:
    return (frames <= bucket.frames) & (labels <= bucket.labels)


def _phases(sources: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Where in its cycle each utterance is, in 0 to 1: those of a source are spread evenly, in random order."""
    phases = np.zeros(len(sources))
    for source in np.unique(sources):
        (members,) = np.nonzero(sources == source)
        phases[members] = (generator.permutation(len(members)) + 0.5) / len(members)
    return phases
