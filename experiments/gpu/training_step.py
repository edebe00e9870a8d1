"""A training step of the large model's recipe: its speed and its memory, with and without remat."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu.points import Sizes
from experiments.gpu.programs import Program
from experiments.gpu.weights import Arrays
from experiments.training.presets import PRESETS
from nemojax.config import ModelConfig
from nemojax.model.parameters import abstract_model, fill
from nemojax.training import state as training_state
from nemojax.training.forward import Batch
from nemojax.training.recipe import TrainingConfig
from nemojax.training.step import train_step_jit

STEPS = 4


def recipe(remat: bool) -> TrainingConfig:
    """Returns the recipe of the released models."""
    return dataclasses.replace(PRESETS["family"][1].training, remat=remat)


def noise_batch(config: ModelConfig, sizes: Sizes, seed: int) -> Batch:
    """Returns rows of noise, equally long, in whole chunks at every look-ahead."""
    rng = np.random.default_rng(seed)
    multiple = int(np.lcm.reduce([config.chunk_samples(lookahead) for lookahead in config.encoder.lookaheads]))
    samples = max(1, round(sizes.training_s * config.features.sample_rate_hz / multiple)) * multiple
    rows, labels = sizes.training_rows, sizes.training_labels
    return Batch(
        jnp.asarray(rng.standard_normal((rows, samples), np.float32) * 0.05),
        jnp.full(rows, samples, jnp.int32),
        jnp.asarray(rng.integers(0, config.blank, (rows, labels)), jnp.int32),
        jnp.full(rows, labels, jnp.int32),
    )


def lower(config: ModelConfig, sizes: Sizes, seed: int, remat: bool) -> Any:
    """Lowers the step."""
    state = jax.eval_shape(lambda model: training_state.init(model, recipe(remat)), abstract_model(config))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), noise_batch(config, sizes, seed))
    return train_step_jit.lower(state, shapes, config=config, recipe=recipe(remat))


def measure(
    config: ModelConfig, arrays: Arrays, sizes: Sizes, seed: int, remat: bool, program: Program
) -> dict[str, Any]:
    """Times steps of one batch; the first is not counted, the others give the median."""
    model = fill(config, {name: jnp.asarray(value) for name, value in arrays.items()})
    state = training_state.init(model, recipe(remat))
    del model
    batch = noise_batch(config, sizes, seed)
    frames = int(np.sum(batch.sample_lengths)) // config.frame_samples
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        state, metrics = train_step_jit(state, batch, config=config, recipe=recipe(remat))
        loss = float(metrics.loss)
        seconds.append(time.perf_counter() - begin)
    step_s = float(np.median(seconds[1:]))
    memory = program.memory()
    peak = memory["argument_bytes"] + memory["output_bytes"] - memory["alias_bytes"] + memory["temp_bytes"]
    return {
        "remat": remat,
        "rows": batch.samples.shape[0],
        "frames": frames,
        "labels": int(np.sum(batch.label_lengths)),
        "first_ms": round(1000 * seconds[0], 1),
        "step_ms": round(1000 * step_s, 1),
        "frames_per_s": round(frames / step_s, 1),
        "audio_s_per_s": round(frames / step_s * config.frame_ms / 1000, 1),
        "peak_bytes": peak,
        **memory,
        "compile_s": round(program.compile_s, 1),
        "loss": loss if np.isfinite(loss) else None,
        "skipped": bool(metrics.skipped),
    }
