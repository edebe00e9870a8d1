"""A small model and a batch, shared by the tests of training."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax.model.parameters import named_parameters
from nemojax.training.forward import Batch
from nemojax.training.recipe import TrainingConfig
from nemojax.training.step import value_and_gradient
from tests.conftest import random_model

FRAMES = 28  # encoder frames of a batch: whole chunks at every look-ahead


@pytest.fixture(scope="session")
def config(tiny_config):
    return dataclasses.replace(
        tiny_config,
        features=dataclasses.replace(tiny_config.features, mel_bins=32),
        encoder=dataclasses.replace(tiny_config.encoder, layers=2, width=16, feedforward_width=32),
        vocabulary=12,
    )


@pytest.fixture(scope="session")
def parameters(config):
    return dict(named_parameters(random_model(config, seed=2)))


@pytest.fixture(scope="session")
def batch(config, speech):
    """Three utterances of different lengths, one without labels, and filler."""
    lengths = [FRAMES * 1280, 20_000, 9_999, 0]
    samples = np.zeros((4, FRAMES * 1280), np.float32)
    for row, n in enumerate(lengths[:3]):
        piece = np.asarray(speech)[7000 * row :][: n - config.history_samples]
        samples[row, config.history_samples :][: len(piece)] = piece
    labels = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [0] * 5, [0] * 5], np.int32)
    return Batch(*map(jnp.asarray, (samples, np.array(lengths, np.int32), labels, np.array([5, 3, 0, 0], np.int32))))


@pytest.fixture(scope="session")
def plain(config):
    """value_and_gradient(parameters, batch, lookahead, key) with the RNN-T loss in float32"""
    return jax.jit(partial(value_and_gradient, config=config, recipe=TrainingConfig(dtype="float32", fastemit=0.0)))
