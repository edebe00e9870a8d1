"""A planned batch as arrays: decoded, augmented, padded. Worker processes run this for each step."""

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from nemojax.audio.manifest import expand_manifest
from nemojax.audio.source import ROUNDING_S, Recording, open_audio
from nemojax.data import waveform
from nemojax.data.corpus import header_duration_s
from nemojax.data.plan import Plan, PlannedBatch, Row
from nemojax.data.waveform import Samples
from nemojax.errors import AudioError, ConfigError

Array = np.ndarray[Any, Any]
NOTHING = -1  # the utterance of an empty row
BABBLE_VOICES = 3, 8  # of babble, the last not included


class HostBatch(NamedTuple):
    """A host's rows of a step, as numpy arrays. An empty row has lengths of 0.

    Attributes:
      samples: `history_samples` zeros, then the waveform, then zeros, as in a stream's first segment.
      sample_lengths: valid samples, the history included, as in `streaming.Segment`.
      labels: zero beyond their lengths.
      utterances: index in the corpus of a row's first utterance; NOTHING for an empty row.
    """

    samples: Float32[Array, "B N"]
    sample_lengths: Int32[Array, " B"]
    labels: Int32[Array, "B U"]
    label_lengths: Int32[Array, " B"]
    utterances: Int32[Array, " B"]


class Unreadable(NamedTuple):
    """An utterance whose audio can't be read, and why."""

    utterance: int
    reason: str


class Loader:
    """Returns the batch of any step of a plan; a batch depends on the plan, the step and the host alone.

    Raises:
      ConfigError: a bucket's rows can't be divided by the number of hosts, or a noise recording can't be read.
    """

    def __init__(self, plan: Plan, host: int = 0, hosts: int = 1):
        if not 0 <= host < hosts:
            raise ConfigError(f"there is no host {host} of {hosts}; hosts count from 0")
        self.plan, self.host, self.hosts = plan, host, hosts
        for bucket in plan.buckets:
            plan.host_rows(bucket, host, hosts)
        self.noises = load_noises(plan.waveform.noise_manifests) if plan.waveform.noise_probability else ()

    def __call__(self, step: int) -> tuple[HostBatch, list[Unreadable]]:
        """Returns a step's batch, and the utterances that can't be read; their rows are empty."""
        planned = self.plan.batch(step)
        share = self.plan.host_rows(planned.bucket, self.host, self.hosts)
        batch = self._empty(planned)
        unreadable: list[Unreadable] = []
        history = self.plan.config.history_samples
        capacity = batch.samples.shape[1] - history
        for index, row in enumerate(planned.rows[share]):
            if not row.utterances:
                continue
            try:
                generator = np.random.default_rng([self.plan.settings.seed, 3, step, share.start + index])
                samples = self._waveform(row, generator)
            except _Failed as failed:
                unreadable.append(failed.unreadable)
                continue
            samples = samples[:capacity]  # durations in a manifest are rounded: a recording may be a little longer
            labels = np.concatenate([self.plan.corpus.labels_of(utterance) for utterance in row.utterances])
            batch.samples[index, history : history + len(samples)] = samples
            batch.sample_lengths[index] = history + len(samples)
            batch.labels[index, : len(labels)] = labels
            batch.label_lengths[index] = len(labels)
            batch.utterances[index] = row.utterances[0]
        return batch, unreadable

    def _empty(self, planned: PlannedBatch) -> HostBatch:
        """Returns a batch of empty rows."""
        frames, labels, rows = planned.bucket
        rows //= self.hosts
        return HostBatch(
            np.zeros((rows, frames * self.plan.config.frame_samples), np.float32),
            np.zeros(rows, np.int32),
            np.zeros((rows, labels), np.int32),
            np.zeros(rows, np.int32),
            np.full(rows, NOTHING, np.int32),
        )

    def _waveform(self, row: Row, generator: np.random.Generator) -> Samples:
        """Returns a row's waveform. Raises _Failed for the first utterance that can't be read."""
        rate_hz = self.plan.config.features.sample_rate_hz
        samples = waveform.joined([self._decoded(utterance) for utterance in row.utterances], row.gap_samples)
        samples = waveform.at_speed(samples, row.speed, rate_hz)
        samples = waveform.with_silence(samples, row.before_samples, row.after_samples)
        recorded = self._noise if self.noises else None
        return waveform.augmented(samples, generator, self.plan.waveform, recorded, self._babble, rate_hz)

    def _decoded(self, utterance: int) -> Samples:
        """Returns the samples of an utterance. Raises _Failed where it can't be read."""
        try:
            return self.decode(utterance)
        except AudioError as error:
            raise _Failed(Unreadable(utterance, str(error))) from None

    def decode(self, utterance: int) -> Samples:
        """Returns the samples of an utterance. Raises AudioError."""
        recording, planned = self.plan.corpus.recordings[utterance], int(self.plan.corpus.samples[utterance])
        rate_hz = self.plan.config.features.sample_rate_hz
        with closing(open_audio(recording, model_rate_hz=rate_hz)) as audio:
            samples = audio.read(planned + round(ROUNDING_S * rate_hz))
            if audio.incomplete:
                raise AudioError(f"{recording.name}: truncated: {', '.join(audio.notes)}")
        if not len(samples):
            raise AudioError(f"{recording.name}: it holds no samples")
        return samples

    def _noise(self, samples: int, generator: np.random.Generator) -> Samples:
        """Returns `samples` samples from a random place in a random noise recording, or all of a shorter recording."""
        recording, seconds = self.noises[generator.integers(len(self.noises))]
        rate_hz = self.plan.config.features.sample_rate_hz
        length_s = samples / rate_hz
        begin_s = recording.offset_s + generator.uniform(0, max(seconds - length_s, 0))
        part = dataclasses.replace(recording, offset_s=begin_s, duration_s=min(length_s, seconds))
        with closing(open_audio(part, model_rate_hz=rate_hz)) as audio:
            return audio.read(samples)

    def _babble(self, samples: int, generator: np.random.Generator) -> Samples:
        """Returns a mix of utterances of the corpus, each at one power and repeated from a random place on."""
        mixed = np.zeros(samples, np.float32)
        for utterance in generator.integers(len(self.plan.corpus), size=generator.integers(*BABBLE_VOICES)).tolist():
            voice = self._decoded(utterance)
            voice = np.resize(np.roll(voice, int(generator.integers(len(voice)))), samples)
            power = float(np.square(voice, dtype=np.float64).mean())
            mixed += voice / np.float32(np.sqrt(power) if power else 1.0)
        return mixed


class _Failed(Exception):
    """Reports an utterance that can't be read and that a row needs."""

    def __init__(self, unreadable: Unreadable):
        self.unreadable = unreadable


def load_noises(manifests: Sequence[Path]) -> tuple[tuple[Recording, float], ...]:
    """Returns the recordings of manifests and their durations in seconds. Raises ConfigError for an unreadable one."""
    noises = []
    for manifest in manifests:
        for entry in expand_manifest(manifest):
            try:
                if isinstance(entry, AudioError):
                    raise entry
                seconds = header_duration_s(entry) if entry.duration_s is None else entry.duration_s
            except AudioError as error:
                raise ConfigError(f"noise: {error}") from None
            noises.append((entry, seconds))
    return tuple(noises)
