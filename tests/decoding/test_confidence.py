import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.decoding.beam import Beam
from nemojax.decoding.confidence import Confidence, as_confidence
from nemojax.decoding.greedy import Greedy
from nemojax.decoding.state import initial_prediction
from nemojax.errors import ConfigError
from tests.conftest import random_model
from tests.decoding.test_greedy import initial, label_scores, predict
from tests.helpers.definitions import normal
from tests.helpers.messages import whole

LABELS = 12
ALPHAS = (0.33, 1.0, 2.5)
MEASURES = [
    Confidence(measure, form, alpha)
    for measure in ("max_prob", "gibbs", "tsallis", "renyi")
    for form in ("lin", "exp")
    for alpha in ALPHAS
]


def definition(confidence: Confidence, p: np.ndarray) -> float:
    """The table of the module, in float64, of one row of probabilities."""
    a, v, ln = confidence.alpha, len(p), np.log(p)
    gibbs, power = np.sum(p**a * ln), np.sum(p**a)
    shannon = {"lin": 1 + np.sum(p * ln) / np.log(v), "exp": (v * np.exp(np.sum(p * ln)) - 1) / (v - 1)}
    if confidence.measure == "max_prob":
        return (v**a * p.max() ** a - 1) / (v**a - 1)
    if a == 1:
        return shannon[confidence.form]
    if confidence.measure == "gibbs":
        least = v ** (-a * v ** (1 - a))
        return {
            "lin": 1 + gibbs / (v ** (1 - a) * np.log(v)),
            "exp": (np.exp(a * gibbs) - least) / (1 - least),
        }[confidence.form]
    if confidence.measure == "tsallis":
        least = np.exp((1 - v ** (1 - a)) / (1 - a))
        return {
            "lin": 1 + (1 - power) / (v ** (1 - a) - 1),
            "exp": (np.exp((1 - power) / (1 - a)) - least) / (1 - least),
        }[confidence.form]
    return {
        "lin": 1 + np.log2(power) / ((a - 1) * np.log2(v)),
        "exp": (v * power ** (1 / (a - 1)) - 1) / (v - 1),
    }[confidence.form]


def computed(confidence: Confidence, logits: np.ndarray) -> np.ndarray:
    logits, labels = jnp.asarray(logits), jnp.asarray(np.argmax(logits, 1), jnp.int32)
    return np.asarray(confidence.of_rows(logits, labels, lambda x: jax.nn.logsumexp(x, axis=-1)))


@pytest.fixture(scope="module")
def rows():
    logits = np.random.default_rng(0).normal(0, 3, (6, LABELS)).astype(np.float32)
    logits[0] = 0.7  # all alike
    logits[1, 4] = 200.0  # certain
    return logits


@pytest.mark.parametrize("confidence", MEASURES, ids=lambda c: f"{c.measure}-{c.form}-{c.alpha}")
def test_measures(rows, confidence):
    p = np.exp(rows - rows.max(1, keepdims=True)).astype(np.float64)
    p /= p.sum(1, keepdims=True)
    found = computed(confidence, rows)
    expected = [definition(confidence, row) for row in p[2:]]
    np.testing.assert_allclose(found[2:], np.clip(expected, 0, 1), atol=2e-5)
    np.testing.assert_allclose(found[:2], [0, 1], atol=2e-5)


def test_the_labels_own_probability(rows):
    found = computed(Confidence("probability"), rows)
    p = np.exp(rows - rows.max(1, keepdims=True))
    np.testing.assert_allclose(found, (p / p.sum(1, keepdims=True)).max(1), rtol=1e-5)


@pytest.mark.parametrize(("words", "expected"), [("min", 0.2), ("max", 0.8), ("mean", 0.5), ("prod", 0.08)])
def test_words(words, expected):
    assert Confidence(words=words).of_word([0.8, 0.5, 0.2]) == pytest.approx(expected)


def test_texts():
    assert as_confidence("tsallis") == Confidence() == as_confidence(Confidence())
    assert Confidence.parse(" gibbs, lin,mean ,.5") == Confidence("gibbs", "lin", 0.5, "mean")
    assert Confidence.parse("renyi,2") == Confidence("renyi", alpha=2.0) and as_confidence(None) is None


@pytest.mark.parametrize(
    "text", ["tsallis,linear", "tsallis,lin,exp", "gibbs,0.5,0.7", "gibbs,", "gibbs,-1", "gibbs,nan"]
)
def test_texts_that_are_none(text):
    usage = "a confidence is written as MEASURE[,exp|lin][,ALPHA][,min|mean|max|prod], such as tsallis,exp,0.33,min"
    with pytest.raises(ConfigError, match=whole(f"{usage}, not {text!r}")):
        Confidence.parse(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"measure": "entropy"},
            "the measure of a confidence must be one of probability, max_prob, gibbs, tsallis, renyi, not 'entropy'",
        ),
        ({"form": "log"}, "the form of a confidence must be one of exp, lin, not 'log'"),
        ({"words": "median"}, "the words of a confidence must be one of min, mean, max, prod, not 'median'"),
        ({"alpha": 0.0}, "the alpha of a confidence must be more than 0 and at most 10, not 0.0"),
        ({"alpha": 11.0}, "the alpha of a confidence must be more than 0 and at most 10, not 11.0"),
        ({"alpha": float("nan")}, "the alpha of a confidence must be more than 0 and at most 10, not nan"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ConfigError, match=whole(message)):
        Confidence(**settings)


def test_a_beam_has_the_confidences_of_each_hypothesis(tiny_config):
    """The probability of a label is that of its log-probability."""
    model = random_model(tiny_config, seed=1, blank_bias=14.0)
    encoded, search = 2.0 * normal(0, 2, 12, tiny_config.encoder.width), Beam(3, confidence=Confidence("probability"))
    start = search.initial_state(initial_prediction(model), 2)
    emission, _ = jax.device_get(jax.jit(search.decode)(model, encoded, np.array([12, 9], np.int32), start))
    gained = np.arange(emission.labels.shape[2]) < emission.length[..., None]
    assert gained.sum() > 20
    np.testing.assert_allclose(emission.confidences[gained], np.exp(emission.log_probs[gained]), rtol=1e-4)


def test_greedy_search_takes_the_row_that_chose_the_label(tiny_config):
    """The labels are those of a search without confidences, whose emission has none."""
    config = dataclasses.replace(tiny_config, max_symbols_per_frame=3)
    model = random_model(config, seed=1, blank_bias=4.0)
    encoded, lengths = 2.0 * normal(0, 4, 20, config.encoder.width), np.array([20, 13, 1, 0])
    plain, _ = jax.jit(Greedy().decode)(model, encoded, lengths, initial(model, 4))
    measured, _ = jax.jit(Greedy(confidence=Confidence("gibbs", "lin", 1.0)).decode)(
        model, encoded, lengths, initial(model, 4)
    )
    assert plain.confidences is None and plain.length[0] > 3
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), plain[:2], measured[:2]))
    output, lstm = predict(model, np.array([config.blank]), model.prediction.initial_cache(1))
    for index in range(length := int(plain.length[0])):
        log_p = np.asarray(label_scores(model, encoded[0, plain.frames[0, index]][None], output), np.float64)
        expected = 1 + (np.exp(log_p) * log_p).sum() / np.log(config.labels)
        assert measured.confidences[0, index] == pytest.approx(expected, abs=1e-4)
        output, lstm = predict(model, plain.labels[:1, index], lstm)
    assert not measured.confidences[0, length:].any()
