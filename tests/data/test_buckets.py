import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemojax.config import PRESETS
from nemojax.data.buckets import Bucket, check_buckets, choose_buckets, frames_multiple
from nemojax.errors import ConfigError


def padded(frames, sizes):
    return sum(min(size for size in sizes if size >= frame) for frame in frames)


@settings(max_examples=60, deadline=None)
@given(
    frames=st.lists(st.integers(1, 110), min_size=1, max_size=40),
    count=st.integers(1, 4),
    rows_multiple=st.sampled_from([1, 4]),
)
def test_chosen_buckets_pad_the_least_and_hold_all(frames, count, rows_multiple):
    labels = [7 * frame % 40 + 1 for frame in frames]
    buckets = choose_buckets(
        np.array(frames), np.array(labels), 400, count=count, multiple=14, rows_multiple=rows_multiple
    )
    assert 1 <= len(buckets) <= count and sorted(buckets) == list(buckets)
    assert buckets[-1].labels >= max(labels) and all(bucket.frames % 14 == 0 for bucket in buckets)
    assert [bucket.labels for bucket in buckets] == sorted(bucket.labels for bucket in buckets)
    for bucket in buckets:
        assert bucket.batch % rows_multiple == 0 and bucket.labels % 8 == 0
        assert bucket.batch == rows_multiple or bucket.batch * bucket.frames <= 400
        assert (bucket.batch + rows_multiple) * bucket.frames > 400
    largest = -(-max(frames) // 14)
    choices = [
        [14 * size for size in (*sizes, largest)]
        for number in range(count)
        for sizes in combinations(range(1, largest), number)
    ]
    assert padded(frames, [bucket.frames for bucket in buckets]) == min(padded(frames, sizes) for sizes in choices)
    capacity = low = 0
    for bucket in buckets:
        inside = sorted(label for frame, label in zip(frames, labels, strict=True) if low < frame <= bucket.frames)
        needed = max(labels) if bucket is buckets[-1] else inside[math.ceil(0.98 * (len(inside) - 1))]
        capacity, low = max(capacity, -(-needed // 8) * 8), bucket.frames
        assert bucket.labels == capacity


def test_a_few_long_texts_do_not_make_all_buckets_long():
    frames, labels = np.repeat([14, 70], 500), np.repeat([5, 30], 500)
    labels[7] = 60  # goes to a larger bucket
    buckets = choose_buckets(frames, labels, 700, count=8, multiple=14)
    assert buckets == (Bucket(14, 8, 50), Bucket(70, 64, 10))


def test_longer_buckets_have_room_for_as_many_labels():
    buckets = choose_buckets(np.array([14, 28, 42]), np.array([20, 3, 5]), 84, multiple=14)
    assert buckets == (Bucket(14, 24, 6), Bucket(28, 24, 3), Bucket(42, 24, 2))


def test_each_device_has_a_row_however_long_it_is():
    buckets = choose_buckets(np.array([14, 70]), np.array([5, 5]), 60, multiple=14, rows_multiple=4)
    assert buckets == (Bucket(14, 8, 4), Bucket(70, 8, 4))


def test_every_look_ahead_cuts_a_bucket_into_whole_chunks(family_config):
    assert frames_multiple(PRESETS["0.6b"]) == 14 and frames_multiple(family_config) == 7


def test_given_buckets_are_tried_from_the_smallest():
    buckets = [Bucket(28, 9, 2), Bucket(14, 9, 4), Bucket(14, 5, 8), Bucket(14, 9, 4)]
    assert check_buckets(buckets, 14, 2) == (Bucket(14, 5, 8), Bucket(14, 9, 4), Bucket(28, 9, 2))
    assert check_buckets([Bucket(14, 1, 1)], 14) == (Bucket(14, 1, 1),)
    for wrong, message in (
        ([], "there must be at least one bucket of (frames, labels, batch)"),
        ([Bucket(14, 1, 2), Bucket(28, 0, 2)], f"{Bucket(28, 0, 2)}: frames, labels and batch must be at least 1"),
        ([Bucket(20, 1, 2)], f"{Bucket(20, 1, 2)}: frames must be a multiple of 14, whole chunks at every look-ahead"),
        ([Bucket(14, 1, 3)], f"{Bucket(14, 1, 3)}: batch must be a multiple of 2, the hosts or devices sharing it"),
    ):
        with pytest.raises(ConfigError) as caught:
            check_buckets(wrong, 14, 2)
        assert str(caught.value) == message


def test_utterances_shorter_than_a_frame_have_a_bucket():
    assert choose_buckets(np.array([0, 14]), np.array([1, 1]), 28, multiple=14) == (Bucket(14, 8, 2),)
