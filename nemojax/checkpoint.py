"""Saves and loads models. A checkpoint is a directory:

config.json          the settings, as `ModelConfig.to_json` writes them
tokenizer.model      the SentencePiece model
origin.json          the origin of the weights: source, its SHA-256, versions
weights/             orbax: one array per parameter, named by the parameter's path in the model
weights.safetensors  the same as one file, in its place, where weights are in int8: they lie there as steps read them
"""

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nemojax import safetensors_format, settings
from nemojax.checks import check_local
from nemojax.config import ModelConfig
from nemojax.device import default_device
from nemojax.errors import CheckpointError, ConfigError
from nemojax.hub import resolve
from nemojax.kernels import quantization
from nemojax.model.parameters import abstract_model, check_shapes, named_parameters
from nemojax.model.transducer import Transducer
from nemojax.weights import FileWeights, OrbaxWeights, Weights
from nemojax.write_errors import print_no_tracebacks, reason

CONFIG, TOKENIZER, ORIGIN = "config.json", "tokenizer.model", "origin.json"
WEIGHTS, WEIGHTS_FILE = "weights", "weights.safetensors"
MAX_BYTES = {CONFIG: 8 << 20, TOKENIZER: 16 << 20, ORIGIN: 64 << 20}
# Weights may be of this many times the bytes of their files, and of this many more. nemojax does not compress them.
MAX_RATIO, MAX_EXTRA_BYTES = 20, 64 << 20
CONCURRENT_GB = 0.25  # memory that orbax may use besides the arrays; more is hardly faster
DIRECTORY_MODE = 0o755  # mkdtemp makes directories that only their owner may read


def save(
    directory: str | Path,
    model: Transducer,
    tokenizer: bytes,
    origin: Mapping[str, Any],
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> None:
    """Saves a model. The directory appears only once it is complete.

    It is written beside its final place and then renamed.

    Args:
      model: its parameters may be jax or numpy arrays, or anything that `np.asarray` converts. They are converted one
        at a time, so parameters that are read from a file are never in memory twice. Their types are kept.
      tokenizer: the serialized SentencePiece model.
      origin: saved as JSON.
      progress: wraps the iteration over the parameters, as `tqdm` does.

    Raises:
      CheckpointError: `directory` exists and is not an empty directory, or can't be written.
    """
    check_local(directory)
    directory = Path(directory).resolve()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} exists already; name a new directory or remove it first")
    print_no_tracebacks()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise CheckpointError(f"{directory} can't be written: {error.strerror}") from None
    try:
        (partial / CONFIG).write_text(model.config.to_json())
        (partial / TOKENIZER).write_bytes(tokenizer)
        (partial / ORIGIN).write_text(json.dumps(dict(origin), indent=2) + "\n")
        parameters = named_parameters(model)
        if any(getattr(leaf, "dtype", None) == np.int8 for leaf in parameters.values()):
            with open(partial / WEIGHTS_FILE, "wb") as file:
                safetensors_format.write(file, progress(parameters.items()), parameters)
        else:
            import orbax.checkpoint as ocp

            arrays = _arrays(progress(list(parameters.items())))
            try:
                # weights hardly compress: they would be a tenth smaller and take twice as long to read
                with _checkpointer(save_concurrent_gb=CONCURRENT_GB, use_compression=False) as checkpointer:
                    checkpointer.save(partial / WEIGHTS, args=ocp.args.PyTreeSave(arrays))
            except ValueError as error:  # orbax raises it for a failed write
                raise CheckpointError(f"{directory} can't be written: {reason(error)}") from None
        partial.chmod(DIRECTORY_MODE)
        partial.rename(directory)
    except OSError as error:
        raise CheckpointError(f"{directory} can't be written: {reason(error)}") from None
    finally:
        _remove(partial)


def _arrays(parameters: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Returns parameters as orbax accepts them."""
    # in a job of several processes orbax rejects jax arrays of one process alone, and accepts numpy arrays
    place = jax.device_put if jax.process_count() == 1 else np.asarray
    return {name: place(np.ascontiguousarray(leaf)) for name, leaf in parameters}


def _checkpointer(**settings: Any) -> Any:
    """Returns an orbax checkpointer of this process alone; it does not wait for the job's other processes."""
    import orbax.checkpoint as ocp

    process = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process{process}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options, **settings)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _remove(directory: Path) -> None:
    """Removes a directory; tries again while orbax's threads still write to it."""
    for _ in range(10):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def read_settings(directory: str | Path) -> tuple[ModelConfig, bytes, dict[str, Any]]:
    """Reads the settings, the tokenizer and the origin of a checkpoint, without its weights.

    Args:
      directory: the checkpoint, or a name on the hub (see `hub.resolve`).

    Raises:
      CheckpointError: it is not a checkpoint, or a part of it is missing or damaged.
    """
    directory = resolve(directory)
    try:
        if not directory.is_dir():
            hint = "; convert a .nemo archive with nemojax-convert first" if directory.is_file() else ""
            hint = hint if os.path.lexists(directory) else ": there is none of this name"
            raise CheckpointError(f"{directory} is not a directory{hint}")
        missing = [name for name in (CONFIG, TOKENIZER, ORIGIN) if not (directory / name).exists()]
        missing += [] if has_weights(directory) else [WEIGHTS]
    except OSError as error:
        raise CheckpointError(f"{directory} can't be read: {error.strerror}") from None
    if missing:
        raise CheckpointError(
            f"{directory} is not a nemojax checkpoint: it has no {', '.join(missing)}; "
            "nemojax-convert makes one from a NeMo or Hugging Face checkpoint"
        )
    try:
        no_files = [name for name in (*MAX_BYTES, WEIGHTS_FILE) if _is_no_file(directory / name)]
        if no_files:  # reading a pipe would wait for a writer
            raise CheckpointError(f"{directory / no_files[0]} is not a file; copy the checkpoint again")
        if (directory / WEIGHTS).exists() and (directory / WEIGHTS_FILE).exists():
            raise CheckpointError(f"{directory} has both {WEIGHTS} and {WEIGHTS_FILE}; remove one of them")
        large = [name for name, limit in MAX_BYTES.items() if (directory / name).stat().st_size > limit]
        if large:
            raise CheckpointError(f"{directory / large[0]} is larger than {MAX_BYTES[large[0]] >> 20} MB; refused")
        file = directory / CONFIG
        config = ModelConfig.from_json(file.read_text())
        file = directory / ORIGIN
        origin = settings.parse_json(file.read_text(), ORIGIN)
        if not isinstance(origin, dict):
            raise ConfigError("it must be an object")
        return config, (directory / TOKENIZER).read_bytes(), origin
    except ConfigError as error:
        raise CheckpointError(f"{file}: {error}") from None
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} can't be read: {error}") from None


