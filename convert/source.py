"""What was read of a checkpoint: tensors that are loaded when asked for, each of them accounted for."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import nemojax
from convert import names
from convert.errors import ConvertError, listed, short
from convert.files import open_file
from nemojax import checkpoint
from nemojax.config import ModelConfig
from nemojax.kernels import quantization
from nemojax.model.parameters import abstract_model, fill, named_parameters
from nemojax.model.transducer import Transducer

# parameters keep the type they were saved in
PARAMETER_TYPES = tuple(np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16))


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array in a file: its shape and type are known, `np.asarray` reads it.

    A model of these goes into `checkpoint.save`, which reads one at a time.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        array = self.load()
        return array if dtype is None else array.astype(dtype, copy=False)


@dataclass(frozen=True)
class Source:
    """A checkpoint of another toolkit, under our names and in our layout."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: bytes  # a SentencePiece model
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)  # what a user should know: what was left out, what was assumed

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors, read into memory."""
        return {name: np.asarray(tensor) for name, tensor in self.tensors.items()}

    def model(self) -> Transducer:
        """A model whose parameters are still in the file."""
        return fill(self.config, self.tensors)


@lru_cache(maxsize=4)
def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of ours."""
    named = named_parameters(abstract_model(config))
    return {name: tuple(leaf.shape) for name, leaf in named.items()}


def account(config: ModelConfig, found: Mapping[str, Tensor], form: names.Form) -> dict[str, Tensor]:
    """Tensors under their names as our parameters, in our layout.

    Values are checked when they are read: NaN or infinity in a parameter is a ConvertError too.

    Raises:
      ConvertError: names what is missing, unknown, of another shape or of another type.
    """
    layers = config.encoder.layers + config.prediction.layers
    if layers > len(found):  # before a model of so many is made
        raise ConvertError(f"the settings name {layers} layers, there are {len(found)} tensors")
    problems, taken, parameters = [], set(), {}
    for ours, shape in shapes(config).items():
        name, layout = names.theirs(ours, form, config.joint.dropout > 0)
        taken.add(name)
        expected = names.their_shape(shape, layout)
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != expected:
            problems.append(f"{name} has the shape {list(found[name].shape)}, its settings say {list(expected)}")
        elif found[name].dtype not in PARAMETER_TYPES:
            problems.append(f"{name} is {found[name].dtype}, not float32, float16 or bfloat16")
        else:
            parameters[ours] = Tensor(shape, found[name].dtype, _checked(name, found[name], layout))
    problems += [f"{short(name)} is not a tensor of this model" for name in found if name not in taken]
    if problems:
        raise ConvertError(f"the tensors do not fit the settings: {listed(problems)}")
    return parameters


def _checked(name: str, tensor: Tensor, layout: names.Layout) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        array = np.asarray(tensor)
        if not np.isfinite(array).all():
            raise ConvertError(f"the tensor {name} holds NaN or infinity")
        return layout.to_ours(array)

    return load


def given(array: Any, layout: names.Layout) -> Tensor:
    """An array of ours in their layout, turned when it is asked for."""
    return Tensor(
        names.their_shape(array.shape, layout), np.dtype(array.dtype), lambda: layout.to_theirs(np.asarray(array))
    )


def kept(origin: Any, form: str) -> dict[str, Any]:
    """What a checkpoint's note of its origin keeps for the way back to the form that it came from."""
    if isinstance(origin, dict) and origin.get("format") == form and isinstance(origin.get("kept"), dict):
        return origin["kept"]
    return {}


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    window = open_file(path)
    while piece := window.read(1 << 22):
        digest.update(piece)
    return digest.hexdigest()


def origin(form: str, files: Mapping[str, Path], **more: Any) -> dict[str, Any]:
    """The note of where a checkpoint came from: files by name (no paths) and SHA-256, and versions."""
    return {
        "format": form,
        "files": {name: sha256(path) for name, path in files.items()},
        "versions": {"nemojax": nemojax.__version__, "jax": version("jax"), "numpy": np.__version__},
        **more,
    }


def read_native(directory: str | Path) -> tuple[Transducer, ModelConfig, bytes, dict[str, Any]]:
    """A checkpoint of ours, to be written for another toolkit; see `checkpoint.load`.

    Raises:
      CheckpointError: it is not a checkpoint.
      ConvertError: its weights are in int8, which the others can't express.
    """
    loaded = checkpoint.load(directory)
    if quantization.is_quantized(loaded[0]):
        raise ConvertError(f"{directory} has weights in int8; convert the checkpoint that it was made of")
    return loaded
