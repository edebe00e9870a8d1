"""The utterances of each step: a pure function of the corpus, the settings, the seed and the step.

An epoch is drawn as a whole, from (seed, epoch): how often each utterance occurs, which utterances are joined, their
lengths after changes of speed and added silence, their order. Every row goes to the first bucket that holds it. Rows
that a bucket has left after its last whole batch move to the next bucket that holds them; rows that no later bucket
holds make a batch that is filled up with empty rows. So every epoch is complete, and the step number is the only state.

All hosts compute the same plan, and each decodes its own rows of a batch. The order depends on numpy's generator, so a
run is resumed with the version of numpy that it was started with; `fingerprint` checks that, and everything else that
the plan depends on.
"""

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nemojax.config import ModelConfig
from nemojax.data.buckets import Bucket, IntArray, check_buckets, choose_buckets, frames_multiple
from nemojax.data.corpus import Corpus, frames_of
from nemojax.data.waveform import UNCHANGED, Range, WaveformConfig, samples_at_speed
from nemojax.errors import ConfigError

BATCH_FRAMES = 12_000  # encoder frames in a batch: 16 minutes


class Row(NamedTuple):
    """The parts of one row of a batch. A row without utterances is empty."""

    utterances: tuple[int, ...] = ()  # indices in the corpus
    gap_samples: int = 0  # silence between the utterances, before the change of speed
    speed: float = 1.0  # of the utterances and gaps
    before_samples: int = 0  # silence before the utterances, not affected by speed
    after_samples: int = 0  # silence after the utterances, not affected by speed


class PlannedBatch(NamedTuple):
    """The rows of a step."""

    step: int
    epoch: int
    bucket: Bucket
    rows: tuple[Row, ...]  # of all hosts


class Rows(NamedTuple):
    """The rows of an epoch, as columns. The utterances of row r are `utterances[starts[r]:starts[r + 1]]`."""

    utterances: IntArray
    starts: IntArray
    gap_samples: IntArray
    speed: npt.NDArray[np.float64]
    before_samples: IntArray
    after_samples: IntArray
    frames: IntArray  # encoder frames that a row needs
    labels: IntArray  # number of labels in a row

    def row(self, index: int) -> Row:
        """Returns row number `index`."""
        members = self.utterances[self.starts[index] : self.starts[index + 1]]
        return Row(
            tuple(members.tolist()),
            int(self.gap_samples[index]),
            float(self.speed[index]),
            int(self.before_samples[index]),
            int(self.after_samples[index]),
        )


class Epoch(NamedTuple):
    """The batches of an epoch."""

    rows: Rows
    batches: list[tuple[int, IntArray]]  # for each step: index of the bucket, indices of rows


@dataclass(frozen=True)
class PlanConfig:
    """Settings of a plan.

    Attributes:
      seed: of all randomness in the data.
      batch_frames: encoder frames (80 ms) per batch over all hosts, padding included.
      bucket_count: maximum number of batch shapes that are chosen from the data.
      buckets: (frames, labels, batch) shapes to use instead of chosen ones.
      rows_multiple: the rows of every batch are a multiple of it: hosts, devices and parts of a batch divide it.
    """

    seed: int = 0
    batch_frames: int = BATCH_FRAMES
    bucket_count: int = 12
    buckets: tuple[Bucket, ...] = ()
    rows_multiple: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_frames", "bucket_count", "rows_multiple"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, not {self.seed}")


