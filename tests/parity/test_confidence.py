"""Confidences by NeMo's own measures, of the same log-probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.decoding.confidence import Confidence

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("alpha", [0.33, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("form", ["lin", "exp"])
@pytest.mark.parametrize("measure", ["max_prob", "gibbs", "tsallis", "renyi"])
def test_measures_of_labels(measure, form, alpha, parity_seed):
    import torch
    from nemo.collections.asr.parts.utils.asr_confidence_utils import get_confidence_measure_bank

    name = measure if measure == "max_prob" else f"entropy_{measure}_{form}"
    rng = np.random.default_rng(parity_seed)
    for labels in (9, 1025):
        logits = (rng.uniform(0.3, 6) * rng.standard_normal((32, labels))).astype(np.float32)
        log_probs = torch.log_softmax(torch.tensor(logits).double(), -1)
        theirs = get_confidence_measure_bank()[name](log_probs, labels, alpha).numpy()
        best = jnp.asarray(logits.argmax(1), jnp.int32)
        sum_of = lambda x: jax.nn.logsumexp(x, axis=-1)
        ours = Confidence(measure, form, alpha).of_rows(jnp.asarray(logits), best, sum_of)
        np.testing.assert_allclose(ours, np.clip(theirs, 0, 1), atol=5e-5)


@pytest.mark.parametrize("words", ["mean", "min", "max", "prod"])
def test_words(words, parity_seed):
    from nemo.collections.asr.parts.utils.asr_confidence_utils import get_confidence_aggregation_bank

    values = np.random.default_rng(parity_seed).uniform(0, 1, 7).tolist()
    assert Confidence(words=words).of_word(values) == pytest.approx(get_confidence_aggregation_bank()[words](values))


def test_defaults():
    from nemo.collections.asr.parts.utils.asr_confidence_utils import ConfidenceConfig

    theirs = ConfidenceConfig()
    method, ours = theirs.method_cfg, Confidence()
    assert (ours.measure, ours.form, ours.alpha) == (method.entropy_type, method.entropy_norm, method.alpha)
    assert (ours.words, method.name) == (theirs.aggregation, "entropy")
