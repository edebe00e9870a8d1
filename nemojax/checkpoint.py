"""The native form of a model on disk, a directory:

config.json       the settings, as `ModelConfig.to_json` writes them
tokenizer.model   the SentencePiece model
origin.json       where the weights came from: source, its SHA-256, versions
weights/          orbax: one array per parameter, under the parameter's path in the model
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nemojax.config import ModelConfig
from nemojax.errors import CheckpointError, ConfigError
from nemojax.kernels import quantization
from nemojax.model.parameters import abstract_model, check_shapes, named_parameters
from nemojax.model.transducer import Transducer

CONFIG, TOKENIZER, ORIGIN, WEIGHTS = "config.json", "tokenizer.model", "origin.json", "weights"
CONCURRENT_GB = 0.25  # that orbax may hold beside the arrays themselves; more is hardly faster


def save(
    directory: str | Path,
    model: Transducer,
    tokenizer: bytes,
    origin: Mapping[str, Any],
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Writes a model, whole or not at all: into a temporary directory beside `directory`, then renamed.

    Args:
      model: its parameters may be jax or numpy arrays, or anything `np.asarray` reads (one at a time, so
        that what comes from a file need not be in memory twice). Their types are kept.
      progress: wraps the parameters as they are read, as `tqdm` does.

    Raises:
      CheckpointError: `directory` exists and is not an empty directory, or can't be written.
    """
    import orbax.checkpoint as ocp

    directory = Path(directory).absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CheckpointError(f"{directory} exists already; name a new directory or remove it first")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise CheckpointError(f"{directory} can't be written: {error.strerror}") from None
    try:
        (partial / CONFIG).write_text(model.config.to_json())
        (partial / TOKENIZER).write_bytes(tokenizer)
        (partial / ORIGIN).write_text(json.dumps(dict(origin), indent=2) + "\n")
        parameters = progress(list(named_parameters(model).items()))
        # orbax does not take one process's own arrays for the job's; numpy arrays it does
        place = jax.device_put if jax.process_count() == 1 else np.asarray
        arrays = {name: place(np.ascontiguousarray(leaf)) for name, leaf in parameters}
        try:
            # weights are as good as random: compressed they are a tenth smaller, and take twice as long to read
            with _checkpointer(save_concurrent_gb=CONCURRENT_GB, use_compression=False) as checkpointer:
                checkpointer.save(partial / WEIGHTS, args=ocp.args.PyTreeSave(arrays))
        except ValueError as error:  # what orbax makes of a failed write
            raise CheckpointError(f"{directory} can't be written: {_first_line(error)}") from None
        partial.chmod(0o755)
        partial.rename(directory)
    except OSError as error:
        raise CheckpointError(f"{directory} can't be written: {error.strerror or error}") from None
    finally:
        _remove(partial)


def _checkpointer(**settings: Any) -> Any:
    """Orbax for this process alone: others of the same job need not take part, and are not waited for."""
    import orbax.checkpoint as ocp

    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone, **settings)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _remove(directory: Path) -> None:
    """Removes a directory, again where orbax's threads still wrote to it."""
    for _ in range(10):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.1)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_settings(directory: str | Path) -> tuple[ModelConfig, bytes, dict[str, Any]]:
    """A checkpoint's settings, tokenizer and origin, without its weights.

    Raises:
      CheckpointError: says what is missing or wrong.
    """
    directory = Path(directory)
    if not directory.is_dir():
        hint = "; convert a .nemo archive with nemojax-convert first" if directory.is_file() else ""
        raise CheckpointError(f"{directory} is not a directory{hint}")
    if missing := [name for name in (CONFIG, TOKENIZER, ORIGIN, WEIGHTS) if not (directory / name).exists()]:
        raise CheckpointError(
            f"{directory} is not a nemojax checkpoint: it has no {', '.join(missing)}; "
            "nemojax-convert makes one from a NeMo or Hugging Face checkpoint"
        )
    try:
        config = ModelConfig.from_json((directory / CONFIG).read_text())
        origin = json.loads((directory / ORIGIN).read_text())
        return config, (directory / TOKENIZER).read_bytes(), origin
    except ConfigError as error:
        raise CheckpointError(f"{directory / CONFIG}: {error}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory} can't be read: {error}") from None


def load(directory: str | Path, dtype: Any = None) -> tuple[Transducer, ModelConfig, bytes, dict[str, Any]]:
    """A model with its settings, tokenizer and origin.

    Args:
      dtype: of the parameters in memory; None for the type that each was saved in. They are converted as they are read,
        a few at a time: a bfloat16 model never exists in float32. What was saved in int8 (see `packed`) stays so.

    Raises:
      CheckpointError: it is not a checkpoint, or its weights are damaged or do not fit its settings.
    """
    import orbax.checkpoint as ocp

    config, tokenizer, origin = read_settings(directory)
    weights = Path(directory).absolute() / WEIGHTS
    try:
        with _checkpointer(restore_concurrent_gb=CONCURRENT_GB) as checkpointer:
            stored = checkpointer.metadata(weights).item_metadata.tree
            model, rounded = abstract_model(config), [n for n, array in stored.items() if array.dtype == jnp.int8]
            if rounded:
                model = jax.eval_shape(quantization.quantize, model)
            wanted = {name: leaf.shape for name, leaf in named_parameters(model).items()}
            check_shapes(wanted, {name: tuple(array.shape) for name, array in stored.items()})
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            kept = {*rounded, *(f"{name}_scale" for name in rounded)}
            types = {name: stored[name].dtype if dtype is None or name in kept else dtype for name in wanted}
            item = {n: jax.ShapeDtypeStruct(shape, types[n], sharding=here) for n, shape in wanted.items()}
            restore_args = ocp.checkpoint_utils.construct_restore_args(item)
            arrays = checkpointer.restore(weights, args=ocp.args.PyTreeRestore(item=item, restore_args=restore_args))
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from None
    except Exception as error:  # orbax and tensorstore have no common type for a damaged file
        raise CheckpointError(f"the weights in {weights} can't be read: {_first_line(error)}") from None
    return jax.tree.unflatten(jax.tree.structure(model), [arrays[name] for name in wanted]), config, tokenizer, origin
