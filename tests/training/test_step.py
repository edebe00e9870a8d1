"""One small model, and as few compilations as there are things to compare."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nemojax import streaming
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.recognition.stream_batch import step_jit
from nemojax.streaming import Segment
from nemojax.training import step as training
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.recipe import TrainingConfig, noam
from nemojax.training.rnnt_loss import rnnt_loss
from nemojax.training.step import Batch
from tests.conftest import random_model

FRAMES = 28  # encoder frames of a batch: whole chunks at every look-ahead
PLAIN = TrainingConfig(dtype="float32", fastemit=0.0)
FROZEN = ("encoder.subsampling.*", "joint.output.bias")
RECIPE = TrainingConfig(
    dtype="float32", learning_rate=0.5, warmup_steps=10, frozen=FROZEN, skip_norm=2.0, average_decay=0.2
)


@pytest.fixture(scope="module")
def config(tiny_config):
    return dataclasses.replace(
        tiny_config,
        features=dataclasses.replace(tiny_config.features, mel_bins=32),
        encoder=dataclasses.replace(tiny_config.encoder, layers=1, width=16, feedforward_width=32),
        vocabulary=12,
    )


@pytest.fixture(scope="module")
def parameters(config):
    return dict(named_parameters(random_model(config, seed=2)))


@pytest.fixture(scope="module")
def batch(config, speech):
    """Three utterances of different lengths, one without labels, and filler."""
    lengths = [FRAMES * 1280, 20_000, 9_999, 0]
    samples = np.zeros((4, FRAMES * 1280), np.float32)
    for row, n in enumerate(lengths[:3]):
        piece = np.asarray(speech)[7000 * row :][: n - config.history_samples]
        samples[row, config.history_samples :][: len(piece)] = piece
    labels = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [0] * 5, [0] * 5], np.int32)
    return Batch(*map(jnp.asarray, (samples, np.array(lengths, np.int32), labels, np.array([5, 3, 0, 0], np.int32))))


def compiled(config, recipe):
    return jax.jit(partial(training.value_and_gradient, config=config, recipe=recipe))


@pytest.fixture(scope="module")
def plain(config):
    return compiled(config, PLAIN)


@pytest.fixture(scope="module")
def step(config):
    return jax.jit(partial(training.train_step, config=config, recipe=RECIPE))


@pytest.fixture(scope="module")
def state(config, parameters):
    return training.init(fill(config, parameters), RECIPE)


def assert_close(got, want, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), got, want)


def assert_equal(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


def row_of(batch, row):
    return Batch(*(x[jnp.array([row] * 4)] for x in batch))


@pytest.mark.parametrize("lookahead", [13, 1])
def test_the_loss_is_that_of_the_streaming_encoder(config, parameters, batch, plain, lookahead):
    model = fill(config, parameters)
    constants = streaming.prepare(model)
    state = streaming.init_state(model, constants, 4)
    segment = Segment(batch.samples, batch.sample_lengths, jnp.ones(4, bool), jnp.zeros(4, bool))
    encoded, mask, _ = jax.jit(streaming.encode, static_argnums=4)(model, constants, state, segment, lookahead)

    @jax.jit
    def loss(model, encoded, mask):
        output = model.joint.output
        return rnnt_loss(
            model.joint.encoder(encoded),
            model.joint.prediction(model.prediction.sequence(batch.labels)),
            output.kernel[...],
            output.bias[...],
            batch.labels,
            mask.sum(1),
            batch.label_lengths,
            blank=config.blank,
        )

    wanted = loss(model, encoded, mask)
    (value, counts), _ = plain(parameters, batch, jnp.int32(lookahead), None)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    frames = sum(config.encoder_frames(int(n) - config.history_samples) for n in batch.sample_lengths[:3])
    assert [int(n) for n in counts] == [3, frames, 8]


def test_lookaheads_differ_and_compile_once(parameters, batch, plain):
    losses = {float(plain(parameters, batch, jnp.int32(lookahead), None)[0][0]) for lookahead in (13, 6, 1, 0)}
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
    value = lambda p: float(plain(p, batch, jnp.int32(6), None)[0][0])
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
    np.testing.assert_allclose(wanted[0][0], np.mean([value for (value, _), _ in alone]), rtol=1e-5)
    (value, counts), gradient = plain(parameters, row_of(batch, 3), jnp.int32(1), None)
    assert value == 0 and not any(counts) and not any(np.asarray(g).any() for g in gradient.values())


def test_accumulation_and_rematerialisation_change_nothing(config, parameters, batch, plain):
    """The halves hold two utterances and one: rows weigh alike, halves do not."""
    halves = compiled(config, dataclasses.replace(PLAIN, accumulation=2, remat=True))
    got, wanted = (f(parameters, batch, jnp.int32(6), None) for f in (halves, plain))
    assert_close(got, wanted, rtol=2e-4, atol=1e-4)


def test_bfloat16_is_close(config, parameters, batch, plain):
    narrow = compiled(config, dataclasses.replace(PLAIN, dtype="bfloat16"))
    (value, _), gradient = narrow(parameters, batch, jnp.int32(6), None)
    (wanted, _), wanted_gradient = plain(parameters, batch, jnp.int32(6), None)
    assert 0 < abs(value - wanted) < 0.01 * wanted
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    a, b = flat(gradient), flat(wanted_gradient)
    assert all(g.dtype == jnp.float32 for g in gradient.values())
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_a_step_is_a_function_of_state_and_batch(state, batch, step):
    """Two runs give the same bits; each step draws anew; all four look-aheads come up in one compilation."""
    after, seen, losses = state, set(), []
    for _ in range(12):
        after, metrics = step(after, batch)
        seen.add(int(metrics.lookahead))
        losses.append(float(metrics.loss))
        if len(losses) == 6:
            middle = jax.device_get(after)
    assert seen == {0, 1, 6, 13} and step._cache_size() == 1
    for _ in range(6):
        middle, _ = step(middle, batch)
    assert_equal(middle, after)
    assert int(after.step) == 12 and int(after.skipped) == 0
    again, _ = step(state._replace(seed=jnp.uint32(1)), batch)
    other = step(state, batch)[0]
    assert not np.allclose(again.parameters["joint.output.kernel"], other.parameters["joint.output.kernel"])
    assert not after.parameters["prediction.embedding"][-1].any()  # blank


@pytest.mark.parametrize("cause", ["nan", "label", "norm"])
def test_a_bad_step_is_skipped_and_counted(state, batch, step, cause):
    before = step(state, batch)[0]
    good_norms = before.norms
    if cause == "nan":
        bad = batch._replace(samples=batch.samples.at[0, 5000].set(jnp.nan))
    elif cause == "label":
        bad = batch._replace(labels=batch.labels.at[0, 0].set(99))
    else:
        bad, before = batch, before._replace(norms=jnp.full_like(good_norms, 1e-9))
    after, metrics = step(before, bad)
    twice, _ = step(after, bad)
    assert bool(metrics.skipped) and np.isfinite(metrics.loss) == (cause == "norm")
    for now, count in ((after, 1), (twice, 2)):
        counters = {"step": 1 + count, "skipped": count, "skipped_in_a_row": count}
        assert_equal(now, before._replace(**{name: np.int32(value) for name, value in counters.items()}))
    recovered, metrics = step(twice._replace(norms=good_norms), batch)
    assert not metrics.skipped and int(recovered.skipped) == 2 and int(recovered.skipped_in_a_row) == 0
    assert int(metrics.counts.rows) == 3 and np.isfinite(recovered.norms).sum() == 2


def test_weights_are_averaged(state, batch, step):
    """With a tenth of the start after the first update, and 2 / 11 of what was before after the second."""
    first, _ = step(state, batch)
    second, _ = step(first, batch)
    assert set(second.average) == {
        name for name in state.parameters if not name.startswith(("encoder.sub", "joint.output.b"))
    }
    for name, average in second.average.items():
        expected = 0.1 * state.parameters[name] + 0.9 * first.parameters[name]
        np.testing.assert_allclose(first.average[name], expected, atol=1e-7)
        expected = 2 / 11 * first.average[name] + 9 / 11 * second.parameters[name]
        np.testing.assert_allclose(average, expected, atol=1e-7)
    late = training.averaged({"x": jnp.ones(1)}, {"x": jnp.zeros(1)}, jnp.int32(10**6), 0.2)
    assert late["x"][0] == np.float32(0.2)


def test_the_auxiliary_loss_is_for_the_encoder(config, parameters, batch, plain):
    (value, _), gradient = plain(parameters, batch, 6, None)
    with_ctc = [
        compiled(config, dataclasses.replace(PLAIN, ctc_weight=w))(parameters, batch, 6, None) for w in (1.0, 3.0)
    ]
    added = [float(v - value) for (v, _), _ in with_ctc]
    assert added[0] > 1 and added[1] == pytest.approx(3 * added[0], rel=1e-4)
    for name, want in gradient.items():
        same = np.allclose(with_ctc[0][1][name], want, rtol=1e-3, atol=1e-6)
        assert same == name.startswith(("prediction.", "joint.prediction.")), name


def test_frozen_parts_stay_bit_equal(parameters, state, batch, step):
    after, _ = step(state, batch)
    for name, value in after.parameters.items():
        still = name.startswith(("encoder.subsampling.", "joint.output.bias"))
        assert np.array_equal(value, parameters[name]) == still, name
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(after.optimiser)]
    assert any("blocks" in path for path in paths) and not any("subsampling" in path for path in paths)


def test_the_schedule_is_noams():
    schedule = noam(TrainingConfig(), 512)
    peak = 5.0 * 512**-0.5 * 10_000**-0.5
    np.testing.assert_allclose(schedule(10_000), peak, rtol=1e-6)
    np.testing.assert_allclose(schedule(5_000), peak / 2, rtol=1e-6)
    np.testing.assert_allclose(schedule(40_000), peak / 2, rtol=1e-6)
    np.testing.assert_allclose([schedule(0), schedule(1), schedule(2)], [peak / 1e4, peak / 1e4, peak / 5e3], rtol=1e-6)
    low = noam(TrainingConfig(minimum_learning_rate=1e-3), 512)
    assert low(1) < 1e-5 and low(10_000_000) == np.float32(1e-3)


def test_the_rate_cools_down_in_a_straight_line():
    usual = noam(TrainingConfig(), 512)
    cooled = noam(TrainingConfig(cooldown_from=20_000, cooldown_steps=1_000), 512)
    assert cooled(20_000) == usual(20_000) and cooled(500) == usual(500)
    np.testing.assert_allclose(
        [cooled(20_250), cooled(20_750)], [usual(20_250) * 0.75, usual(20_750) * 0.25], rtol=1e-5
    )
    assert cooled(21_000) == cooled(30_000) == np.float32(1e-6)


def test_lookahead_probabilities(config):
    recipe = TrainingConfig(lookahead_probabilities=(0.0, 3.0, 1.0, 0.0))
    draw = jax.jit(jax.vmap(lambda key: training.draw_lookahead(key, config, recipe)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 400)))
    assert set(drawn) == {6, 1} and abs((drawn == 6).mean() - 0.75) < 0.07
    with pytest.raises(ConfigError, match="2 for the 4 look-aheads"):
        training.draw_lookahead(jax.random.key(0), config, TrainingConfig(lookahead_probabilities=(0.5, 0.5)))


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"dtype": "float16"}, "dtype must be bfloat16 or float32, not 'float16'"),
        ({"accumulation": 0}, "accumulation must be at least 1"),
        ({"clip_norm": 0.0}, "clip_norm must be greater than 0"),
        ({"average_decay": 1.0}, "average_decay must be at least 0 and less than 1"),
        ({"ctc_weight": -1.0}, "ctc_weight must be at least 0"),
        ({"cooldown_steps": -1}, "cooldown_steps must be at least 0"),
        ({"lookahead_probabilities": (-1.0, 2.0)}, "are not probabilities"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**settings)


def test_patterns_that_freeze_nothing_or_all(parameters):
    with pytest.raises(ConfigError, match="no parameter's path matches 'decoder"):
        training.partition(parameters, ("decoder.*",))
    with pytest.raises(ConfigError, match="leave no parameter to train"):
        training.partition(parameters, ("*",))


def test_batches_of_wrong_shapes(config, parameters, batch):
    short = batch._replace(samples=batch.samples[:, :-1])
    with pytest.raises(ValueError, match="whole encoder frames of 1280 samples"):
        training.value_and_gradient(parameters, short, 0, None, config, PLAIN)
    with pytest.raises(ValueError, match="4 rows can't be computed in 3 equal parts"):
        recipe = dataclasses.replace(PLAIN, accumulation=3)
        training.value_and_gradient(parameters, batch, 0, None, config, recipe)


def test_init_copies(config, parameters):
    """A step may be given its state's buffers; the model that a run began with stays whole."""
    model = fill(config, parameters)
    state = training.init(model, RECIPE)
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state.parameters)}
    assert pointers.isdisjoint(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(model))
    assert_equal(training.model_of(state, config), model)


@pytest.mark.slow
def test_overfits_one_batch_and_then_says_its_labels(config):
    """Three tunes of notes, a label each, at all look-aheads."""
    plain = lambda part: dataclasses.replace(part, dropout=0.0)
    encoder = dataclasses.replace(config.encoder, width=32, feedforward_width=64, dropout=0.0, attention_dropout=0.0)
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
    state, losses = training.init(Transducer(config, rngs=nnx.Rngs(0)), recipe), []
    for _ in range(220):
        state, metrics = training.train_step_jit(state, batch, config, recipe)
        losses.append(float(metrics.loss))
    assert np.mean(losses[40:50]) < 0.2 * losses[0] and max(losses[-20:]) < 0.01 * losses[0], losses[::20]
    trained = training.model_of(state, config)
    constants = streaming.prepare(trained)
    for lookahead in config.encoder.lookaheads:
        segment = Segment(batch.samples, batch.sample_lengths, jnp.ones(3, bool), jnp.zeros(3, bool))
        begin = streaming.init_state(trained, constants, 3)
        _, emission = step_jit(trained, constants, begin, segment, lookahead)
        assert emission.length.tolist() == [3, 3, 3] and (np.asarray(emission.labels)[:, :3] == labels).all()
