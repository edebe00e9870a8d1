"""A planned batch as arrays: history, padding, labels, hosts, recordings that can't be read."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from nemojax.audio.source import open_audio
from nemojax.config import ModelConfig
from nemojax.data import waveform
from nemojax.data.buckets import Bucket
from nemojax.data.corpus import Source, load_corpus
from nemojax.data.loading import NOTHING, Loader
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.waveform import RECIPE, UNCHANGED, WaveformConfig
from nemojax.errors import AudioError, ConfigError
from nemojax.streaming import segments_of
from nemojax.text.tokenizer import Tokenizer
from tests.data.corpora import write_manifest, write_speech
from tests.helpers.messages import ending
from tests.helpers.messages import whole as whole_message

CONFIG = ModelConfig()
TEXTS = ["the quick dog", "a fine day", "one or two", "she speech", "over the lazy fox", "it's a dog", "jumps"]
SMALL = PlanConfig(batch_frames=90, bucket_count=3)


@pytest.fixture
def manifest(tmp_path):
    return write_speech(tmp_path, "speech", TEXTS)


@pytest.fixture
def plan_of(manifest, pieces):
    def plan_of(settings=SMALL, waveform=UNCHANGED, path=manifest):
        return Plan(load_corpus([Source(path)], Tokenizer(pieces), CONFIG), CONFIG, settings, waveform)

    return plan_of


def decoded(plan, utterance):
    return open_audio(plan.corpus.recordings[utterance]).read(10**7)


def test_rows_hold_history_waveform_and_labels(plan_of, pieces):
    plan, tokenizer = plan_of(), Tokenizer(pieces)
    loader, seen = Loader(plan), []
    for step in range(plan.first_step(1)):
        planned = plan.batch(step)
        batch, unreadable = loader(step)
        assert not unreadable
        frames, labels, rows = planned.bucket
        assert batch.samples.shape == (rows, frames * 1280) and batch.labels.shape == (rows, labels)
        for index, row in enumerate(planned.rows):
            length, count = batch.sample_lengths[index], batch.label_lengths[index]
            if not row.utterances:
                assert batch.utterances[index] == NOTHING and not batch.samples[index].any()
                assert length == 0 == count and not batch.labels[index].any()
                continue
            (utterance,) = row.utterances
            seen.append(utterance)
            samples = decoded(plan, utterance)
            assert batch.utterances[index] == utterance and length == 1080 + len(samples)
            assert not batch.samples[index, :1080].any() and not batch.samples[index, length:].any()
            np.testing.assert_array_equal(batch.samples[index, 1080:length], samples)
            assert batch.labels[index, :count].tolist() == tokenizer.encode(TEXTS[utterance])
            assert not batch.labels[index, count:].any()
    assert sorted(seen) == list(range(len(TEXTS)))


def test_hosts_batches_add_up_to_the_whole_batch(plan_of):
    config = WaveformConfig(speeds=(0.9, 1.1), noise_probability=0.5, gain_db=(-6.0, 6.0))
    plan = plan_of(PlanConfig(batch_frames=90, bucket_count=2, rows_multiple=2), config)
    for step in range(3):
        whole, _ = Loader(plan)(step)
        halves = [Loader(plan, host, 2)(step)[0] for host in range(2)]
        for name in whole._fields:
            np.testing.assert_array_equal(
                getattr(whole, name), np.concatenate([getattr(half, name) for half in halves]), strict=True
            )
    for host in (2, -1):
        with pytest.raises(ConfigError, match=f"there is no host {host} of 2; hosts count from 0"):
            Loader(plan, host, 2)
    with pytest.raises(
        ConfigError,
        match=whole_message(
            "Bucket(frames=14, labels=8, batch=6) can't be divided by 7 hosts; set rows_multiple to a multiple of 7"
        ),
    ):
        Loader(plan, 0, 7)


def test_a_batch_depends_on_the_step_alone(plan_of):
    kinds = ("colored", "hum", "babble")
    changes = replace(RECIPE, noise_kinds=kinds, pause_probability=0.3, telephone_probability=0.5, join_across=True)
    first, second = Loader(plan_of(waveform=changes)), Loader(plan_of(waveform=changes))
    in_order = [first(step)[0] for step in range(6)]
    for step in (5, 0, 3):
        for one, other in zip(in_order[step], second(step)[0], strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_step_and_row_draws_anew(plan_of, tmp_path):
    path = write_speech(tmp_path, "alone", ["one or two"])
    settings = PlanConfig(buckets=(Bucket(28, 20, 3),))
    loader = Loader(plan_of(settings, WaveformConfig(gain_db=(-20.0, 0.0)), path))
    loader.plan.corpus.weights[:] = 3
    levels = [np.abs(row).max() for step in range(2) for row in loader(step)[0].samples]
    assert len(set(levels)) == 6 and min(levels) > 0


def test_rows_are_joined_changed_in_speed_and_padded_as_planned(plan_of, pieces):
    """Joining, speed and silence equal their functions, applied in this order; labels equal the joined text's."""
    config = WaveformConfig(
        speeds=(1.25,), silence_before_s=(0.1, 0.3), silence_after_s=(0.2, 0.2), join_probability=1.0, join_parts=3
    )
    plan = plan_of(PlanConfig(buckets=(Bucket(140, 60, 2),)), config)
    loader, joined = Loader(plan), 0
    for step in range(plan.first_step(1)):
        batch, _ = loader(step)
        for index, row in enumerate(plan.batch(step).rows):
            if not row.utterances:
                continue
            joined += len(row.utterances) > 1
            parts = [decoded(plan, utterance) for utterance in row.utterances]
            total = sum(map(len, parts)) + row.gap_samples * (len(parts) - 1)
            want = waveform.at_speed(waveform.joined(parts, row.gap_samples), 1.25)
            assert len(want) == -(-total * 4 // 5) and row.speed == 1.25
            begin, end = 1080 + row.before_samples, 1080 + row.before_samples + len(want)
            np.testing.assert_array_equal(batch.samples[index, begin:end], want)
            assert batch.sample_lengths[index] == end + 3200 and not batch.samples[index, end:].any()
            text = " ".join(TEXTS[utterance] for utterance in row.utterances)
            labels = batch.labels[index, : batch.label_lengths[index]].tolist()
            assert labels == Tokenizer(pieces).encode(text)
            assert batch.utterances[index] == row.utterances[0]
    assert joined


def test_an_unreadable_recording_leaves_its_row_empty(plan_of, tmp_path):
    plan = plan_of(PlanConfig(buckets=(Bucket(42, 20, 7),)))
    whole, none = Loader(plan)(0)
    (tmp_path / "speech-1.wav").write_bytes(b"RIFF and nothing else")
    wav = (tmp_path / "speech-2.wav").read_bytes()
    (tmp_path / "speech-2.wav").write_bytes(wav[:-500])
    (tmp_path / "speech-3.wav").unlink()
    batch, unreadable = Loader(plan)(0)
    assert not none and sorted(u.utterance for u in unreadable) == [1, 2, 3]
    reasons = {u.utterance: u.reason for u in unreadable}
    assert reasons[3] == "speech-3.wav: there is no such file" and reasons[2].startswith("speech-2.wav: truncated")
    for index, row in enumerate(plan.batch(0).rows):
        bad = row.utterances[0] in (1, 2, 3)
        for part, before in zip(batch, whole, strict=True):
            if bad:
                assert not part[index].any() or part[index] == NOTHING
            else:
                np.testing.assert_array_equal(part[index], before[index])


def test_recordings_longer_than_their_manifest_says(plan_of, tmp_path):
    """Durations are rounded: up to 10 ms more are read where there is room, and no more."""
    room = 28 * 1280 - 1080
    samples = np.full(room + 100, 0.25, np.float32)
    soundfile.write(tmp_path / "longer.wav", samples, 16_000)
    path = tmp_path / "longer.jsonl"
    write_manifest(path, [{"audio_filepath": "longer.wav", "duration": room / 16_000, "text": "one or two"}])
    batch, unreadable = Loader(plan_of(PlanConfig(buckets=(Bucket(28, 20, 1),)), path=path))(0)
    assert not unreadable and batch.sample_lengths[0] == 28 * 1280 and (batch.samples[0, 1080:] == 0.25).all()


def test_the_last_samples_are_not_lost_to_rounding(plan_of, tmp_path):
    soundfile.write(tmp_path / "more.wav", np.full(16_050, 0.25, np.float32), 16_000)
    path = tmp_path / "more.jsonl"
    write_manifest(path, [{"audio_filepath": "more.wav", "duration": 1.0, "text": "one"}])
    batch, _ = Loader(plan_of(PlanConfig(buckets=(Bucket(28, 20, 1),)), path=path))(0)
    assert batch.sample_lengths[0] == 1080 + 16_050 and np.count_nonzero(batch.samples) == 16_050
    soundfile.write(tmp_path / "more.wav", np.full(16_159, 0.25, np.float32), 16_000)
    loader = Loader(plan_of(PlanConfig(buckets=(Bucket(28, 20, 1),)), path=path))
    assert len(loader.decode(0)) == 16_159
    soundfile.write(tmp_path / "more.wav", np.zeros(0, np.float32), 16_000)
    with pytest.raises(AudioError, match=r"^more\.wav: it holds no samples$"):
        loader.decode(0)


def test_noise_from_a_part_of_a_recording(plan_of, tmp_path):
    """Zeros, then ones, then zeros: only the ones are named as noise."""
    level = np.repeat([0.0, 0.5, 0.0], [16_000, 64_000, 16_000])
    soundfile.write(tmp_path / "noise.wav", level, 16_000, subtype="FLOAT")
    noise = tmp_path / "noise.jsonl"
    write_manifest(noise, [{"audio_filepath": "noise.wav", "offset": 1.0, "duration": 4.0}])
    config = WaveformConfig(noise_probability=1.0, noise_manifests=(noise,), noise_snr_db=(0.0, 0.0))
    clean, noisy = (Loader(plan_of(waveform=w))(0)[0] for w in (UNCHANGED, config))
    for index, length in enumerate(clean.sample_lengths):
        added = (noisy.samples - clean.samples)[index, 1080:length]
        assert np.ptp(added) < 1e-6 and (length == 0 or added[0] > 0)


def test_noise_from_a_manifest(plan_of, tmp_path):
    noise = write_speech(tmp_path, "noise", ["-" * 30, "-"], seed=5)
    config = WaveformConfig(noise_probability=1.0, noise_manifests=(noise,), noise_snr_db=(0.0, 0.0))
    clean, noisy = (Loader(plan_of(waveform=w))(0)[0] for w in (UNCHANGED, config))
    noises = [open_audio(entry).read(10**6) for entry, _ in Loader(plan_of(waveform=config)).noises]
    for index, length in enumerate(clean.sample_lengths):
        if length:
            speech = clean.samples[index, 1080:length]
            added = noisy.samples[index, 1080:length] - speech
            assert 0.9 < np.square(speech).mean() / np.square(added).mean() < 1.1
            middle = added[500:600] / np.linalg.norm(added[500:600])
            windows = [np.lib.stride_tricks.sliding_window_view(n, 100) for n in noises]
            best = max((w @ middle / np.linalg.norm(w, axis=1)).max() for w in windows)
            assert best > 0.999  # it is a piece of a recording
    missing = WaveformConfig(noise_probability=0.5, noise_manifests=(tmp_path / "missing.jsonl",))
    with pytest.raises(ConfigError, match=ending(": the manifest can't be read (No such file or directory)")):
        Loader(plan_of(waveform=missing))
    assert Loader(plan_of(waveform=replace(missing, noise_probability=0.0))).noises == ()
    gone = write_manifest(tmp_path / "gone.jsonl", [{"audio_filepath": "gone.wav"}])
    with pytest.raises(ConfigError, match=r"^noise: gone\.wav: there is no such file$"):
        Loader(plan_of(waveform=replace(missing, noise_manifests=(gone,))))
    durations = [seconds for _, seconds in Loader(plan_of(waveform=config)).noises]
    assert durations == [len(noise) / 16_000 for noise in noises]


def test_babble_is_a_mix_of_utterances_of_the_corpus(plan_of, tmp_path):
    config = WaveformConfig(noise_probability=1.0, noise_kinds=("babble",), noise_snr_db=(0.0, 0.0))
    clean, noisy = (Loader(plan_of(waveform=w))(0)[0] for w in (UNCHANGED, config))
    parts = [decoded(plan_of(), utterance) for utterance in range(len(TEXTS))]
    for index, length in enumerate(clean.sample_lengths):
        if length:
            speech = clean.samples[index, 1080:length]
            added = noisy.samples[index, 1080:length] - speech
            assert 0.9 < np.square(speech).mean() / np.square(added).mean() < 1.1
            middle = added[500:700] / np.linalg.norm(added[500:700])
            windows = [np.lib.stride_tricks.sliding_window_view(part, 200) for part in parts]
            likeness = sorted((w @ middle / np.linalg.norm(w, axis=1)).max() for w in windows)
            assert likeness[-2] > 0.3 and likeness[-1] < 0.95  # two parts of it at least
    (tmp_path / "speech-1.wav").unlink()
    _, unreadable = Loader(plan_of(waveform=config))(0)
    assert unreadable and {u.utterance for u in unreadable} == {1}


@pytest.mark.parametrize("lookahead", CONFIG.encoder.lookaheads)
def test_a_row_is_the_first_segment_of_a_stream(plan_of, lookahead):
    """One segment of whole chunks at every look-ahead, as `segments_of` makes it of the same recording."""
    plan = plan_of()
    batch, _ = Loader(plan)(0)
    for index, row in enumerate(plan.batch(0).rows):
        if row.utterances:
            samples = decoded(plan, row.utterances[0])[None]
            chunks = batch.samples.shape[1] // CONFIG.chunk_samples(lookahead)
            segment = segments_of(jnp.asarray(samples), jnp.array([samples.shape[1]]), lookahead, chunks, CONFIG)
            np.testing.assert_array_equal(segment.samples, batch.samples[None, index : index + 1])
            np.testing.assert_array_equal(segment.length, batch.sample_lengths[None, index : index + 1])