class Plan:
    """The batches of all steps, by random access.

    Attributes:
      buckets: the shapes of the batches.
      unfit: indices of utterances that no bucket holds; they are never trained on.
      fingerprint: hash of everything that the plan depends on, to compare when a run is resumed.

    Raises:
      ConfigError: a bucket is invalid, no bucket holds any utterance, or the tokenizer does not allow joining.
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
                "utterances can't be joined: this tokenizer encodes a word within a text differently than at the start "
                "of a text; set join_probability to 0"
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
        self._first_steps = [0]  # first step of epoch 0, 1, ..., up to the last epoch drawn so far and the one after it
        self._epoch: tuple[int, Epoch] | None = None

    def batch(self, step: int) -> PlannedBatch:
        """Returns the rows of a step. The first call for a late epoch draws all epochs before it."""
        number, index = self.position(step)
        epoch = self._drawn(number)
        bucket_index, members = epoch.batches[index]
        bucket = self.buckets[bucket_index]
        rows = [epoch.rows.row(member) for member in members.tolist()]
        return PlannedBatch(step, number, bucket, tuple(rows + [Row()] * (bucket.batch - len(rows))))

    def position(self, step: int) -> tuple[int, int]:
        """Returns the epoch of a step, and the step's index within it."""
        if step < 0:
            raise ValueError(f"there is no step {step}; steps count from 0")
        while self._first_steps[-1] <= step:
            self._drawn(len(self._first_steps) - 1)
        epoch = bisect.bisect_right(self._first_steps, step) - 1
        return epoch, step - self._first_steps[epoch]

    def first_step(self, epoch: int) -> int:
        """Returns the first step of an epoch."""
        while len(self._first_steps) <= epoch:
            self._drawn(len(self._first_steps) - 1)
        return self._first_steps[epoch]

    def host_rows(self, bucket: Bucket, host: int, hosts: int) -> slice:
        """Returns the rows of a batch that belong to a host. Raises ConfigError where hosts can't share them evenly."""
        if bucket.batch % hosts:
            raise ConfigError(f"{bucket} can't be divided by {hosts} hosts; set rows_multiple to a multiple of {hosts}")
        share = bucket.batch // hosts
        return slice(host * share, (host + 1) * share)

    def _drawn(self, number: int) -> Epoch:
        """Returns an epoch, drawn or from memory; only the latest is kept. Records the first step of the next epoch."""
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = number, self._draw(number)
        epoch = self._epoch[1]
        if number == len(self._first_steps) - 1:
            self._first_steps.append(self._first_steps[-1] + len(epoch.batches))
        return epoch

    def _draw(self, number: int) -> Epoch:
        """Draws the rows of an epoch, and sorts them into batches."""
        generator = np.random.default_rng([self.settings.seed, 2, number])
        times = self.times(number)
        occurrences = generator.permutation(np.repeat(np.arange(len(self.corpus)), times))
        rows = draw_rows(self.corpus, occurrences, generator, self.waveform, self.config, self.buckets)
        buckets = self._bucket_of(rows.frames, rows.labels)
        batches: list[tuple[int, IntArray]] = []
        waiting: IntArray = np.zeros(0, np.int64)  # rows left over by smaller buckets
        for index, bucket in enumerate(self.buckets):
            fits = _inside(rows.frames[waiting], rows.labels[waiting], bucket)
            here = generator.permutation(np.concatenate([waiting[fits], np.flatnonzero(buckets == index)]))
            whole = len(here) // bucket.batch * bucket.batch
            batches += [(index, part) for part in here[:whole].reshape(-1, bucket.batch)]
            left = here[whole:]
            later = [_inside(rows.frames[left], rows.labels[left], other) for other in self.buckets[index + 1 :]]
            moves = np.any(later, axis=0) if later else np.zeros(len(left), bool)
            waiting = np.concatenate([waiting[~fits], left[moves]])
            if not moves.all():
                batches.append((index, left[~moves]))
        order = generator.permutation(len(batches))
        return Epoch(rows, [batches[i] for i in order])

    def times(self, epoch: int) -> IntArray:
        """Returns how often an epoch holds each utterance, [n]. Over k epochs that is k times its weight, rounded."""

        def total(epochs: int) -> IntArray:
            return np.floor(epochs * self.corpus.weights + self._phase).astype(np.int64)

        times = total(epoch + 1) - total(epoch)
        times[self.unfit] = 0
        return times

    def _bucket_of(self, frames: IntArray, labels: IntArray) -> IntArray:
        """Returns the index of the first bucket that holds each row, -1 where none does."""
        found = np.full(len(frames), -1)
        for index, bucket in reversed(list(enumerate(self.buckets))):
            found[_inside(frames, labels, bucket)] = index
        return found

    def _fingerprint(self) -> str:
        parts = [repr(self.settings), self.waveform.recorded(), repr(self.buckets), repr(np.__version__)]
        settings = f"({', '.join(parts)})"
        for former, name in WaveformConfig.FORMER_NAMES.items():  # runs started before a renaming have the same print
            settings = settings.replace(f"{name}=", f"{former}=")
        digest = hashlib.sha256(settings.encode())
        for column in (self.corpus.samples, self.corpus.weights, self.corpus.labels, self.corpus.starts):
            digest.update(np.ascontiguousarray(column).tobytes())
        for recording in self.corpus.recordings:
            digest.update(f"{recording.name}\0{recording.offset_s}\0".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def draw_rows(
    corpus: Corpus,
    occurrences: IntArray,
    generator: np.random.Generator,
    waveform: WaveformConfig,
    config: ModelConfig,
    buckets: Sequence[Bucket] = (),
) -> Rows:
    """Draws rows from occurrences of utterances: which are joined, their speed, and the silence around them.

    Utterances are not joined where no bucket holds the row. A row that no bucket holds with its drawn speed and silence
    has neither.

    Args:
      occurrences: indices of utterances, in the order in which they are drawn.
    """
    rate_hz = config.features.sample_rate_hz

    def draw_samples(seconds: Range, count: int) -> IntArray:
        drawn = generator.uniform(*seconds, size=count)
        if waveform.pause_probability:
            low, high = np.log(waveform.pause_s).tolist()
            pauses = np.exp(generator.uniform(low, high, size=count))
            drawn = np.where(generator.random(count) < waveform.pause_probability, pauses, drawn)
        return np.round(drawn * rate_hz).astype(np.int64)

    gaps = draw_samples(waveform.join_gap_s, len(occurrences))
    heads = _joined_heads(corpus, occurrences, gaps, generator, waveform, config, buckets)
    order = np.argsort(heads, kind="stable")  # members of a row become adjacent, in the order of the draw
    utterances, (first, starts) = occurrences[order], np.unique(heads[order], return_index=True)
    starts = np.append(starts, len(occurrences))
    members, gaps = np.diff(starts), gaps[first]

    def total(values: IntArray) -> IntArray:
        return np.add.reduceat(values, starts[:-1]) if len(first) else np.zeros(0, np.int64)

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
    occurrences: IntArray,
    gaps: IntArray,
    generator: np.random.Generator,
    waveform: WaveformConfig,
    config: ModelConfig,
    buckets: Sequence[Bucket],
) -> IntArray:
    """Returns, for each occurrence, the index of the first occurrence in its row: its own where it is not joined."""
    heads = np.arange(len(occurrences))
    if not waveform.join_probability:
        return heads
    rate_hz, label_counts = config.features.sample_rate_hz, corpus.label_counts
    chosen = generator.random(len(occurrences)) < waveform.join_probability
    sizes = generator.integers(2, waveform.join_parts, len(occurrences), endpoint=True)
    chosen &= corpus.samples[occurrences] <= waveform.join_longest_s * rate_hz
    limit = round(waveform.join_total_s * rate_hz)
    # for each source, or for all if they are joined across: head, members, samples, labels
    open_rows: dict[int, tuple[int, int, int, int]] = {}
    for index in np.flatnonzero(chosen).tolist():
        utterance = int(occurrences[index])
        samples, labels = int(corpus.samples[utterance]), int(label_counts[utterance])
        source = 0 if waveform.join_across else int(corpus.sources[utterance])
        if source in open_rows:
            head, members, so_far, labels_so_far = open_rows[source]
            joined_samples, joined_labels = so_far + int(gaps[head]) + samples, labels_so_far + labels
            frames = frames_of(joined_samples, config)
            holds = not buckets or any(frames <= b.frames and joined_labels <= b.labels for b in buckets)
            if members < sizes[head] and joined_samples <= limit and holds:
                heads[index] = head
                open_rows[source] = head, members + 1, joined_samples, joined_labels
                continue
        open_rows[source] = index, 1, samples, labels
    return heads


def _inside(frames: IntArray, labels: IntArray, bucket: Bucket) -> npt.NDArray[np.bool_]:
    """Returns whether a bucket holds each row."""
    return (frames <= bucket.frames) & (labels <= bucket.labels)


def _phases(sources: IntArray, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Returns each utterance's phase in its cycle of epochs, 0 to 1: even over a source, in random order."""
    phases = np.zeros(len(sources))
    for source in np.unique(sources):
        (members,) = np.nonzero(sources == source)
        phases[members] = (generator.permutation(len(members)) + 0.5) / len(members)
    return phases
