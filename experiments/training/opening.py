"""What a training run prints before its first step: devices, parameters, data and batches."""

import math

import jax

from experiments.training.presets import Experiment
from nemojax.data.plan import Plan
from nemojax.training.state import TrainState, partition

SECONDS_IN_AN_HOUR = 3600


def opening(experiment: Experiment, state: TrainState, plan: Plan, mesh: "jax.sharding.Mesh | None") -> list[str]:
    """Returns the lines. `state` may be abstract."""
    recipe = experiment.training
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    spread = "" if mesh is None else ", mesh " + " x ".join(f"{name}={size}" for name, size in mesh.shape.items())
    trained, frozen = partition(state.parameters, recipe.frozen, recipe.train_only)
    sizes = [sum(math.prod(value.shape) for value in part.values()) for part in (trained, frozen)]
    steps = plan.first_step(1)
    shapes = ", ".join(f"{bucket.batch} x {bucket.frames}" for bucket in plan.buckets)
    step = int(state.step) if not isinstance(state.step, jax.ShapeDtypeStruct) else 0
    begun = [f"resumes after step {step:,}"] if step else []
    return [
        f"devices: {len(devices)} x {', '.join(kinds)}, {jax.process_count()} processes{spread}",
        f"parameters: {sizes[0]:,} trained, {sizes[1]:,} frozen; products in {recipe.dtype}",
        f"batches: {shapes} (rows x frames of 80 ms), in {recipe.accumulation} parts",
        f"data: {plan.corpus.hours:.2f} h, {steps:,} steps in an epoch",
        f"steps: {experiment.steps:,}, {experiment.steps / steps:.1f} epochs{''.join(f'; {text}' for text in begun)}",
    ]
