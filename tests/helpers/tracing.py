"""Values at every seam of nemojax, recorded while the real step function runs.

The names of the seams are those of `experiments.references.traces`, which records the same of the reference models.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from nemojax import streaming
from nemojax.decoding.state import predict_next
from nemojax.model import features
from nemojax.model.attention import Attention
from nemojax.model.conformer import ConformerBlock
from nemojax.model.convolution import ConvolutionModule
from nemojax.model.encoder import Encoder
from nemojax.model.parameters import FrozenModel, freeze, thaw
from nemojax.model.prediction import LSTMState
from nemojax.model.subsampling import Subsampling
from nemojax.model.transducer import Transducer
from nemojax.streaming import Constants, Segment, StreamState

Trace = dict[str, np.ndarray]
Watcher = Callable[[tuple, Any], dict[str, Any]]

LOOPS = ("streaming", "model.encoder", "model.conformer", "model.attention")  # the modules that compute in parts


@contextmanager
def watching(seen: dict[str, Any]) -> Iterator[None]:
    """Records inputs and outputs of layers while the step function is traced."""
    count = dict.fromkeys((Attention, ConvolutionModule, ConformerBlock), 0)

    def watch_steps(kind: type, names: Watcher) -> list[Any]:
        """Watches the step of a layer, and those of the forms of it that have their own."""
        forms = [form for form in (kind, *kind.__subclasses__()) if "step" in vars(form)]
        return [watch(form, "step", names) for form in forms]

    def watch(owner: Any, name: str, names: Watcher) -> Any:
        original = getattr(owner, name)

        def wrapper(*args, **kwargs):
            result = original(*args, **kwargs)
            seen.update(names(args, result))
            return result

        return mock.patch.object(owner, name, wrapper)

    def numbered(kind: type, seam: str) -> Watcher:
        def names(args: tuple, result: Any) -> dict[str, Any]:
            count[kind] += 1
            return {f"block{count[kind] - 1}{seam}": result[0]}

        return names

    block = numbered(ConformerBlock, "")
    with ExitStack() as stack:
        for patch in (
            mock.patch("jax.jit", lambda function: function),  # else the encoder traces one block for all
            # else many rows are computed in a loop, whose values can't leave it
            *(
                mock.patch(f"nemojax.{name}.by_rows", lambda function, count, *trees: function(*trees))
                for name in LOOPS
            ),
            watch(features, "step", lambda args, result: {"log_mel": result[0]}),
            *watch_steps(Subsampling, lambda args, result: {"subsampling": result[0]}),
            *watch_steps(Attention, numbered(Attention, ".attention")),
            *watch_steps(ConvolutionModule, numbered(ConvolutionModule, ".convolution")),
            # the first block's input is what the subsampling gave, scaled
            watch(
                ConformerBlock,
                "step",
                lambda args, result: {"scaled": seen.get("scaled", args[1])} | block(args, result),
            ),
            watch(
                Encoder,
                "step",
                lambda args, result: {"encoder": result[0], "mask.log_mel": args[2], "mask.encoder": result[1]},
            ),
        ):
            stack.enter_context(patch)
        yield


@partial(jax.jit, static_argnames="lookahead")
def _traced_step(model: FrozenModel, constants: Constants, state: StreamState, segment: Segment, lookahead: int):
    seen: dict[str, Any] = {}
    with watching(seen):
        state, emission = streaming.step(model, constants, state, segment, lookahead)
    return state, emission, seen


_segments_of = jax.jit(streaming.segments_of, static_argnums=(2, 3, 4))


class Run(NamedTuple):
    """Values of one recording in `streaming.step`, valid frames only."""

    trace: Trace
    tokens: list[int]
    frames: list[int]
    caches: list[Trace]  # after each step


class Traced:
    """A model with its prepared constants."""

    def __init__(self, model: Transducer | FrozenModel):
        self.config = thaw(model).config
        self.model = model if isinstance(model, FrozenModel) else freeze(model)
        self.constants = streaming.prepare(self.model)

    def run(
        self, recordings: Sequence[np.ndarray], lookahead: int, chunks: int, caches: bool = False, batch: int = 0
    ) -> list[Run]:
        """Recordings side by side, `chunks` chunks at a step, each to its own end.

        `batch` rows at least: fixed, it saves compilations.
        """
        config = self.config
        rows = max(batch, len(recordings))
        length = np.zeros(rows, np.int32)
        samples = np.zeros((rows, max([1, *map(len, recordings)])), np.float32)
        for row, recording in enumerate(recordings):
            samples[row, : len(recording)], length[row] = recording, len(recording)
        segments = jax.device_get(_segments_of(samples, length, lookahead, chunks, config))
        state = streaming.init_state(self.model, self.constants, rows)
        runs = [Run({}, [], [], []) for _ in recordings]
        pieces: list[dict[str, list]] = [{} for _ in recordings]
        for i in range(segments.samples.shape[0]):
            segment = jax.tree.map(lambda array, i=i: array[i], segments)
            state, emission, seen = _traced_step(self.model, self.constants, state, segment, lookahead)
            seen, emission = jax.device_get((seen, emission))
            for row, run in enumerate(runs):
                for name, values in seen.items():
                    if name.startswith("mask"):
                        continue
                    mask = seen["mask.log_mel" if name == "log_mel" else "mask.encoder"][row]
                    pieces[row].setdefault(name, []).append(values[row][mask])
                spoken = int(emission.length[row])
                run.tokens.extend(emission.labels[row, :spoken].tolist())
                run.frames.extend(emission.frames[row, :spoken].tolist())
                if caches:
                    run.caches.append(self._caches(state, row))
        for row, run in enumerate(runs):
            run.trace.update({name: np.concatenate(arrays) for name, arrays in pieces[row].items()})
        return runs

    def _caches(self, state: StreamState, row: int) -> Trace:
        encoder = self.config.encoder
        found = jax.device_get(_newest(state, row, encoder.left_context_frames, encoder.convolution_kernel - 1))
        for i, block in enumerate(state.encoder.blocks):
            for name in (f"block{i}.keys", f"block{i}.values"):
                found[name] = found[name][max(0, len(found[name]) - int(block.attention.length[row])) :]
        return found

    def decoding(self, encoded: np.ndarray, tokens: np.ndarray, looked: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the fields of `experiments.references.traces.Decoding` for given tokens, computed by nemojax."""
        pad = lambda array: np.pad(array, [(0, -len(array) % 512)] + [(0, 0)] * (array.ndim - 1))
        found = _decoding(self.model, pad(encoded), pad(np.asarray(tokens, np.int32)), pad(looked))
        keep = {"projected": len(encoded), "logits": len(looked)}
        return {name: np.asarray(array)[: keep.get(name, len(tokens) + 1)] for name, array in found.items()}


