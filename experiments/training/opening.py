"""What a run says at its start: devices, parameters, data, and where it begins."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.training.presets import Experiment
from nemojax.audio.source import MODEL_RATE_HZ
from nemojax.config import ModelConfig
from nemojax.data.plan import Plan
from nemojax.training.recipe import TrainingConfig, peak_rate
from nemojax.training.state import partition


def opening(
    experiment: Experiment,
    config: ModelConfig,
    plan: Plan,
    parameters: Mapping[str, Any],
    mesh: Mesh | None,
) -> list[str]:
    """Returns lines about a run.

    Args:
      parameters: arrays or their shapes, by path; adapters of LoRA are among them.
    """
    return [
        _devices(mesh),
        _parameters(parameters, experiment.training),
        _audio(experiment, plan),
        _batches(experiment, plan),
        _rates(experiment.training, config),
    ]


def count(number: float) -> str:
    """Returns a number in millions or thousands."""
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number / 1e3:.1f}k" if number >= 1e3 else f"{number:.0f}"


def plural(number: int, name: str) -> str:
    """Returns a number of things, such as "1 step" or "2 steps"."""
    return f"{number} {name}" + ("" if number == 1 else "s")


def _devices(mesh: Mesh | None) -> str:
    devices, processes = jax.devices(), jax.process_count()
    spread = "" if mesh is None else ", mesh " + ", ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    of = "" if processes == 1 else f" of {processes} processes"
    return f"devices: {len(devices)} x {devices[0].device_kind} ({devices[0].platform}){of}{spread}"


def _parameters(parameters: Mapping[str, Any], recipe: TrainingConfig) -> str:
    trained, frozen = (sum(x.size for x in part.values()) for part in partition(parameters, recipe))
    products = f"products in {recipe.dtype}, weights in float32"
    return f"parameters: {count(trained)} trained, {count(frozen)} frozen; {products}"


def _audio(experiment: Experiment, plan: Plan) -> str:
    corpus, steps = plan.corpus, plan.first_step(1)
    seconds = corpus.samples * corpus.weights / MODEL_RATE_HZ
    replayed = float(seconds[corpus.sources >= len(experiment.train)].sum())
    share = f", {replayed / seconds.sum():.0%} of it replay" if replayed else ""
    epochs = experiment.steps / max(steps, 1)
    return (
        f"audio: {seconds.sum() / 3600:.2f} h an epoch{share}; an epoch has {plural(steps, 'step')}, "
        f"and {experiment.steps} steps are {epochs:.1f} epochs"
    )


def _batches(experiment: Experiment, plan: Plan) -> str:
    frame_s = plan.config.frame_samples / plan.config.features.sample_rate_hz
    frames = [bucket.frames * bucket.batch for bucket in plan.buckets]
    rows = sorted({bucket.batch for bucket in plan.buckets})
    lengths = sorted({round(bucket.frames * frame_s, 1) for bucket in plan.buckets})
    span = lambda values: f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
    parts = experiment.training.accumulation
    return (
        f"batch: {span(rows)} rows of {span(lengths)} s in {plural(len(plan.buckets), 'shape')}, "
        f"{np.mean(frames) * frame_s / 60:.1f} min of audio" + (f", computed in {parts} parts" if parts > 1 else "")
    )


def _rates(recipe: TrainingConfig, config: ModelConfig) -> str:
    peak = peak_rate(recipe, config.encoder.width)
    end = f", falls to {recipe.minimum_learning_rate:g} at step {recipe.decay_steps}" if recipe.decay_steps else ""
    end = end if recipe.schedule == "cosine" else ""
    return f"learning rate: {recipe.schedule}, {peak:.3g} after a warm-up of {recipe.warmup_steps} steps{end}"
