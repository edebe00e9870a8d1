"""Compares what a GPU computes with what the CPU beside it does: encoder frames, labels, and the labels' frames."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gpu import weights
from experiments.gpu.variants import variant
from nemojax import streaming
from nemojax.config import ModelConfig
from nemojax.decoding.state import Emission
from nemojax.kernels.selection import step_options
from nemojax.model.parameters import FrozenModel, fill, freeze, thaw
from nemojax.model.transducer import Transducer
from nemojax.streaming import GREEDY, Constants, Segment, StreamState, init_state, prepare

ROWS = 3  # streams, each of which begins at another place of the recording


class Case(NamedTuple):
    """A computation that is compared."""

    model: str  # "small", or "wide": two layers of the large model's shapes
    place: str  # "gpu" or "cpu"
    dtype: str
    variant: str
    lookahead: int


class Output(NamedTuple):
    """All chunks of the streams, joined."""

    encoded: np.ndarray  # [B, T, D]
    labels: list[list[int]]
    frames: list[list[int]]


def step_with_frames(
    model: Transducer | FrozenModel, constants: Constants, state: StreamState, segment: Segment, lookahead: int
) -> tuple[StreamState, jax.Array, Emission]:
    """Advances streams like `streaming.step`, and returns the encoder frames too."""
    model = thaw(model)
    encoded, mask, after = streaming.encode(model, constants, state, segment, lookahead)
    emission, decoder = GREEDY.decode(model, encoded, mask.sum(1), state.decoder)
    return after._replace(decoder=decoder), encoded, emission


def balanced(config: ModelConfig, samples: np.ndarray, seed: int) -> Transducer:
    """Returns random weights in float32, on the host, whose label rate is near that of speech."""
    arrays = weights.draw(config, seed)
    model = fill(config, arrays)
    encoded = run(Case("wide", "cpu", "float32", "plain", config.encoder.lookaheads[0]), lambda: model, samples).encoded
    predicted = weights.predictions(model, 64, 16, seed)
    arrays |= weights.balance_joint(arrays, encoded.reshape(-1, config.encoder.width), predicted, config.blank)
    arrays["joint.output.bias"][config.blank] = weights.USUAL_BIAS
    return fill(config, arrays)


def run(case: Case, make_model: Callable[[], Transducer], samples: np.ndarray) -> Output:
    """Streams ROWS rotations of a recording through a model on one device.

    Args:
      make_model: returns the model, plain, in float32, on the host.
    """
    model = make_model()
    on_cpu = case.place == "cpu"
    device, config = (jax.devices("cpu") if on_cpu else jax.devices())[0], model.config
    dtype = jnp.dtype(case.dtype)
    model = variant(
        jax.tree.map(lambda x: jax.device_put(np.asarray(x).astype(dtype), device), model),
        "plain" if on_cpu else case.variant,
    )
    options = None if on_cpu else dict(step_options()) or None
    step = jax.jit(step_with_frames, static_argnames="lookahead", compiler_options=options)
    frozen, size = freeze(model), config.chunk_samples(case.lookahead)
    encoded: list[np.ndarray] = []
    labels: list[list[int]] = [[] for _ in range(ROWS)]
    frames: list[list[int]] = [[] for _ in range(ROWS)]
    with jax.default_device(device):
        constants = prepare(frozen)
        state = init_state(frozen, constants, ROWS)
        rotated = np.stack([np.roll(samples, -row * len(samples) // ROWS) for row in range(ROWS)])
        padded = np.pad(rotated, ((0, 0), (config.history_samples, 0)))
        on = np.ones(ROWS, bool)
        for begin in range(0, padded.shape[1] - size + 1, size):
            arrays = (padded[:, begin : begin + size], np.full(ROWS, size, np.int32), on, ~on)
            segment = Segment(*(jax.device_put(array, device) for array in arrays))
            state, chunk, emission = step(frozen, constants, state, segment, lookahead=case.lookahead)
            chunk, emission = jax.device_get((chunk, emission))
            encoded.append(chunk)
            for row in range(ROWS):
                count = emission.length[row]
                labels[row] += emission.labels[row, :count].tolist()
                frames[row] += (emission.frames[row, :count] + begin // config.frame_samples).tolist()
    return Output(np.concatenate(encoded, axis=1), labels, frames)


def relative_error(value: np.ndarray, reference: np.ndarray) -> float | None:
    """Returns the norm of the difference over that of the reference; None where a number is not finite."""
    error = float(np.linalg.norm(value - reference) / np.linalg.norm(reference))
    return error if np.isfinite(error) else None


def compare(output: Output, reference: Output) -> dict[str, Any]:
    """Returns a row: the error of encoder frames, and the streams with identical labels at identical frames."""
    streams = list(zip(output.labels, output.frames, strict=True))
    expected = list(zip(reference.labels, reference.frames, strict=True))
    return {
        "frames": int(output.encoded.shape[0] * output.encoded.shape[1]),
        "relative_error": relative_error(output.encoded, reference.encoded),
        "labels": sum(map(len, reference.labels)),
        "labels_found": sum(map(len, output.labels)),
        "streams_identical": sum(a == b for a, b in zip(streams, expected, strict=True)),
        "streams": len(streams),
    }


def cases(dry: bool) -> list[Case]:
    """Returns all computations; each reference on the CPU comes before those that are compared with it.

    The small model is not fused: its heads are 36 wide, and the kernel needs a power of two.
    """
    cases: list[Case] = []
    lookaheads = (1,) if dry else (0, 13)
    dtypes = ("float32", "bfloat16")
    for model in ("wide", "small"):
        for lookahead in lookaheads:
            cases += [Case(model, "cpu", dtype, "plain", lookahead) for dtype in dtypes]
            names = ("plain", "fused") if model == "wide" else ("plain",)
            cases += [Case(model, "gpu", dtype, name, lookahead) for dtype in dtypes for name in names]
            if model == "wide":
                cases.append(Case(model, "gpu", "bfloat16", "narrow", lookahead))
    return cases


def references(case: Case) -> list[Case]:
    """Returns the cases that a case is compared with: on the CPU, in float32 and in its own type."""
    on_cpu = [
        case._replace(place="cpu", dtype=dtype, variant="plain") for dtype in dict.fromkeys(("float32", case.dtype))
    ]
    return [reference for reference in on_cpu if reference != case]


def jobs(
    dry: bool, models: Mapping[str, Callable[[], Transducer]], samples: np.ndarray
) -> dict[Case, Callable[[], Output]]:
    """Returns a call for each case."""
    return {case: partial(run, case, models[case.model], samples) for case in cases(dry)}
