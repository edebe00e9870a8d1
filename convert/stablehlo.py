"""Exports the streaming step as StableHLO, to run where nemojax is not installed. The directory that is written:

manifest.json        arguments and results of the step in order, chunk sizes, initial states, how to run it
step-R.stablehlo     the step at look-ahead R, as `jax.export` serializes it, for any batch size
step-R.mlir          on request: the same StableHLO as plain MLIR bytecode
weights.safetensors  the parameters, unless they are inside each step
tokenizer.model      the SentencePiece model
run.py               an example that reads the directory with jax and numpy alone

The step takes flat lists of arrays: weights, states of the streams, then one chunk. The parts of the model are the
plain ones: native and Pallas kernels are tied to one platform and can't be exported. jax.export promises that a step
can be read by this version of jax and by those of the next six months at least.
"""

import importlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

import nemojax
from convert import stablehlo_example
from convert.errors import ConvertError, reason
from convert.output import Progress, check_new, new_directory
from convert.source import Native, read_native
from nemojax import safetensors_format
from nemojax.config import ModelConfig
from nemojax.decoding.state import Emission
from nemojax.streaming import Segment, init_state, prepare, step

MANIFEST, WEIGHTS, TOKENIZER, EXAMPLE = "manifest.json", "weights.safetensors", "tokenizer.model", "run.py"
FORMAT_VERSION = 1
EMISSION = tuple(name for name in Emission._fields if name != "confidences")  # the exported search gives none
MAX_STEP_BYTES = 2**31 - 2**24  # FlatBuffers limits a serialized step to 2 GB; 16 MB are left for the program
STEP_BYTES = 2**20  # approximate size of a step without weights

Platform = Literal["cpu", "cuda", "tpu"]
Placement = Literal["inside", "beside"]
Dtype = Literal["float32", "bfloat16"]

USAGE = (
    "Arguments of a step, all by position: the arrays of `weights`, of `state`, then of the step's `segment`.",
    "Results of a step: the new arrays of `state`, then those of the step's `emission`.",
    "One call takes the next `chunk_samples` samples of every stream of the batch; streams are independent rows.",
    "`batch` in a shape is any batch size, the same in all arrays of a call.",
    "A stream's state starts as `initial`, repeated along the batch. `reset` does the same during a call: a row with "
    "`reset` true returns to the initial state before its chunk is processed.",
    "A stream's first chunk begins with `history_samples` samples of any value, before those of the recording.",
    "`length` counts the valid samples of the chunk, history included. Less than `chunk_samples` ends the recording; "
    "pad the chunk with any value. A recording that ends with a whole chunk needs no further call.",
    "A row with `active` false keeps its state and emits nothing.",
    "Of each row of the emission, only the first `length` labels are valid. `frames` are encoder frames from the start "
    "of the recording, `log_probs` the natural logarithm of each label's probability.",
    "Labels are pieces of `tokenizer`, a SentencePiece model; `blank` fills the rest of a row.",
    "In an .mlir file with several platforms, the main function has one more argument before these: the index of the "
    "platform in `platforms`, an int32.",
)


def write(
    directory: str | Path,
    path: str | Path,
    lookaheads: Sequence[int] = (),
    dtype: Dtype = "float32",
    platforms: Sequence[Platform] = ("cpu",),
    weights: Placement = "beside",
    mlir: bool = False,
    progress: Progress = iter,
) -> ModelConfig:
    """Writes the streaming step of a native checkpoint as a directory.

    Args:
      lookaheads: in encoder frames, one step for each; none means all that the model was trained with.
      dtype: type of the weights, and of the keys and values in the state.
      platforms: where the steps may run; this machine need not have them.
      weights: "beside" writes them once to a file, "inside" into every step.
      mlir: also writes each step as plain MLIR bytecode.
      progress: wraps the look-aheads as their steps are exported.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConfigError: a look-ahead does not fit the model.
      ConvertError: `path` exists or can't be written, the weights are in int8, or they are too large to be inside.
    """
    _check_flatbuffers()
    if not platforms:
        raise ConvertError("no platform is named; name at least one of cpu, cuda and tpu")
    check_new(Path(path))
    native = read_native(directory, jnp.dtype(dtype))
    config = native.config
    lookaheads = tuple(dict.fromkeys(lookaheads or config.encoder.lookaheads))
    for lookahead in lookaheads:
        config.chunk_frames(lookahead)  # raises ConfigError
    platforms = tuple(dict.fromkeys(platforms))
    constants = prepare(native.model)
    parameters = named_arrays(native.model) | named_arrays({"constants": constants})
    size = sum(array.nbytes for array in parameters.values())
    inside = weights == "inside"
    if inside and size > MAX_STEP_BYTES:
        raise ConvertError(
            f"the weights take {size / 1e9:.1f} GB, a step holds at most {MAX_STEP_BYTES / 1e9:.1f} GB; "
            "use --weights beside, or --dtype bfloat16"
        )
    copies = len(lookaheads) * (1 + mlir)
    with new_directory(path, copies * STEP_BYTES + size * (copies if inside else 1)) as partial:
        steps = []
        for lookahead in progress(lookaheads):
            exported = export_step(native, constants, lookahead, platforms, inside)
            (partial / f"step-{lookahead}.stablehlo").write_bytes(exported.serialize())
            if mlir:
                (partial / f"step-{lookahead}.mlir").write_bytes(exported.mlir_module_serialized)
            steps.append(_step_entry(config, lookahead, exported))
        if not inside:
            with open(partial / WEIGHTS, "wb") as file:
                safetensors_format.write(file, parameters.items(), parameters)
        (partial / TOKENIZER).write_bytes(native.tokenizer)
        (partial / EXAMPLE).write_text(Path(stablehlo_example.__file__).read_text())
        manifest = _manifest(native, constants, {} if inside else parameters, dtype)
        (partial / MANIFEST).write_text(
            json.dumps(manifest | {"platforms": platforms, "steps": steps}, indent=1) + "\n"
        )
    return config


