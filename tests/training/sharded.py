"""Steps of training as a program of its own, for tests that need other devices than their own process has.

python -m tests.training.sharded parts             checks a placement's parts on 8 devices, without a model
python -m tests.training.sharded devices           compares meshes with one device
python -m tests.training.sharded process I N PORT  process I of N prints its metrics
"""

import dataclasses
import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nemojax.config import PRESETS
from nemojax.training import sharding
from nemojax.training.forward import Batch
from nemojax.training.recipe import TrainingConfig
from nemojax.training.state import init
from nemojax.training.step import train_step
from tests.conftest import random_model

ROWS, FRAMES, STEPS = 16, 14, 2
TINY = PRESETS["tiny"]
CONFIG = dataclasses.replace(
    TINY,
    features=dataclasses.replace(TINY.features, mel_bins=32),
    encoder=dataclasses.replace(TINY.encoder, layers=1, width=16, feedforward_width=32),
    joint=dataclasses.replace(TINY.joint, dropout=0.0),  # the only draw that depends on the mesh
    vocabulary=12,
)
# Adam's first updates are signs of gradients, of rounding errors too: at this learning rate those stay small
RECIPE = TrainingConfig(dtype="float32", accumulation=2, remat=True, learning_rate=5e-4, warmup_steps=10)


def make_batch() -> Batch:
    """Ragged noise; filler at uneven places."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4000, FRAMES * 1280, ROWS).astype(np.int32)
    lengths[[0, 5, 6, 15]] = 0
    samples = 0.1 * rng.standard_normal((ROWS, FRAMES * 1280)).astype(np.float32)
    labels, label_lengths = rng.integers(0, 12, (ROWS, 4)), rng.integers(0, 5, ROWS)
    return Batch(samples, lengths, labels.astype(np.int32), label_lengths.astype(np.int32))


def run(step, state, batch):
    """The state after the first step, and the metrics of each."""
    history, states = [], []
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        history.append(jax.device_get(metrics))
        states.append(jax.device_get(state))
    return states[0], history


def on_mesh(mesh, state, batch):
    shardings = sharding.state_shardings(state, mesh)
    placed = sharding.place_state(state, shardings)
    step = sharding.sharded_step(mesh, shardings, CONFIG, RECIPE)
    spread = placed.parameters["encoder.blocks.0.feedforward1.linear1.kernel"].addressable_shards[0].data.shape
    return run(step, placed, sharding.place_batch(batch, mesh)), spread


def compare_meshes() -> None:
    state, batch = init(random_model(CONFIG, seed=3), RECIPE), make_batch()
    one = jax.jit(partial(train_step, config=CONFIG, recipe=RECIPE))
    wanted = run(one, state, jax.tree.map(jnp.asarray, batch))

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1e-30, np.abs(b[np.isfinite(b)]).max(initial=0)))

    for shape in ((8, 1), (4, 2), (1, 8)):
        mesh = sharding.make_mesh(*shape)
        got, spread = on_mesh(mesh, state, batch)
        jax.tree.map(close, got, wanted)
        assert spread == (16, 32 // shape[1])
    print("equal")


def check_parts() -> None:
    """Rows stay on their device with a draw of their own; parameters come whole, gradients go back to their shards."""
    batch = make_batch()
    for shape in ((8, 1), (4, 2), (1, 8)):
        mesh = sharding.make_mesh(*shape)
        placed = sharding.place_batch(batch, mesh)
        jax.tree.map(np.testing.assert_array_equal, placed, batch)
        assert all(
            len(array.addressable_shards) == 8 and array.addressable_shards[0].data.shape[0] == 2 for array in placed
        )
        placement = sharding.placement(mesh)
        shapes = []

        def rows(inputs, shared, key, shapes=shapes):
            shapes.append(inputs.shape)
            draw = 0 if key is None else jax.random.uniform(key, inputs.shape[:1])
            return inputs[:, 0] * shared + draw

        call = jax.jit(lambda x, shared, key, rows=rows, placement=placement: placement.by_rows(rows)(x, shared, key))
        plain = call(placed.samples, jnp.float32(2), None)
        np.testing.assert_allclose(plain, 2 * batch.samples[:, 0], rtol=1e-6)
        drawn = np.asarray(call(placed.samples, jnp.float32(2), jax.random.key(0))) - np.asarray(plain)
        assert len(np.unique(drawn.round(5))) == ROWS, "devices must not draw the same"
        assert set(shapes) == {(2, FRAMES * 1280)}, "each device must compute its own rows"

        kernel = np.arange(16 * 32, dtype=np.float32).reshape(16, 32)
        spec = sharding.parameter_spec("a.kernel")
        parameters = {"a.kernel": jax.device_put(kernel, jax.sharding.NamedSharding(mesh, spec))}

        @jax.jit
        def slope(parameters, x, placement=placement):
            def loss(parameters):
                whole = placement.gather(parameters)["a.kernel"]
                return placement.by_rows(lambda x, w, key: (x[:, :16] @ w).sum(1) ** 2)(x, whole, None).sum()

            return jax.value_and_grad(loss)(parameters)

        value, gradient = slope(parameters, placed.samples)
        x = batch.samples[:, :16].astype(np.float64)
        outputs = (x @ kernel).sum(1)
        np.testing.assert_allclose(value, (outputs**2).sum(), rtol=1e-4)
        wanted = np.repeat((2 * outputs @ x)[:, None], 32, axis=1)
        np.testing.assert_allclose(gradient["a.kernel"], wanted, rtol=1e-4)
        assert gradient["a.kernel"].sharding.spec == spec
    print("parts")


def main(mode: str, *arguments: str) -> None:
    jax.config.update("jax_default_matmul_precision", "highest")
    if mode in ("parts", "devices"):
        return check_parts() if mode == "parts" else compare_meshes()
    index, count, port = map(int, arguments)
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=count, process_id=index)
    state, batch = init(random_model(CONFIG, seed=3), RECIPE), make_batch()
    share = slice(index * ROWS // count, (index + 1) * ROWS // count)
    mesh = sharding.make_mesh(1, count)
    shardings = sharding.state_shardings(state, mesh)
    placed = sharding.place_state(state, shardings)
    step = sharding.sharded_step(mesh, shardings, CONFIG, RECIPE)
    rows = sharding.place_batch(Batch(*(x[share] for x in batch)), mesh)
    history = []
    for _ in range(STEPS):
        placed, metrics = step(placed, rows)
        history.append([float(metrics.loss), float(metrics.gradient_norm), int(metrics.counts.rows)])
    print(json.dumps(history))


if __name__ == "__main__":
    main(*sys.argv[1:])
