"""A training step of the large model's recipe: its speed and its memory, with and without remat."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu.points import Sizes
from experiments.gpu.programs import Program
from experiments.settings import PRESETS
from nemojax import checkpoint, training
from nemojax.config import ModelConfig
from nemojax.training import Batch, TrainingConfig

STEPS = 4


def recipe(remat: bool) -> TrainingConfig:
    return dataclasses.replace(PRESETS["family"][1].training, remat=remat)


def batch(config: ModelConfig, sizes: Sizes, seed: int) -> Batch:
    """Rows of noise, all equally long, in whole chunks at every look-ahead."""
    rng = np.random.default_rng(seed)
    multiple = int(np.lcm.reduce([config.chunk_samples(lookahead) for lookahead in config.encoder.lookaheads]))
    rate_hz = config.features.sample_rate_hz
    samples = max(1, round(sizes.training_s * rate_hz / multiple)) * multiple
    rows, labels = sizes.training_rows, sizes.training_labels
    return Batch(
        jnp.asarray(rng.standard_normal((rows, samples), np.float32) * 0.05),
        jnp.full(rows, samples, jnp.int32),
        jnp.asarray(rng.integers(0, config.blank, (rows, labels)), jnp.int32),
        jnp.full(rows, labels, jnp.int32),
    )


def lower(config: ModelConfig, sizes: Sizes, seed: int, remat: bool) -> Any:
    abstract = checkpoint.abstract_model(config)
    state = jax.eval_shape(lambda model: training.init(model, recipe(remat)), abstract)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch(config, sizes, seed))
    return training.train_step_jit.lower(state, shapes, config=config, recipe=recipe(remat))


def measure(
    config: ModelConfig, arrays: dict[str, np.ndarray], sizes: Sizes, seed: int, remat: bool, program: Program
) -> dict[str, Any]:
    model = checkpoint.fill(config, {name: jnp.asarray(value) for name, value in arrays.items()})
    state = training.init(model, recipe(remat))
    del model
    rows = batch(config, sizes, seed)
    frames = int(sum(rows.sample_lengths)) // config.frame_samples
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        state, metrics = training.train_step_jit(state, rows, config=config, recipe=recipe(remat))
        loss = float(metrics.loss)
        seconds.append(time.perf_counter() - begin)
    step_s = float(np.median(seconds[1:]))
    memory = program.memory()
    peak = memory["argument_bytes"] + memory["output_bytes"] - memory["alias_bytes"] + memory["temp_bytes"]
    return {
        "remat": remat,
        "rows": rows.samples.shape[0],
        "frames": frames,
        "labels": int(sum(rows.label_lengths)),
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