def named_arrays(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by their paths, such as "encoder.blocks.0.attention.keys.frames"."""
    join: Any = jax.tree_util.keystr
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {join(path, simple=True, separator=".").removesuffix(".value"): leaf for path, leaf in leaves}


def export_step(
    native: Native, constants: Any, lookahead: int, platforms: Sequence[Platform], inside: bool
) -> jax_export.Exported:
    """Exports the step at one look-ahead with a symbolic batch size.

    Args:
      constants: of the model, from `nemojax.streaming.prepare`.
      inside: whether the weights are constants of the step; otherwise they are its first arguments.
    """
    (batch,) = jax_export.symbolic_shape("batch")
    weights, weights_tree = jax.tree.flatten((native.model, constants))
    state, state_tree = jax.tree.flatten(jax.eval_shape(lambda: init_state(native.model, constants, 1)))
    first, last = (0, len(state)) if inside else (len(weights), len(weights) + len(state))

    def flat_step(*arrays: Any) -> tuple[Any, ...]:
        model, model_constants = jax.tree.unflatten(weights_tree, weights if inside else arrays[:first])
        before = jax.tree.unflatten(state_tree, arrays[first:last])
        after, emission = step(model, model_constants, before, Segment(*arrays[last:]), lookahead)
        return (*jax.tree.leaves(after), *(getattr(emission, name) for name in EMISSION))

    shape: Any = jax.ShapeDtypeStruct
    segment = {
        "samples": shape((batch, native.config.chunk_samples(lookahead)), jnp.float32),
        "length": shape((batch,), jnp.int32),
        "active": shape((batch,), jnp.bool_),
        "reset": shape((batch,), jnp.bool_),
    }
    arguments = [
        *(shape(array.shape, array.dtype) for array in ([] if inside else weights)),
        *(shape((batch, *array.shape[1:]), array.dtype) for array in state),
        *(segment[name] for name in Segment._fields),
    ]
    # unused weights stay arguments, so that the MLIR function has the arguments that the manifest lists
    return jax_export.export(jax.jit(flat_step, keep_unused=True), platforms=list(platforms))(*arguments)


def _check_flatbuffers() -> None:
    """Raises ConvertError where the library that `jax.export` serializes with is missing."""
    try:
        importlib.import_module("flatbuffers")
    except ImportError as error:
        raise ConvertError(f"jax.export needs flatbuffers (pip install flatbuffers): {reason(error)}") from None


def _manifest(native: Native, constants: Any, weights: dict[str, Any], dtype: Dtype) -> dict[str, Any]:
    """Returns the parts of the manifest that all steps share."""
    config = native.config
    state = named_arrays(init_state(native.model, constants, 1))
    return {
        "format": "nemojax streaming step",
        "format_version": FORMAT_VERSION,
        "versions": {"nemojax": nemojax.__version__, "jax": version("jax")},
        "source": {key: value for key, value in native.origin.items() if key in ("format", "files")},
        "usage": USAGE,
        "dtype": dtype,
        "sample_rate_hz": config.features.sample_rate_hz,
        "history_samples": config.history_samples,
        "frame_samples": config.frame_samples,
        "tokenizer": TOKENIZER,
        "vocabulary": config.vocabulary,
        "blank": config.blank,
        "weights_file": WEIGHTS if weights else None,
        "weights": [_array(name, array.shape, array.dtype) for name, array in weights.items()],
        "state": [
            _array(name, ("batch", *array.shape[1:]), array.dtype) | {"initial": initial_value(np.asarray(array))}
            for name, array in state.items()
        ],
    }


def _step_entry(config: ModelConfig, lookahead: int, exported: jax_export.Exported) -> dict[str, Any]:
    """Returns the manifest's entry for one step."""
    return {
        "lookahead": lookahead,
        "file": f"step-{lookahead}.stablehlo",
        "calling_convention_version": exported.calling_convention_version,
        "chunk_samples": config.chunk_samples(lookahead),
        "segment": _arrays(Segment._fields, exported.in_avals[-len(Segment._fields) :]),
        "emission": _arrays(EMISSION, exported.out_avals[-len(EMISSION) :]),
    }


def _arrays(names: Sequence[str], avals: Sequence[Any]) -> list[dict[str, Any]]:
    return [_array(name, aval.shape, aval.dtype) for name, aval in zip(names, avals, strict=True)]


def _array(name: str, shape: Sequence[Any], dtype: Any) -> dict[str, Any]:
    return {"name": name, "shape": [n if isinstance(n, int) else str(n) for n in shape], "dtype": str(dtype)}


def initial_value(array: np.ndarray) -> Any:
    """Returns the initial value of one stream's array: a number where all elements are equal, else nested lists."""
    values = array.astype(np.float32) if array.dtype == jnp.bfloat16 else array
    return values.flat[0].item() if (values == values.flat[0]).all() else values.tolist()