def has_weights(directory: Path) -> bool:
    """Returns whether a directory has the weights of a checkpoint, in either form."""
    return (directory / WEIGHTS).exists() or (directory / WEIGHTS_FILE).exists()


def _is_no_file(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _check_types(wanted: Mapping[str, Any], found: Mapping[str, np.dtype]) -> None:
    """Raises CheckpointError for a parameter that is not int8 where the model has int8, or not floating elsewhere."""
    for name, leaf in wanted.items():
        is_int8 = leaf.dtype == np.int8
        if found[name] != np.int8 if is_int8 else not jnp.issubdtype(found[name], jnp.floating):
            right = "int8, as other kernels are" if is_int8 else "a floating type"
            raise CheckpointError(f"the weights are damaged: {name} has the type {found[name]}, not {right}")


def _check_size(weights: Path, size: int) -> None:
    """Raises CheckpointError for weights of `size` bytes that their files can't hold."""
    held = sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
    if size > MAX_RATIO * held + MAX_EXTRA_BYTES:
        raise CheckpointError(f"its weights are of {size:,} bytes, and its files hold {held:,}; it is not complete")


def load(
    directory: str | Path, dtype: Any = None, in_tiles: Callable[[], bool] = lambda: False
) -> tuple[Transducer, ModelConfig, bytes, dict[str, Any]]:
    """Loads a model with its settings, tokenizer and origin.

    Args:
      directory: the checkpoint, or a name on the hub (see `hub.resolve`).
      dtype: type of the parameters in memory; None for the type that each was saved in. Parameters are converted as
        they are read, a few at a time: a bfloat16 model never exists in float32. Parameters that were saved in int8
        (`kernels.quantization`) stay int8.
      in_tiles: whether kernels that were saved in int8 are given in tiles; it is asked if there may be some. See
        `kernels.selection.reads_tiles`.

    Raises:
      CheckpointError: it is not a checkpoint, or its weights are damaged or do not fit its settings.
    """
    directory = resolve(directory)
    config, tokenizer, origin = read_settings(directory)
    device = default_device()
    with _stored(directory, in_tiles) as stored:
        quantized = [name for name, type in stored.types.items() if type == np.int8]
        model = abstract_model(config, quantization.form_of(quantized))
        parameters = named_parameters(model)
        shapes = {name: leaf.shape for name, leaf in parameters.items()}
        check_shapes(shapes, stored.shapes)
        _check_types(parameters, stored.types)
        if not (directory / WEIGHTS_FILE).exists():  # a file is as long as its header says
            size = sum(math.prod(shapes[name]) * stored.types[name].itemsize for name in shapes)
            _check_size(directory / WEIGHTS, size)
        kept = {*quantized, *(f"{name}_scale" for name in quantized)}
        types = {name: stored.types[name] if dtype is None or name in kept else dtype for name in shapes}
        arrays = stored.read(types, device)
    return jax.tree.unflatten(jax.tree.structure(model), [arrays[name] for name in shapes]), config, tokenizer, origin


def read_types(directory: str | Path) -> dict[str, np.dtype]:
    """Returns the type of each parameter of a checkpoint, without its values. Raises CheckpointError as `load` does."""
    directory = resolve(directory)
    read_settings(directory)
    with _stored(directory) as stored:
        return stored.types


@contextmanager
def _stored(directory: Path, in_tiles: Callable[[], bool] = lambda: False) -> Iterator[Weights]:
    """Opens the weights of a checkpoint. What fails to be read within is a CheckpointError that names them."""
    in_file = (directory / WEIGHTS_FILE).exists()
    weights = directory.resolve() / (WEIGHTS_FILE if in_file else WEIGHTS)
    try:
        stored: Weights = FileWeights(weights, in_tiles()) if in_file else OrbaxWeights(weights)
        with closing(stored):
            yield stored
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    except Exception as error:  # tensorstore's errors are of several types
        raise CheckpointError(f"the weights in {weights} can't be read: {reason(error)}") from None
