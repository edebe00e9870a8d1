"""The plan's contract: the same on every host, random access to steps, every utterance as often as its weight."""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.config import ModelConfig
from nemojax.data.buckets import Bucket
from nemojax.data.corpus import frames_of
from nemojax.data.plan import Plan, PlanConfig, Row, draw_rows
from nemojax.data.waveform import RECIPE, UNCHANGED, WaveformConfig, samples_at_speed
from nemojax.errors import ConfigError
from tests.data.corpora import corpus_of, random_corpus
from tests.helpers.messages import whole

CONFIG = ModelConfig()
SMALL = PlanConfig(batch_frames=600, bucket_count=5)
PAUSES = replace(RECIPE, join_across=True, pause_probability=0.3)


def epoch_batches(plan, epoch):
    return [plan.batch(step) for step in range(plan.first_step(epoch), plan.first_step(epoch + 1))]


def members(batches) -> Counter:
    return Counter(utterance for batch in batches for row in batch.rows for utterance in row.utterances)


def row_size(corpus, row) -> tuple[int, int]:
    """Frames and labels of a row, from its definition."""
    if not row.utterances:
        return 0, 0
    samples = sum(corpus.samples[i] for i in row.utterances) + row.gap_samples * (len(row.utterances) - 1)
    samples = samples_at_speed(samples, np.float64(row.speed)) + row.before_samples + row.after_samples
    return int(frames_of(samples, CONFIG)), sum(len(corpus.labels_of(i)) for i in row.utterances)


@st.composite
def cases(draw):
    sources = draw(st.integers(1, 3))
    weights = draw(st.lists(st.sampled_from([0.3, 0.5, 1.0, 1.7, 2.0, 3.25]), min_size=sources, max_size=sources))
    corpus = draw(st.integers(1, 60)), draw(st.integers(0, 99)), sources, weights
    plan = {
        "seed": draw(st.integers(0, 5)),
        "batch_frames": draw(st.sampled_from([50, 600, 3000])),
        "bucket_count": draw(st.integers(1, 8)),
        "rows_multiple": draw(st.sampled_from([1, 2, 6])),
    }
    return corpus, plan, draw(st.sampled_from([UNCHANGED, RECIPE, PAUSES]))


def plan_of(corpus, plan_config=SMALL, waveform=UNCHANGED) -> Plan:
    return Plan(corpus, CONFIG, plan_config, waveform)


def made(case, **options):
    corpus, plan_config, waveform = case
    corpus = random_corpus(*corpus)
    return corpus, plan_of(corpus, PlanConfig(**{**plan_config, **options}), waveform)


@settings(max_examples=60, deadline=None)
@given(case=cases(), epochs=st.integers(1, 5))
def test_every_utterance_comes_as_often_as_its_weight(case, epochs):
    corpus, plan = made(case)
    seen = Counter()
    for epoch in range(epochs):
        there = members(epoch_batches(plan, epoch))
        times = np.array([there[i] for i in range(len(corpus))])
        assert (times >= np.floor(corpus.weights)).all() and (times <= np.ceil(corpus.weights)).all()
        for source in set(corpus.sources.tolist()):  # and so does each source as a whole
            inside = corpus.sources == source
            assert abs(times[inside].sum() - corpus.weights[inside].sum()) <= 1
        seen += there
    total = np.array([seen[i] for i in range(len(corpus))])
    assert (np.abs(total - epochs * corpus.weights) < 1).all()


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_rows_fit_their_buckets_and_batches_are_full(case):
    corpus, plan = made(case)
    assert not len(plan.unfit)
    batches = epoch_batches(plan, 0)
    for batch in batches:
        assert batch.bucket in plan.buckets and len(batch.rows) == batch.bucket.batch
        assert batch.bucket.batch % plan.settings.rows_multiple == 0 and batch.bucket.frames % 14 == 0
        for row in batch.rows:
            frames, labels = row_size(corpus, row)
            assert frames <= batch.bucket.frames and labels <= batch.bucket.labels
    # chosen buckets hold one another, so all that is left over meets in one batch, and its filler is at its end
    partial = [batch for batch in batches if not batch.rows[-1].utterances]
    assert len(partial) <= 1
    for batch in partial:
        empty = [not row.utterances for row in batch.rows]
        assert empty == sorted(empty) and not all(empty)
        assert batch.bucket == plan.buckets[-1] and batch.rows[-1] == Row()