@partial(jax.jit, static_argnames=("left", "context"))
def _newest(state: StreamState, row: int, left: int, context: int) -> dict[str, jax.Array]:
    """Reads a row's caches: the newest `left` keys and values and `context` frames of a convolution, valid or not."""
    one = jax.tree.map(lambda x: x[row][None], state.encoder)
    found = {f"subsampling{i}": stage[0, 0] for i, stage in enumerate(one.subsampling.stages)}
    for i, block in enumerate(one.blocks):
        attention, convolution = block.attention, block.convolution
        for name, ring in (("keys", attention.keys), ("values", attention.values)):
            found[f"block{i}.{name}"] = jnp.swapaxes(ring.read(attention.length, left).frames[0], 0, 1)
        found[f"block{i}.convolution"] = convolution.frames.read(convolution.length, context).frames[0, 0]
    return found


@jax.jit
def _decoding(model: FrozenModel, encoded: jax.Array, tokens: jax.Array, looked: jax.Array) -> dict[str, jax.Array]:
    transducer = thaw(model)

    def predict(lstm: LSTMState, label: jax.Array):
        output, _ = transducer.prediction.step(label[None], lstm)
        state = predict_next(transducer, label[None], lstm)
        stacked = lambda layers: jnp.stack([layer[0] for layer in layers])
        return state.lstm, (output[0], stacked(state.lstm.hidden), stacked(state.lstm.cell), state.output[0])

    labels = jnp.concatenate([jnp.full(1, transducer.config.blank), tokens])
    zeros = transducer.prediction.initial_cache(1)
    _, (outputs, hidden, cell, predictions) = jax.lax.scan(predict, zeros, labels)
    projected = transducer.joint.encoder(encoded)
    logits = transducer.joint.logits(projected[looked[:, 0]], predictions[looked[:, 1]])
    return {
        "projected": projected,
        "outputs": outputs,
        "hidden": hidden,
        "cell": cell,
        "predictions": predictions,
        "logits": logits,
    }
