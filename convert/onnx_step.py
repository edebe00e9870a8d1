"""Exports the streaming step as one ONNX graph, to run in onnxruntime. The directory that is written:

step.onnx          the step at one look-ahead, for a fixed number of streams: features, encoder and greedy search
step.weights       the parameters, which step.onnx refers to
manifest.json      inputs and outputs of the step, chunk size, initial state, how to run it
tokenizer.model    the SentencePiece model
run.py             an example that reads the directory with onnxruntime and numpy alone

jax2onnx translates the plain parts of the model: native and Pallas kernels are tied to one platform. The search is a
Loop in the graph. Weights and results are in float32. The small model takes a minute to translate.
"""

import contextlib
import importlib
import json
import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nemojax
from convert import onnx_example
from convert.errors import ConvertError, reason
from convert.output import check_new, new_directory
from convert.source import Native, read_native
from convert.stablehlo import EMISSION, EXAMPLE, MANIFEST, STEP_BYTES, TOKENIZER, initial_value, named_arrays
from nemojax.config import ModelConfig
from nemojax.streaming import Segment, init_state, prepare, step

GRAPH, WEIGHTS = "step.onnx", "step.weights"
FORMAT_VERSION = 1
OPSET = 23

USAGE = (
    "Inputs of the graph: the arrays of `state` and of `segment`, by name. Outputs: the array `next` of each state, "
    "which is its input at the next call, and those of `emission`.",
    "One call takes the next `chunk_samples` samples of every stream; the streams are independent rows.",
    "A stream's state starts as `initial`, repeated along the first axis. `reset` does the same during a call: a row "
    "with `reset` true returns to the initial state before its chunk is processed.",
    "A stream's first chunk begins with `history_samples` samples of any value, before those of the recording.",
    "`length` counts the valid samples of the chunk, history included. Less than `chunk_samples` ends the recording; "
    "pad the chunk with any value. A recording that ends with a whole chunk needs no further call.",
    "A row with `active` false keeps its state and emits nothing.",
    "Of each row of the emission, only the first `emission.length` labels are valid. `emission.frames` are encoder "
    "frames from the start of the recording, `emission.log_probs` the natural logarithm of each label's probability.",
    "Labels are pieces of `tokenizer`, a SentencePiece model; `blank` fills the rest of a row.",
)


def write(directory: str | Path, path: str | Path, lookahead: int | None = None, streams: int = 1) -> ModelConfig:
    """Writes the streaming step of a native checkpoint as a directory with an ONNX graph.

    Args:
      lookahead: in encoder frames; None means the first that the model was trained with.
      streams: rows of the graph.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConfigError: the look-ahead does not fit the model.
      ConvertError: jax2onnx is not installed or can't translate the step, `path` exists or can't be written, the
        weights are in int8, or there are no streams.
    """
    onnx_ir = _imported("onnx_ir")
    _imported("jax2onnx")
    if streams < 1:
        raise ConvertError(f"streams is {streams}; a step needs at least 1")
    check_new(Path(path))
    native = read_native(directory, jnp.dtype("float32"))
    config = native.config
    lookahead = config.encoder.lookaheads[0] if lookahead is None else lookahead
    config.chunk_frames(lookahead)  # raises ConfigError
    constants = prepare(native.model)
    with new_directory(path, STEP_BYTES + native.nbytes) as partial, _quiet():
        graph = export_step(native, constants, lookahead, streams)
        _remove_unused(graph)
        onnx_ir.save(graph, partial / GRAPH, external_data=WEIGHTS)
        (partial / TOKENIZER).write_bytes(native.tokenizer)
        (partial / EXAMPLE).write_text(Path(onnx_example.__file__).read_text())
        manifest = _manifest(native, constants, lookahead, graph)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return config


