"""Whether a GPU computes what the CPU beside it does: encoder frames, labels and the frames of labels."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import weights
from experiments.gpu.live import gpu_options
from experiments.gpu.variants import variant
from nemojax import checkpoint, streaming
from nemojax.config import ModelConfig
from nemojax.decoding import greedy
from nemojax.streaming import Segment, init_state, prepare
from nemojax.transducer import Transducer, freeze, thaw

ROWS = 3  # streams, each of which begins at another place of the recording


class Case(NamedTuple):
    model: str  # "small", or "wide": two layers of the large model's shapes
    place: str  # "gpu" or "cpu"
    dtype: str
    variant: str
    lookahead: int


class Output(NamedTuple):
    """All of a recording's chunks, joined."""

    encoded: np.ndarray  # [B, T, D]
    labels: list[list[int]]
    frames: list[list[int]]


def probe(model, constants, state, segment: Segment, lookahead: int):
    """A step that also gives the encoder's frames."""
    model = thaw(model)
    encoded, mask, after = streaming.encode(model, constants, state, segment, lookahead)
    window = min(streaming.WINDOW_FRAMES, encoded.shape[1])
    emission, prediction = greedy.greedy(model, encoded, mask.sum(1), state.prediction, window)
    return after._replace(prediction=prediction), encoded, emission


def balanced(config: ModelConfig, samples: np.ndarray, seed: int) -> Transducer:
    """Random weights in float32, on the host, that emit labels about as often as speech has them."""
    arrays = weights.draw(config, seed)
    model = checkpoint.fill(config, arrays)
    encoded = run(Case("wide", "cpu", "float32", "plain", config.encoder.lookaheads[0]), lambda: model, samples).encoded
    predicted = weights.predictions(model, 64, 16, seed)
    arrays |= weights.balance_joint(arrays, encoded.reshape(-1, config.encoder.width), predicted, config.blank)
    arrays["joint.output.bias"][config.blank] = weights.USUAL_BIAS
    return checkpoint.fill(config, arrays)


def run(case: Case, make: Callable[[], Transducer], samples: np.ndarray) -> Output:
    """Streams ROWS pieces of a recording through a model on one device.

    Args:
      make: gives the model, plain, in float32, on the host.
    """
    model = make()
    device = jax.devices("cpu")[0] if case.place == "cpu" else jax.devices()[0]
    config, dtype = model.config, jnp.dtype(case.dtype)
    if case.place == "gpu":
        model = variant(jax.tree.map(lambda x: jnp.asarray(np.asarray(x).astype(dtype)), model), case.variant)
        options = gpu_options()
    else:
        model = jax.tree.map(lambda x: jax.device_put(np.asarray(x).astype(dtype), device), model)
        options = None
    step = jax.jit(probe, static_argnames="lookahead", compiler_options=options)
    frozen, size = freeze(model), config.chunk_samples(case.lookahead)
    with jax.default_device(device):
        constants = prepare(frozen)
        state = init_state(frozen, constants, ROWS)
        rolled = np.stack([np.roll(samples, -row * len(samples) // ROWS) for row in range(ROWS)])
        padded = np.pad(rolled, ((0, 0), (config.history_samples, 0)))
        on = np.ones(ROWS, bool)
        encoded: list[np.ndarray] = []
        labels: list[list[int]] = [[] for _ in range(ROWS)]
        frames: list[list[int]] = [[] for _ in range(ROWS)]
        for begin in range(0, padded.shape[1] - size + 1, size):
            arrays = (padded[:, begin : begin + size], np.full(ROWS, size, np.int32), on, ~on)
            segment = Segment(*(jax.device_put(array, device) for array in arrays))
            if case.place == "gpu":
                segment = Segment(*map(jnp.asarray, arrays))
            state, new, emission = step(frozen, constants, state, segment, lookahead=case.lookahead)
            new, emission = jax.device_get((new, emission))
            encoded.append(new)
            for row in range(ROWS):
                count = emission.length[row]
                labels[row] += emission.labels[row, :count].tolist()
                frames[row] += (emission.frames[row, :count] + begin // config.frame_samples).tolist()
    return Output(np.concatenate(encoded, axis=1), labels, frames)


def relative_error(found: np.ndarray, reference: np.ndarray) -> float:
    """The norm of the difference over that of the reference; infinite where anything is not finite."""
    error = float(np.linalg.norm(found - reference) / np.linalg.norm(reference))
    return error if np.isfinite(error) else float("inf")


def compared(found: Output, reference: Output) -> dict[str, Any]:
    pairs = list(zip(found.labels, reference.labels, strict=True))
    moments = list(zip(found.frames, reference.frames, strict=True))
    return {
        "frames": int(found.encoded.shape[0] * found.encoded.shape[1]),
        "relative_error": relative_error(found.encoded, reference.encoded),
        "labels": sum(len(labels) for labels in reference.labels),
        "labels_found": sum(len(labels) for labels in found.labels),
        "streams_identical": sum(a == b and f == g for (a, b), (f, g) in zip(pairs, moments, strict=True)),
        "streams": len(pairs),
    }


def cases(dry: bool) -> list[Case]:
    """The references on the CPU come first. The small model's heads are 36 wide, which the kernel can't take."""
    found, lookaheads = [], (1,) if dry else (0, 13)
    for model in ("wide", "small"):
        for lookahead in lookaheads:
            found += [Case(model, "cpu", dtype, "plain", lookahead) for dtype in ("float32", "bfloat16")]
            names = ("plain", "fused") if model == "wide" else ("plain",)
            found += [Case(model, "gpu", dtype, name, lookahead) for dtype in ("float32", "bfloat16") for name in names]
            if model == "wide":
                found.append(Case(model, "gpu", "bfloat16", "narrow", lookahead))
    return [*found, Case("small", "gpu", "float32", "fused", lookaheads[-1])]


def jobs(
    dry: bool, models: dict[str, Callable[[], Transducer]], samples: np.ndarray
) -> dict[Case, Callable[[], Output]]:
    return {case: partial(run, case, models[case.model], samples) for case in cases(dry)}
