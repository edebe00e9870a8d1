"""The share of an epoch that is replay."""

import numpy as np
import pytest

from nemojax.config import ModelConfig
from nemojax.data.plan import Plan, PlanConfig
from nemojax.data.replay import with_replay
from nemojax.errors import ConfigError
from tests.data.corpora import corpus_of


def test_replay_is_a_share_of_the_audio_and_keeps_its_weights_among_each_other():
    samples = np.repeat([32_000, 48_000, 160_000], [30, 200, 100])
    sources = np.repeat([0, 1, 2], [30, 200, 100])
    corpus = corpus_of(samples, np.full(330, 5), sources, weights=(2.0, 1.0, 3.0))
    mixed = with_replay(corpus, 1, 0.25)
    seconds = mixed.samples * mixed.weights
    np.testing.assert_allclose(seconds[sources >= 1].sum() / seconds.sum(), 0.25)
    np.testing.assert_array_equal(mixed.weights[sources == 0], 2.0)
    np.testing.assert_allclose(mixed.weights[sources == 2][0] / mixed.weights[sources == 1][0], 3.0)
    plan = Plan(mixed, ModelConfig(), PlanConfig(batch_frames=2000, bucket_count=2))
    times = sum(plan.times(epoch) for epoch in range(40))
    drawn = times * mixed.samples
    assert abs(drawn[sources >= 1].sum() / drawn.sum() - 0.25) < 0.01


@pytest.mark.parametrize("first,name", [(0, "train"), (1, "replay")])
def test_nothing_to_replay_or_nothing_new(first, name):
    corpus = corpus_of([32_000, 32_000], [4, 4])
    with pytest.raises(ConfigError, match=f"^the manifests of {name} leave nothing to train on: 2 utterances, 0.00 h$"):
        with_replay(corpus, first, 0.5)
