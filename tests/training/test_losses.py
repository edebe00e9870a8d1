"""The forward pass and the losses: what they draw, what reaches them, and a loss of one's own."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import streaming
from nemojax.errors import ConfigError
from nemojax.model.parameters import fill
from nemojax.streaming import Segment
from nemojax.training import losses
from nemojax.training.augment import SpecAugmentConfig
from nemojax.training.ctc import ctc_losses
from nemojax.training.forward import Keys, forward
from nemojax.training.losses import Loss, compute_losses, output_layer, standard_losses
from nemojax.training.recipe import TrainingConfig
from nemojax.training.rnnt_loss import rnnt_loss
from nemojax.training.step import value_and_gradient

PLAIN = TrainingConfig(dtype="float32", fastemit=0.0)
AUGMENTED = TrainingConfig(dtype="float32", ctc_weight=0.5, dither=1e-2, spec_augment=SpecAugmentConfig(value=-50.0))
KEYS = Keys(*jax.random.split(jax.random.key(0), 5))


@pytest.fixture(scope="module")
def draw(config, parameters, batch):
    """The outputs and losses for given keys of the five parts that draw, in one compilation."""

    @jax.jit
    def draw(keys):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Keys, "split", classmethod(lambda cls, key: keys))
            model = fill(config, parameters)
            outputs = forward(model, batch, 6, keys.dither, AUGMENTED, blocks=(0, 1))
            return outputs, compute_losses(model, batch, 6, keys.dither, AUGMENTED)

    return draw


@pytest.fixture(scope="module")
def drawn(draw):
    return draw(KEYS)


PARTS = {
    "dither": {"log_mel", "encoded", "rnnt", "ctc"},
    "masks": {"log_mel", "encoded", "rnnt", "ctc"},
    "encoder": {"encoded", "rnnt", "ctc"},
    "prediction": {"predicted", "rnnt"},
    "losses": {"rnnt"},
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_draws_with_its_own_key(draw, drawn, part):
    """Dither, SpecAugment, dropout in the encoder, in the prediction network and in the joint network."""
    again = draw(KEYS._replace(**{part: jax.random.key(1)}))
    changed = set()
    for name in ("log_mel", "encoded", "predicted"):
        if not np.array_equal(getattr(drawn[0], name), getattr(again[0], name)):
            changed.add(name)
    changed |= {name for name in ("rnnt", "ctc") if drawn[1].by_name[name] != again[1].by_name[name]}
    assert changed == PARTS[part]


def test_keys_are_all_different():
    keys = Keys.split(jax.random.key(0))
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys}) == 5
    assert Keys.split(None) == (None,) * 5


def test_masks_are_over_valid_frames_and_dither_is_under_all(batch, draw, drawn):
    other = draw(KEYS._replace(dither=jax.random.key(1)))[0].log_mel
    log_mel = np.asarray(drawn[0].log_mel)
    masked = log_mel == -50.0
    assert 0.05 < masked[0].mean() < 0.9
    band = masked.all((0, 1))  # a frequency mask is over all rows' frames or differs by row, a time mask over all bins
    assert (np.asarray(other) == -50.0)[masked].all() and not band.all()
    valid = ~masked[0] & (np.arange(log_mel.shape[1]) > 7)[:, None]
    assert (log_mel[0] != np.asarray(other)[0])[valid].mean() > 0.99


def test_outputs_are_the_encoders_and_the_prediction_networks(config, parameters, batch, drawn):
    """Blocks are those asked for, zero where there is no frame; the last one is the encoder's output."""
    outputs = drawn[0]
    assert set(outputs.blocks) == {0, 1}
    frames = outputs.lattice.frame_lengths
    assert [int(n) for n in frames] == [
        *(config.encoder_frames(int(n) - config.history_samples) for n in batch.sample_lengths[:3]),
        0,
    ]
    valid = np.arange(28)[None] < np.asarray(frames)[:, None]
    for block in outputs.blocks.values():
        assert (np.asarray(block).any(-1) == valid).all()
    np.testing.assert_array_equal(outputs.blocks[1], outputs.encoded)
    assert not np.allclose(outputs.blocks[0], outputs.encoded, atol=0.1)
    model = fill(config, parameters)
    np.testing.assert_allclose(outputs.joint.encoded, model.joint.encoder(outputs.encoded), atol=1e-5)
    np.testing.assert_allclose(outputs.joint.predicted, model.joint.prediction(outputs.predicted), atol=1e-5)
    np.testing.assert_array_equal(outputs.lattice.labels, batch.labels)
    np.testing.assert_array_equal(outputs.lattice.label_lengths, batch.label_lengths)


def test_each_loss_is_reported_and_the_total_is_their_weighted_sum(drawn):
    values = drawn[1]
    assert set(values.by_name) == {"rnnt", "ctc"} and all(value > 1 for value in values.by_name.values())
    np.testing.assert_allclose(values.total, values.by_name["rnnt"] + 0.5 * values.by_name["ctc"], rtol=1e-6)
    assert [int(n) for n in values.counts] == [3, int(drawn[0].lattice.frame_lengths.sum()), 8]


def test_dropout_in_the_joint_network_is_at_its_own_rate(drawn, config, parameters, batch):
    model, outputs, key = fill(config, parameters), drawn[0], KEYS.losses
    assert config.joint.dropout not in (0, config.encoder.dropout)
    given = *outputs.joint, *output_layer(model), *outputs.lattice
    wanted = rnnt_loss(*given, blank=config.blank, reduction="none", dropout=config.joint.dropout, key=key)
    found = losses.rnnt_rows(model, outputs, batch, key, losses.ONE_DEVICE, fastemit=0.0)
    np.testing.assert_array_equal(found, wanted)