def export_step(native: Native, constants: Any, lookahead: int, streams: int) -> Any:
    """Returns the step at one look-ahead as a graph of onnx_ir, with the weights inside.

    Args:
      constants: of the model, from `nemojax.streaming.prepare`.
    """
    jax2onnx = _imported("jax2onnx")
    model = jax.tree.map(jnp.asarray, native.model)  # an array of numpy can't be indexed by a traced one
    initial = jax.eval_shape(lambda: init_state(model, constants, streams, lookahead=lookahead))
    state, tree = jax.tree.flatten(initial)

    def flat_step(*arrays: Any) -> tuple[Any, ...]:
        before = jax.tree.unflatten(tree, arrays[: len(state)])
        after, emission = step(model, constants, before, Segment(*arrays[len(state) :]), lookahead)
        return (*jax.tree.leaves(after), *(getattr(emission, name) for name in EMISSION))

    shape: Any = jax.ShapeDtypeStruct
    segment = (
        shape((streams, native.config.chunk_samples(lookahead)), jnp.float32),
        shape((streams,), jnp.int32),
        shape((streams,), jnp.bool_),
        shape((streams,), jnp.bool_),
    )
    names = list(named_arrays(initial))
    jax.clear_caches()
    try:
        return jax2onnx.to_onnx(
            flat_step,
            [*(shape(array.shape, array.dtype) for array in state), *segment],
            model_name="nemojax_step",
            opset=OPSET,
            return_mode="ir",
            input_names=[*names, *Segment._fields],
            output_names=[*map(_next, names), *(f"emission.{name}" for name in EMISSION)],
        )
    except Exception as error:  # jax2onnx has no common type of error
        raise ConvertError(
            f"jax2onnx {version('jax2onnx')} can't translate the step under jax {version('jax')}: {reason(error)}"
        ) from error
    finally:
        # jax2onnx traces with functions of its own in the place of jax.numpy's; jax keeps what it traced of jitted ones
        jax.clear_caches()


def _next(name: str) -> str:
    """Returns the name of the output that has the next value of an array of the state."""
    return f"next.{name}"


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConvertError(f"ONNX needs jax2onnx (pip install 'nemojax[onnx]'): {reason(error)}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps onnx_ir from logging each value inside the search's loop whose type the graph does not name."""
    logger = logging.getLogger("onnx_ir")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _remove_unused(model: Any) -> None:
    """Removes constants without a use from the graph and from those of its loops; onnxruntime warns of each."""
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]


def _manifest(native: Native, constants: Any, lookahead: int, graph: Any) -> dict[str, Any]:
    config = native.config
    state = named_arrays(init_state(native.model, constants, 1, lookahead=lookahead))
    inputs, outputs = (_described(values) for values in (graph.graph.inputs, graph.graph.outputs))
    return {
        "format": "nemojax streaming step, ONNX",
        "format_version": FORMAT_VERSION,
        "versions": {"nemojax": nemojax.__version__, "jax": version("jax"), "jax2onnx": version("jax2onnx")},
        "source": {key: value for key, value in native.origin.items() if key in ("format", "files")},
        "usage": USAGE,
        "opset": OPSET,
        "file": GRAPH,
        "lookahead": lookahead,
        "streams": inputs[-1]["shape"][0],
        "sample_rate_hz": config.features.sample_rate_hz,
        "chunk_samples": config.chunk_samples(lookahead),
        "history_samples": config.history_samples,
        "frame_samples": config.frame_samples,
        "tokenizer": TOKENIZER,
        "vocabulary": config.vocabulary,
        "blank": config.blank,
        "state": [
            entry | {"next": _next(entry["name"]), "initial": initial_value(np.asarray(state[entry["name"]]))}
            for entry in inputs[: len(state)]
        ],
        "segment": inputs[len(state) :],
        "emission": outputs[len(state) :],
    }


def _described(values: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"name": value.name, "shape": [int(n) for n in value.shape], "dtype": str(value.dtype.numpy())}
        for value in values
    ]
