"""The training step on one small model, with as few compilations as there are things to compare."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nemojax import streaming
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment
from nemojax.training import step as training
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.forward import ONE_DEVICE, Batch
from nemojax.training.losses import Counts, LossValues, standard_losses
from nemojax.training.recipe import TrainingConfig, optimizer
from nemojax.training.state import TrainState, init, model_of
from tests.training.conftest import FRAMES

PLAIN = TrainingConfig(dtype="float32", fastemit=0.0)
FROZEN = ("encoder.subsampling.*", "joint.output.bias")
RECIPE = TrainingConfig(
    dtype="float32", learning_rate=0.5, warmup_steps=10, frozen=FROZEN, skip_norm=2.0, average_decay=0.2
)


def compiled(config, recipe):
    return jax.jit(partial(training.value_and_gradient, config=config, recipe=recipe))


@pytest.fixture(scope="module")
def step(config):
    return jax.jit(partial(training.train_step, config=config, recipe=RECIPE))


@pytest.fixture(scope="module")
def state(config, parameters):
    return init(fill(config, parameters), RECIPE)


def assert_close(got, want, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), got, want)


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def row_of(batch, row):
    return Batch(*(x[jnp.array([row] * 4)] for x in batch))


def test_lookaheads_differ_and_compile_once(parameters, batch, plain):
    losses = {float(plain(parameters, batch, jnp.int32(lookahead), None)[0].total) for lookahead in (13, 6, 1, 0)}
    assert len(losses) == 4 and plain._cache_size() == 1


PARTS = (
    "encoder.subsampling.conv_in.kernel",
    "encoder.subsampling.linear.bias",
    "encoder.blocks.0.feedforward1.linear1.kernel",
    "encoder.blocks.0.attention.position.kernel",
    "encoder.blocks.0.attention.content_bias",
    "encoder.blocks.0.convolution.depthwise.kernel",
    "encoder.blocks.0.norm_out.scale",
    "prediction.embedding",
    "prediction.lstm.0.hidden_kernel",
    "prediction.lstm.1.input_bias",
    "joint.encoder.kernel",
    "joint.prediction.kernel",
    "joint.output.kernel",
    "joint.output.bias",
)


@pytest.mark.parametrize("name", PARTS)
def test_gradient_is_the_slope(config, parameters, batch, plain, name):
    """Along the gradient, where the slope is steepest; float32 sets the size of the step."""
    value = lambda p: float(plain(p, batch, jnp.int32(6), None)[0].total)
    gradient = plain(parameters, batch, jnp.int32(6), None)[1][name]
    norm = float(jnp.linalg.norm(gradient))
    assert norm > 1e-3
    size = min(0.05 / norm, 0.02)
    moved = lambda sign: value(parameters | {name: parameters[name] + sign * size * gradient / norm})
    np.testing.assert_allclose((moved(1) - moved(-1)) / (2 * size), norm, rtol=0.02)


def test_every_parameter_has_a_gradient_but_blank(config, parameters, batch, plain):
    _, gradient = plain(parameters, batch, jnp.int32(6), None)
    # the last stage of the subsampling cuts some channels off everywhere; a key's bias cancels in the softmax
    still = {name for name, g in gradient.items() if not np.asarray(g).any()}
    assert gradient.keys() == parameters.keys() and not still
    assert not gradient["prediction.embedding"][config.blank].any()


def test_padding_and_filler_change_nothing(config, parameters, batch, plain):
    poisoned = Batch(
        jnp.where(jnp.arange(FRAMES * 1280)[None] < batch.sample_lengths[:, None], batch.samples, jnp.nan),
        batch.sample_lengths,
        jnp.where(jnp.arange(5)[None] < batch.label_lengths[:, None], batch.labels, jnp.array([[-1, 12, 99, -7, 7]])),
        batch.label_lengths.at[3].set(4),
    )
    assert np.isnan(poisoned.samples).any() and not (poisoned.labels == batch.labels).all()
    wanted = plain(parameters, batch, jnp.int32(1), None)
    assert_equal(plain(parameters, poisoned, jnp.int32(1), None), wanted)
    alone = [plain(parameters, row_of(batch, row), jnp.int32(1), None) for row in range(3)]
    np.testing.assert_allclose(wanted[0].total, np.mean([values.total for values, _ in alone]), rtol=1e-5)
    values, gradient = plain(parameters, row_of(batch, 3), jnp.int32(1), None)
    assert values.total == values.by_name["rnnt"] == 0 and not any(values.counts)
    assert not any(np.asarray(g).any() for g in gradient.values())


def test_accumulation_and_rematerialization_change_nothing(config, parameters, batch, plain):
    """The halves hold two utterances and one: rows weigh alike, halves do not."""
    halves = compiled(config, dataclasses.replace(PLAIN, accumulation=2, remat=True))
    got, wanted = (f(parameters, batch, jnp.int32(6), None) for f in (halves, plain))
    assert_close(got, wanted, rtol=2e-4, atol=1e-4)


def test_bfloat16_is_close(config, parameters, batch, plain):
    narrow = compiled(config, dataclasses.replace(PLAIN, dtype="bfloat16"))
    values, gradient = narrow(parameters, batch, jnp.int32(6), None)
    wanted, wanted_gradient = plain(parameters, batch, jnp.int32(6), None)
    assert 0 < abs(values.total - wanted.total) < 0.01 * wanted.total
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    a, b = flat(gradient), flat(wanted_gradient)
    assert all(g.dtype == jnp.float32 for g in gradient.values())
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_a_step_is_a_function_of_state_and_batch(state, batch, step):
    """Two runs give the same bits, all look-aheads come up in one compilation, frozen parts and blank stay."""
    after, lookaheads, losses = state, set(), []
    for _ in range(8):
        after, metrics = step(after, batch)
        lookaheads.add(int(metrics.lookahead))
        losses.append(float(metrics.loss))
        if len(losses) == 5:
            middle = jax.device_get(after)
    assert len(lookaheads) > 1 and step._cache_size() == 1
    for _ in range(3):
        middle, again = step(middle, batch)
    assert_equal((middle, again), (after, metrics))
    assert int(after.step) == 8 and int(after.skipped) == 0 and set(metrics.losses) == {"rnnt"}
    assert metrics.losses["rnnt"] == metrics.loss and [int(n) for n in metrics.counts][::2] == [3, 8]
    assert not after.parameters["prediction.embedding"][-1].any()  # blank
    for name, value in after.parameters.items():
        frozen = name.startswith(("encoder.subsampling.", "joint.output.bias"))
        assert np.array_equal(value, state.parameters[name]) == frozen, name


@pytest.mark.parametrize("cause", ["nan", "label"])
def test_a_bad_batch_is_skipped(state, batch, step, cause):
    if cause == "nan":
        bad = batch._replace(samples=batch.samples.at[0, 5000].set(jnp.nan))
    else:
        bad = batch._replace(labels=batch.labels.at[0, 0].set(99))
    after, metrics = step(state, bad)
    assert bool(metrics.skipped) and not np.isfinite(metrics.loss)
    assert_equal(after, state._replace(step=np.int32(1), skipped=np.int32(1), skipped_in_a_row=np.int32(1)))


@pytest.fixture
def fake(monkeypatch):
    """Steps without a model: what `train_step` asks of `value_and_gradient`, and its answer."""
    calls = []

    def value_and_gradient(parameters, batch, lookahead, key, config, recipe, placement, losses):
        calls.append({"lookahead": int(lookahead), "key": key, "rest": (config, recipe, placement, losses)})
        one = jnp.float32(1)
        values = LossValues(2 * one, {"a": one, "b": 3 * one}, Counts(*jnp.array([1, 2, 3])))
        return values, {"x": jnp.full(2, 0.1)}

    monkeypatch.setattr(training, "value_and_gradient", value_and_gradient)
    return calls


def test_every_step_draws_anew_from_the_seed(config, batch, fake):
    recipe = TrainingConfig(seed=3, lookahead_probabilities=(0.0, 1.0, 1.0, 0.0))
    losses = standard_losses(recipe)
    state = init_of_one(recipe)
    for seed, skipped in ((3, 0), (3, 5), (4, 0)):  # the number of a step counts, not that of its update
        now = state._replace(seed=jnp.uint32(seed), skipped=jnp.int32(skipped))
        for _ in range(12):
            now, metrics = training.train_step(now, batch, config, recipe, losses=losses)
    keys = [tuple(np.asarray(jax.random.key_data(call["key"]))) for call in fake]
    assert keys[:12] == keys[12:24] and len(set(keys)) == 24
    assert {call["lookahead"] for call in fake} == {6, 1}
    assert all(call["rest"] == (config, recipe, ONE_DEVICE, losses) for call in fake)
    assert (metrics.loss, metrics.losses["b"], metrics.counts.labels) == (2, 3, 3)
    np.testing.assert_allclose(metrics.gradient_norm, 0.1 * 2**0.5, rtol=1e-6)
    assert metrics.lookahead == fake[-1]["lookahead"] and not metrics.skipped


def init_of_one(recipe):
    """The state of a run of one parameter."""
    zero, parameters = jnp.int32(0), {"x": jnp.ones(2)}
    transform = optimizer(recipe, 16).init(parameters)
    return TrainState(zero, parameters, {}, transform, zero, zero, jnp.full(5, jnp.inf), jnp.uint32(0))


def test_lookahead_probabilities(config):
    recipe = TrainingConfig(lookahead_probabilities=(0.0, 3.0, 1.0, 0.0))
    draw = lambda recipe: jax.jit(jax.vmap(lambda key: training.draw_lookahead(key, config, recipe)))
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = np.asarray(draw(recipe)(keys))
    assert set(drawn) == {6, 1} and abs((drawn == 6).mean() - 0.75) < 0.07
    uniform = np.asarray(draw(PLAIN)(keys))
    assert all(abs((uniform == lookahead).mean() - 0.25) < 0.07 for lookahead in (0, 1, 6, 13))
    with pytest.raises(ConfigError, match="2 for the 4 look-aheads"):
        training.draw_lookahead(jax.random.key(0), config, TrainingConfig(lookahead_probabilities=(0.5, 0.5)))


def test_accumulated_parts_hold_every_other_row_and_draw_anew():
    """Rows weigh alike whatever part they are in; each part has a key of its own. Filler alone has a loss of zero."""
    keys, parts = [], []

    def compute(batch, key):
        filled = batch.sample_lengths > 0
        rows = filled.sum()
        mean = lambda x: jnp.where(filled, x, 0).sum() / jnp.maximum(rows, 1)
        jax.debug.callback(lambda key: keys.append(key.tolist()), jax.random.key_data(key))
        jax.debug.callback(lambda lengths: parts.append(lengths.tolist()), batch.sample_lengths)
        counts = Counts(rows, batch.sample_lengths.sum(), batch.label_lengths.sum())
        loss, a, x = (mean(batch.samples[:, column]) for column in range(3))
        return LossValues(loss, {"a": a}, counts), {"x": x}

    samples = jnp.arange(18.0).reshape(6, 3)
    batch = Batch(samples, jnp.array([1, 2, 3, 0, 0, 0]), jnp.zeros((6, 1), jnp.int32), jnp.array([4, 5, 6, 0, 0, 0]))
    values, gradient = training._accumulate(compute, batch, jax.random.key(0), 2)
    jax.effects_barrier()
    assert sorted(parts) == [[1, 3, 0], [2, 0, 0]] and len({tuple(key) for key in keys}) == 2
    assert (values.total, values.by_name["a"], gradient["x"]) == (3.0, 4.0, 5.0)
    assert [int(n) for n in values.counts] == [3, 6, 15]
    filler = batch._replace(sample_lengths=jnp.zeros(6, jnp.int32), label_lengths=jnp.zeros(6, jnp.int32))
    values, gradient = training._accumulate(compute, filler, jax.random.key(0), 2)
    assert values.total == values.by_name["a"] == gradient["x"] == 0 and not any(values.counts)
    with pytest.raises(ValueError, match="6 rows can't be computed in 4 equal parts"):
        training._accumulate(compute, batch, jax.random.key(0), 4)


def test_a_batch_is_computed_in_as_many_parts_as_the_recipe_has(config, parameters, batch, monkeypatch):
    parts, values = [], LossValues(jnp.float32(1), {}, Counts(*jnp.array([1, 2, 3])))
    monkeypatch.setattr(training, "_accumulate", lambda *given: parts.append(given[-1]) or (values, {}))
    for count in (2, 4):
        recipe = dataclasses.replace(PLAIN, accumulation=count)
        training.value_and_gradient(parameters, batch, 6, None, config, recipe)
    assert parts == [2, 4]


def test_kernels_alone_are_narrowed():
    named = {"a.kernel": jnp.ones(2), "hidden_kernel": jnp.ones(2), "kernel.bias": jnp.ones(2), "scale": jnp.ones(2)}
    types = {name: value.dtype for name, value in training.narrow(named, "bfloat16").items()}
    assert types == {"a.kernel": jnp.bfloat16, "hidden_kernel": jnp.bfloat16} | dict.fromkeys(
        ("kernel.bias", "scale"), jnp.float32
    )


@pytest.mark.slow
def test_overfits_one_batch_and_then_emits_its_labels(config):
    """Three sequences of notes, with a label for each note, at all look-aheads."""
    plain = lambda part: dataclasses.replace(part, dropout=0.0)
    encoder = dataclasses.replace(config.encoder, layers=1, width=32, feedforward_width=64)
    encoder = dataclasses.replace(encoder, dropout=0.0, attention_dropout=0.0)
    config = dataclasses.replace(
        config, encoder=encoder, prediction=plain(config.prediction), joint=plain(config.joint)
    )
    rng, note = np.random.default_rng(0), np.arange(8 * 1280) / 16_000
    labels = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5]], np.int32)
    tone = lambda label: 0.3 * np.sin(2 * np.pi * 200 * 1.25**label * note) * np.hanning(len(note))
    tunes = np.stack([np.concatenate([tone(label) for label in row]) for row in labels])
    samples = 0.001 * rng.standard_normal((3, FRAMES * 1280)).astype(np.float32)
    samples[:, config.history_samples :][:, : tunes.shape[1]] += tunes
    full = lambda value: jnp.full(3, value, jnp.int32)
    batch = Batch(jnp.asarray(samples), full(FRAMES * 1280), jnp.asarray(labels), full(3))
    masks = SpecAugmentConfig(frequency_masks=0, time_masks=0)
    recipe = TrainingConfig(learning_rate=0.3, warmup_steps=40, dtype="float32", spec_augment=masks)
    state, losses = init(Transducer(config, rngs=nnx.Rngs(0)), recipe), []
    for _ in range(220):
        state, metrics = training.train_step_jit(state, batch, config, recipe)
        losses.append(float(metrics.loss))
    assert np.mean(losses[40:50]) < 0.2 * losses[0] and max(losses[-20:]) < 0.01 * losses[0], losses[::20]
    trained = model_of(state, config)
    constants = streaming.prepare(trained)
    for lookahead in config.encoder.lookaheads:
        segment = Segment(batch.samples, batch.sample_lengths, jnp.ones(3, bool), jnp.zeros(3, bool))
        begin = streaming.init_state(trained, constants, 3)
        _, emission = step_jit(trained, constants, begin, segment, lookahead)
        assert emission.length.tolist() == [3, 3, 3] and (np.asarray(emission.labels)[:, :3] == labels).all()