def test_fastemit_scales_the_reported_loss(drawn, config, parameters, batch):
    model = fill(config, parameters)
    outputs = drawn[0]
    rows = [
        losses.rnnt_rows(model, outputs, batch, None, losses.ONE_DEVICE, fastemit=fastemit) for fastemit in (0.0, 0.25)
    ]
    np.testing.assert_allclose(rows[1], 1.25 * rows[0], rtol=1e-6)
    (rnnt,) = standard_losses(dataclasses.replace(PLAIN, fastemit=0.25))
    np.testing.assert_array_equal(rnnt.function(model, outputs, batch, None, losses.ONE_DEVICE), rows[1])


@pytest.mark.parametrize("lookahead", [13, 1])
def test_the_loss_is_that_of_the_streaming_encoder(config, parameters, batch, plain, lookahead):
    model = fill(config, parameters)
    constants = streaming.prepare(model)
    state = streaming.init_state(model, constants, 4)
    segment = Segment(batch.samples, batch.sample_lengths, jnp.ones(4, bool), jnp.zeros(4, bool))
    encoded, mask, _ = jax.jit(streaming.encode, static_argnums=4)(model, constants, state, segment, lookahead)
    predicted = model.joint.prediction(model.prediction.sequence(batch.labels))
    output = output_layer(model)
    lattice = batch.labels, mask.sum(1), batch.label_lengths
    wanted = rnnt_loss(model.joint.encoder(encoded), predicted, *output, *lattice, blank=config.blank)
    values, _ = plain(parameters, batch, jnp.int32(lookahead), None)
    np.testing.assert_allclose(values.total, wanted, rtol=1e-5)
    frames = sum(config.encoder_frames(int(n) - config.history_samples) for n in batch.sample_lengths[:3])
    assert [int(n) for n in values.counts] == [3, frames, 8]


# A loss of one's own, from outside: CTC on the output of the first block.


def intermediate_ctc(model, forward, batch, key, placement):
    def rows(inputs, output, key):
        encoded, lattice = inputs
        return ctc_losses(encoded, *output, *lattice, model.config.blank)

    encoded = model.joint.encoder(forward.blocks[0])
    return placement.by_rows(rows)((encoded, forward.lattice), output_layer(model), key)


INTERMEDIATE = Loss("intermediate_ctc", 0.3, intermediate_ctc, blocks=(0,))


def test_auxiliary_losses_train_the_encoder_up_to_their_block(config, parameters, batch, plain):
    """The recipe's CTC loss reaches all of the encoder; one on block 0 nothing above it; neither the predictions."""
    recipe = dataclasses.replace(PLAIN, ctc_weight=0.5)
    both = (*standard_losses(recipe), INTERMEDIATE)
    compiled = jax.jit(partial(value_and_gradient, config=config, recipe=recipe, losses=both))
    values, gradient = compiled(parameters, batch, 6, None)
    want, plain_gradient = plain(parameters, batch, jnp.int32(6), None)
    assert set(values.by_name) == {"rnnt", "ctc", "intermediate_ctc"}
    rnnt, ctc, intermediate = (float(values.by_name[name]) for name in ("rnnt", "ctc", "intermediate_ctc"))
    assert rnnt == pytest.approx(float(want.total), rel=1e-5) and ctc > 1 and intermediate > 1 and ctc != intermediate
    np.testing.assert_allclose(values.total, rnnt + 0.5 * ctc + 0.3 * intermediate, rtol=1e-6)
    for name, plain_one in plain_gradient.items():
        same = np.allclose(gradient[name], plain_one, rtol=1e-3, atol=1e-6)
        assert same == name.startswith(("prediction.", "joint.prediction.")), name

    # each alone: its weight scales its gradient, and no block above its own has any
    alone = Loss("alone", 2.0, intermediate_ctc, blocks=(0,))
    value, alone_gradient = jax.jit(partial(value_and_gradient, config=config, recipe=PLAIN, losses=(alone,)))(
        parameters, batch, 6, None
    )
    np.testing.assert_allclose(value.total, 2 * intermediate, rtol=1e-5)
    above = ("prediction.", "joint.prediction.", "encoder.blocks.1.")
    assert {name for name, g in alone_gradient.items() if not np.asarray(g).any()} == {
        name for name in parameters if name.startswith(above)
    }


def test_losses_that_can_not_be(config, parameters, batch):
    model = fill(config, parameters)
    for wrong in ((), (INTERMEDIATE, INTERMEDIATE)):
        with pytest.raises(ConfigError, match="losses with different names"):
            compute_losses(model, batch, 6, None, PLAIN, losses=wrong)
    with pytest.raises(ValueError, match="no encoder block 2; they are 0 to 1"):
        forward(model, batch, 6, None, PLAIN, blocks=(2,))
    with pytest.raises(ValueError, match="whole encoder frames of 1280 samples"):
        forward(model, batch._replace(samples=batch.samples[:, :-1]), 6, None, PLAIN)


def test_standard_losses_follow_the_recipe():
    assert [(loss.name, loss.weight) for loss in standard_losses(PLAIN)] == [("rnnt", 1.0)]
    recipe = dataclasses.replace(PLAIN, ctc_weight=0.5)
    assert [(loss.name, loss.weight) for loss in standard_losses(recipe)] == [("rnnt", 1.0), ("ctc", 0.5)]
    assert standard_losses(recipe) is standard_losses(dataclasses.replace(recipe))  # so a compiled step is found again
