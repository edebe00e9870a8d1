"""Settings and models that all tests share."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from nemojax.config import PRESETS, ModelConfig
from nemojax.transducer import Transducer

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


def random_model(config: ModelConfig, seed: int = 0, blank_bias: float = 0.0) -> Transducer:
    """Random weights with every bias and scale off its initial value, so that none can be forgotten."""
    model = Transducer(config, rngs=nnx.Rngs(seed))
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    model = jax.tree.unflatten(structure, noisy)
    embedding = model.prediction.embedding
    model.prediction.embedding = nnx.Param(embedding[...].at[config.blank].set(0.0))
    output = model.joint.output
    output.kernel = nnx.Param(4.0 * output.kernel[...])
    output.bias = nnx.Param(output.bias[...].at[config.blank].add(blank_bias))
    return model


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return PRESETS["tiny"]


@pytest.fixture(scope="session")
def family_config(tiny_config) -> ModelConfig:
    """The shape of the 114M models: 80 mels, biases, input scaling, one LSTM layer; a shorter left context."""
    return dataclasses.replace(
        tiny_config,
        features=dataclasses.replace(tiny_config.features, mel_bins=80),
        encoder=dataclasses.replace(
            tiny_config.encoder, use_bias=True, scale_input=True, left_context_frames=28, lookaheads=(6, 0)
        ),
        prediction=dataclasses.replace(tiny_config.prediction, layers=1),
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config) -> Transducer:
    return random_model(tiny_config, blank_bias=8.0)


@pytest.fixture(scope="session")
def family_model(family_config) -> Transducer:
    return random_model(family_config, seed=7, blank_bias=8.0)


@pytest.fixture(scope="session")
def speech():
    """Something like speech: voiced glides with pauses, [N] float32 at 16 kHz, 6.4 s."""
    seconds = jnp.arange(int(6.4 * 16_000)) / 16_000
    pitch_hz = 140 + 60 * jnp.sin(2.1 * seconds)
    phase = 2 * jnp.pi * jnp.cumsum(pitch_hz) / 16_000
    voiced = sum(jnp.sin(k * phase) / k for k in range(1, 12)) * (jnp.sin(5.3 * seconds) > -0.4)
    return 0.1 * voiced + 0.003 * jax.random.normal(jax.random.key(3), seconds.shape)
