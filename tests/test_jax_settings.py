"""The settings of jax that a user's program may have change no label, and no step of training."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from nemojax.decoding.beam import Beam
from nemojax.model.transducer import Transducer
from nemojax.recognition.recognizer import Recognizer, load
from nemojax.serving.engine import Engine
from nemojax.training.forward import Batch
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init
from nemojax.training.step import train_step, train_step_jit

SETTINGS = {"jax_enable_x64": True, "jax_transfer_guard": "disallow", "jax_numpy_dtype_promotion": "strict"}
RECIPE = TrainingConfig(dtype="float32", ctc_weight=0.1, average_decay=0.9, accumulation=2, learning_rate=1.0)
LOOKAHEAD = 1


@contextlib.contextmanager
def jax_settings(values: dict[str, Any]) -> Iterator[None]:
    """Changes the settings in all threads, as a user's program does, and restores them."""
    before = {name: getattr(jax.config, name) for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def stream_labels(recognizer: Recognizer, speech: np.ndarray) -> tuple[int, ...]:
    stream = recognizer.stream(LOOKAHEAD)
    for begin in range(0, len(speech), 5000):
        stream.push(speech[begin : begin + 5000])
    return stream.finish().tokens


def engine_labels(recognizer: Recognizer, speech: np.ndarray) -> tuple[int, ...]:
    async def serve() -> tuple[int, ...]:
        async with Engine(recognizer, LOOKAHEAD, slots=(1, 2)) as engine:
            stream, other = engine.open(), engine.open()
            await stream.push(speech[:8000])
            await other.push(speech[:8000])
            other.close()
            await stream.push(speech[8000:])
            return (await stream.finish()).tokens

    return asyncio.run(serve())


def all_labels(directory: Any, speech: np.ndarray, **options: Any) -> dict[str, Any]:
    """Returns the labels of one recording from every driver, of a model that is loaded anew."""
    speech, recognizer = speech[:60_000], load(directory, **options)
    several = recognizer.transcribe([speech, speech[:9000], speech[:0], speech[:20_000]], LOOKAHEAD, batch_size=2)
    return {
        "offline": [transcript.tokens for transcript in several],
        "stream": stream_labels(recognizer, speech),
        "engine": engine_labels(recognizer, speech),
    }


@pytest.fixture(scope="module")
def wanted(checkpoint_directory, speech):
    labels = all_labels(checkpoint_directory, speech)
    assert labels["offline"][0] == labels["stream"] == labels["engine"] and len(labels["stream"]) > 5
    return labels


def test_labels(checkpoint_directory, speech, wanted):
    with jax_settings(SETTINGS):
        assert all_labels(checkpoint_directory, speech) == wanted


def test_labels_of_a_beam(checkpoint_directory, speech):
    labels = lambda: stream_labels(load(checkpoint_directory, search=Beam(2)), speech[:30_000])
    wanted = labels()
    with jax_settings(SETTINGS):
        assert labels() == wanted and len(wanted) > 1


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", SETTINGS)
def test_labels_under_each_setting_and_in_each_type(checkpoint_directory, speech, name, dtype):
    wanted = all_labels(checkpoint_directory, speech, dtype=dtype, reset_prediction_after_s=0.4)
    with jax_settings({name: SETTINGS[name]}):
        assert all_labels(checkpoint_directory, speech, dtype=dtype, reset_prediction_after_s=0.4) == wanted


def batch_of(model: Transducer) -> Batch:
    """Makes a batch of three utterances and a filler row."""
    config, rng = model.config, np.random.default_rng(0)
    samples = 6 * config.frame_samples
    lengths = np.array([samples, 5000, 3000, 0], np.int32)
    return Batch(
        (0.1 * rng.standard_normal((4, samples))).astype(np.float32),
        lengths,
        rng.integers(1, config.vocabulary, (4, 3)).astype(np.int32),
        np.array([3, 2, 1, 0], np.int32),
    )


def train(model: Transducer) -> tuple[Any, Any]:
    """Returns the numbers of two steps of training, and the state after them."""
    state, numbers = init(model, RECIPE), []
    for _ in range(2):
        state, metrics = train_step_jit(state, jax.device_put(batch_of(model)), config=model.config, recipe=RECIPE)
        numbers.append(jax.device_get(metrics))
    return numbers, jax.device_get(state)


def test_types_of_a_training_step(tiny_model):
    with jax_settings(SETTINGS):
        state = jax.eval_shape(partial(init, recipe=RECIPE), tiny_model)
        after, _ = jax.eval_shape(
            partial(train_step, config=tiny_model.config, recipe=RECIPE), state, batch_of(tiny_model)
        )
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
    assert {x.dtype.name for x in jax.tree.leaves(after)} == {"float32", "int32", "uint32"}


@pytest.mark.slow
def test_training(tiny_model):
    wanted = train(tiny_model)
    with jax_settings(SETTINGS):
        found = train(tiny_model)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, wanted)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), found, wanted)