@settings(max_examples=15, deadline=None)
@given(case=cases(), steps=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_steps_in_any_order(case, steps):
    in_order, plan = made(case)[1], made(case)[1]
    want = [in_order.batch(step) for step in range(max(steps) + 1)]
    assert [plan.batch(step) for step in steps] == [want[step] for step in steps]
    assert [batch.step for batch in want] == list(range(len(want)))
    assert [plan.position(step)[0] for step in steps] == [want[step].epoch for step in steps]


@settings(max_examples=30, deadline=None)
@given(case=cases(), hosts=st.sampled_from([1, 2, 3, 6]), step=st.integers(0, 30))
def test_hosts_divide_every_batch_between_them(case, hosts, step):
    _, plan = made(case, rows_multiple=6)
    batch = plan.batch(step)
    shares = [batch.rows[plan.host_rows(batch.bucket, host, hosts)] for host in range(hosts)]
    assert sum(shares, ()) == batch.rows and len({len(share) for share in shares}) == 1


def test_seed_and_epoch_change_the_order():
    corpus = random_corpus(300)
    plan, other = plan_of(corpus, SMALL), plan_of(corpus, replace(SMALL, seed=1))
    first, second = epoch_batches(plan, 0), epoch_batches(plan, 1)
    assert members(first) == members(second) == members(epoch_batches(other, 0))
    rows = [[batch.rows for batch in batches] for batches in (first, second, epoch_batches(other, 0))]
    assert rows[0] != rows[1] != rows[2] != rows[0]
    assert len({batch.bucket for batch in first}) == 5
    kinds = [batch.bucket.frames for batch in first]
    assert kinds != sorted(kinds)  # the shapes of an epoch are mixed
    half = random_corpus(100, weights=(0.5,))
    halves = [plan_of(half, replace(SMALL, seed=seed)).times(0) for seed in (0, 1)]
    assert halves[0].sum() == halves[1].sum() == 50 and (halves[0] != halves[1]).any()


def test_defaults():
    settings = PlanConfig()
    assert (settings.seed, settings.bucket_count, settings.buckets, settings.rows_multiple) == (0, 12, (), 1)


def test_fingerprints_differ():
    corpus, other = random_corpus(40), random_corpus(40, seed=1)
    plans = [
        plan_of(corpus, SMALL),
        plan_of(other, SMALL),
        plan_of(corpus, replace(SMALL, seed=3)),
        plan_of(corpus, SMALL, RECIPE),
        plan_of(corpus, SMALL, replace(RECIPE, pause_probability=0.5)),
        plan_of(corpus, SMALL, replace(RECIPE, telephone_probability=0.5)),
        plan_of(replace(corpus, weights=corpus.weights * 2), SMALL),
        plan_of(replace(corpus, recordings=corpus.recordings[::-1]), SMALL),
        plan_of(corpus, replace(SMALL, buckets=(Bucket(280, 200, 4),))),
    ]
    assert len({plan.fingerprint for plan in plans}) == len(plans)
    assert plan_of(random_corpus(40), SMALL).fingerprint == plans[0].fingerprint


def test_buckets_that_do_not_hold_one_another():
    """What is left over goes only where it fits, and what fits nowhere else waits in no other batch."""
    buckets = (Bucket(14, 40, 4), Bucket(28, 10, 3), Bucket(70, 8, 2))
    corpus = corpus_of([10_000] * 6 + [30_000] * 4 + [80_000], [30] * 5 + [5] + [9] * 4 + [7])
    batches = epoch_batches(plan_of(corpus, PlanConfig(buckets=buckets)), 0)
    assert members(batches) == Counter(range(11))
    for batch in batches:
        for row in batch.rows:
            frames, labels = row_size(corpus, row)
            assert frames <= batch.bucket.frames and labels <= batch.bucket.labels
    wide = [batch for batch in batches if batch.bucket == buckets[0]]
    assert [sum(bool(row.utterances) for row in batch.rows) for batch in sorted(wide, key=lambda b: b.rows)][-1] == 4


def test_leftover_rows_skip_a_bucket_that_does_not_hold_them():
    buckets = (Bucket(14, 40, 4), Bucket(28, 10, 3), Bucket(70, 50, 2))
    corpus = corpus_of([10_000] * 5 + [30_000] * 4 + [80_000], [30] * 5 + [9] * 4 + [7])
    batches = epoch_batches(plan_of(corpus, PlanConfig(buckets=buckets)), 0)
    assert members(batches) == Counter(range(10))
    large = [row.utterances for batch in batches if batch.bucket == buckets[2] for row in batch.rows]
    assert len(large) == 4 and sum(utterances[:1] < (5,) for utterances in large if utterances) == 1


def test_utterances_that_no_bucket_holds_are_left_out():
    corpus = corpus_of([16_000, 160_000, 16_000, 8000], [4, 4, 90, 3])
    plan = plan_of(corpus, PlanConfig(buckets=(Bucket(28, 20, 2),)))
    assert plan.unfit.tolist() == [1, 2] and plan.times(0).tolist() == [1, 0, 0, 1]
    assert members(epoch_batches(plan, 0)) == Counter([0, 3])
    with pytest.raises(
        ConfigError,
        match=whole("none of the 1 utterances fits a bucket; the largest is Bucket(frames=28, labels=20, batch=2)"),
    ):
        plan_of(corpus_of([160_000], [4]), PlanConfig(buckets=(Bucket(28, 20, 2),)))


def test_short_utterances_are_joined_within_their_manifest():
    count = 200
    corpus = corpus_of([8000] * count, [3] * count, np.arange(count) % 2, (1.0, 1.0))
    config = WaveformConfig(join_probability=0.8, join_total_s=1.8, join_parts=3, join_gap_s=(0.1, 0.2))
    rows = [row for batch in epoch_batches(plan_of(corpus, SMALL, config), 0) for row in batch.rows if row.utterances]
    sizes = Counter(len(row.utterances) for row in rows)
    assert set(sizes) == {1, 2, 3} and 20 < sizes[1] < 60
    for row in rows:
        assert len({i % 2 for i in row.utterances}) == 1
        assert 1600 <= row.gap_samples <= 3200
        assert 8000 * len(row.utterances) + row.gap_samples * (len(row.utterances) - 1) <= 28_800
    long, config = corpus_of([80_000] * 50, [3] * 50), replace(config, join_total_s=12.0)  # longer than join_longest_s
    assert all(
        len(row.utterances) < 2 for batch in epoch_batches(plan_of(long, SMALL, config), 0) for row in batch.rows
    )


def test_utterances_of_different_manifests_are_joined_if_asked_to():
    count = 200
    corpus = corpus_of([8000] * count, [3] * count, np.arange(count) % 2, (1.0, 1.0))
    config = WaveformConfig(join_probability=1.0, join_across=True)
    rows = [row for batch in epoch_batches(plan_of(corpus, SMALL, config), 0) for row in batch.rows if row.utterances]
    sources = Counter(tuple(sorted({i % 2 for i in row.utterances})) for row in rows)
    assert sources[0, 1] > 0.7 * len(rows)
    assert sorted(i for row in rows for i in row.utterances) == list(range(count))


def test_pauses_are_drawn_between_before_and_after_utterances():
    corpus = corpus_of([8000] * 2000, [3] * 2000)
    config = WaveformConfig(
        join_probability=1.0, join_parts=2, join_total_s=30.0, join_gap_s=(0.1, 0.2), silence_before_s=(0.0, 0.1)
    )
    draw = lambda config: draw_rows(corpus, np.arange(2000), np.random.default_rng(1), config, CONFIG)
    plain, rows = draw(config), draw(replace(config, pause_probability=0.3, pause_s=(1.0, 10.0)))
    assert plain.gap_samples.max() <= 3200 and plain.before_samples.max() <= 1600 and not plain.after_samples.any()
    for samples in (rows.gap_samples, rows.before_samples, rows.after_samples):
        pauses = samples[samples > 3200]
        assert len(samples) == 1000 and 250 < len(pauses) < 350
        assert 16_000 <= pauses.min() < 20_000 and 140_000 < pauses.max() <= 160_000
        assert 0.4 < np.mean(pauses < np.sqrt(10) * 16_000) < 0.6  # the logarithm is uniform
    assert [row_size(corpus, rows.row(i)) for i in range(1000)] == list(zip(rows.frames, rows.labels, strict=True))


def test_a_rows_length_counts_its_gaps_speed_and_silence():
    corpus = random_corpus(200, longest_s=2.0)
    config = WaveformConfig(
        speeds=(0.8, 1.25), silence_before_s=(0.3, 0.9), silence_after_s=(1.0, 2.0), join_probability=1.0
    )
    config = replace(config, join_gap_s=(0.5, 1.0), join_parts=4)
    order = np.random.default_rng(0).permutation(200)
    for buckets in ((), (Bucket(112, 20, 1),)):
        rows = draw_rows(corpus, order, np.random.default_rng(1), config, CONFIG, buckets)
        made = [rows.row(index) for index in range(len(rows.frames))]
        assert sorted(i for row in made for i in row.utterances) == list(range(200))
        assert [row_size(corpus, row) for row in made] == list(zip(rows.frames, rows.labels, strict=True))
        assert {len(row.utterances) for row in made} >= {2, 3} and len({row.speed for row in made}) >= 2
        positions = [order.tolist().index(row.utterances[0]) for row in made]
        assert positions == sorted(positions)  # rows are in the order of their first utterances
        if buckets:
            assert max(rows.frames) <= 112 and max(rows.labels) <= 20
            unchanged = [row for row in made if row.speed == 1]
            assert unchanged and all(row.before_samples == row.after_samples == 0 for row in unchanged)


def test_a_fingerprint_does_not_depend_on_names_of_settings_and_on_settings_added_since():
    """Runs that were started before `noise_colour` was renamed, and before pauses, have the same data as now."""
    plan = plan_of(random_corpus(5), SMALL, RECIPE)
    waveform = (
        "WaveformConfig(speeds=(0.9, 1.0, 1.1), silence_before_s=(0.0, 0.5), silence_after_s=(0.0, 0.5), "
        "join_probability=0.5, join_longest_s=3.0, join_total_s=12.0, join_parts=6, join_gap_s=(0.0, 0.3), "
        "noise_probability=0.5, noise_manifests=(), noise_snr_db=(5.0, 30.0), noise_colour=(0.0, 2.0), "
        "gain_db=(-12.0, 6.0))"
    )
    text = f"({plan.settings!r}, {waveform}, {plan.buckets!r}, {np.__version__!r})"
    digest = hashlib.sha256(text.encode())
    for column in (plan.corpus.samples, plan.corpus.weights, plan.corpus.labels, plan.corpus.starts):
        digest.update(column.tobytes())
    for recording in plan.corpus.recordings:
        digest.update(f"{recording.name}\0{recording.offset_s}\0".encode())
    assert plan.fingerprint == digest.hexdigest()[:16]


def test_speed_and_silence_are_drawn_from_their_ranges():
    config = WaveformConfig(speeds=(0.9, 1.1), silence_before_s=(0.1, 0.3), silence_after_s=(0.0, 0.0))
    plan = plan_of(random_corpus(300), replace(SMALL, batch_frames=6000), config)
    rows = [row for batch in epoch_batches(plan, 0) for row in batch.rows if row.utterances]
    changed = [row for row in rows if row.speed != 1]
    assert len(changed) > 290  # the others would be longer than the largest bucket
    assert 100 < sum(row.speed == 0.9 for row in rows) < 200
    before = np.array([row.before_samples for row in changed])
    assert 1600 <= before.min() < 2000 and 4400 < before.max() <= 4800
    assert all(row.after_samples == 0 for row in rows)


def test_a_row_that_would_fit_no_bucket_is_left_as_it_is():
    corpus = corpus_of([16_000] * 8, [4] * 8)  # 14 frames hold 16840 samples
    config = WaveformConfig(speeds=(0.5,), silence_after_s=(1.0, 1.0), join_probability=1.0)
    batches = epoch_batches(plan_of(corpus, PlanConfig(buckets=(Bucket(14, 8, 4),)), config), 0)
    assert [row for batch in batches for row in batch.rows if row._replace(utterances=(), gap_samples=0) != Row()] == []
    assert members(batches) == Counter(range(8))


def test_rare_sources_leave_epochs_empty():
    plan = plan_of(corpus_of([16_000] * 2, [4] * 2, weights=(0.01,)), SMALL)
    assert plan.batch(0).epoch < plan.batch(1).epoch < 100
    assert members([plan.batch(0), plan.batch(1)]) == Counter([0, 1])


@pytest.mark.parametrize(
    "options,message",
    [
        (
            {"buckets": (Bucket(20, 8, 4),)},
            "Bucket(frames=20, labels=8, batch=4): frames must be a multiple of 14, whole chunks at every look-ahead",
        ),
        (
            {"buckets": (Bucket(14, 8, 3),), "rows_multiple": 2},
            "Bucket(frames=14, labels=8, batch=3): batch must be a multiple of 2, the hosts or devices sharing it",
        ),
        (
            {"buckets": (Bucket(14, 0, 4),)},
            "Bucket(frames=14, labels=0, batch=4): frames, labels and batch must be at least 1",
        ),
        ({"batch_frames": 0}, "batch_frames must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ConfigError) as caught:
        plan_of(random_corpus(5), PlanConfig(**options))
    assert str(caught.value) == message


def test_steps_and_hosts_out_of_range():
    plan = plan_of(random_corpus(5), PlanConfig(buckets=(Bucket(280, 200, 4),)))
    with pytest.raises(ValueError, match=whole("there is no step -1; steps count from 0")):
        plan.batch(-1)
    with pytest.raises(
        ConfigError,
        match=whole(
            "Bucket(frames=280, labels=200, batch=4) can't be divided by 3 hosts; set rows_multiple to a multiple of 3"
        ),
    ):
        plan.host_rows(plan.buckets[0], 0, 3)
