"""A checkpoint of another toolkit as read: its tensors, matched to our parameters and loaded one at a time."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

import nemojax
from convert import names
from convert.errors import ConvertError, listed, short
from convert.files import open_file
from convert.pieces import Piece
from nemojax import checkpoint
from nemojax.config import EVENTS, ModelConfig, TextConfig
from nemojax.kernels import quantization
from nemojax.model.parameters import abstract_model, fill, named_parameters
from nemojax.model.transducer import Transducer

# supported types of parameters; each parameter keeps its own
PARAMETER_TYPES = tuple(np.dtype(t) for t in (np.float32, np.float16, ml_dtypes.bfloat16))
PRESERVED = "kept"  # key in origin.json


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array in a file: its shape and type are known, and `np.asarray` reads it.

    `checkpoint.save` takes a model of these and reads one at a time, so the model is never in memory as a whole.
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

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.load()
        return array if dtype is None else array.astype(dtype, copy=False)


@dataclass(frozen=True)
class Source:
    """A checkpoint of another toolkit with our settings, under our names, in our layout."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: bytes  # a SentencePiece model
    origin: dict[str, Any]  # contents of origin.json
    notes: list[str] = field(default_factory=list)  # for the user: parts left out, settings assumed

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all tensors, read into memory."""
        return {name: np.asarray(tensor) for name, tensor in self.tensors.items()}

    def model(self) -> Transducer:
        """Returns the model; its parameters are read from the file when they are used."""
        return fill(self.config, self.tensors)


@lru_cache(maxsize=4)
def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of ours by name."""
    named = named_parameters(abstract_model(config))
    return {name: tuple(leaf.shape) for name, leaf in named.items()}


def text_settings(vocabulary: Sequence[Piece]) -> TextConfig:
    """Returns how labels become text: as in NeMo, whichever toolkit a checkpoint comes from.

    NeMo removes the space before punctuation, and transformers does not. Both show the marks of an end of utterance as
    letters, which no user wants.
    """
    events = tuple(piece.text for piece in vocabulary if piece.text in EVENTS)
    return TextConfig(events, join_punctuation=True)


def match_parameters(config: ModelConfig, found: Mapping[str, Tensor], form: names.Form) -> dict[str, Tensor]:
    """Matches every tensor of a checkpoint to one of our parameters; returns them under our names, in our layout.

    Values are checked when they are read: NaN or infinity in a parameter is a ConvertError too.

    Raises:
      ConvertError: names each tensor that is missing, unknown, or of another shape or type.
    """
    layers = config.encoder.layers + config.prediction.layers
    if layers > len(found):
        raise ConvertError(f"the settings name {layers} layers, but there are only {len(found)} tensors")
    problems, matched, parameters = [], set(), {}
    for ours, shape in shapes(config).items():
        name, layout = names.name_in(form, ours, config.joint.dropout > 0)
        matched.add(name)
        expected = names.their_shape(shape, layout)
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != expected:
            problems.append(
                f"{name} has the shape {short(list(found[name].shape))}, the settings require {list(expected)}"
            )
        elif found[name].dtype not in PARAMETER_TYPES:
            problems.append(f"{name} is {found[name].dtype}, not float32, float16 or bfloat16")
        else:
            parameters[ours] = Tensor(shape, found[name].dtype, _checked(name, found[name], layout))
    problems += [f"{short(name)} is not a tensor of this model" for name in found if name not in matched]
    if problems:
        raise ConvertError(f"the tensors do not fit the settings: {listed(problems)}")
    return parameters


def _checked(name: str, tensor: Tensor, layout: names.Layout) -> Callable[[], np.ndarray]:
    """Returns a function that reads a tensor in our layout and raises ConvertError unless it is finite."""

    def load() -> np.ndarray:
        array = np.asarray(tensor)
        if not np.isfinite(array).all():
            raise ConvertError(f"the tensor {name} holds NaN or infinity")
        return layout.to_ours(array)

    return load


def name_parameters(model: Transducer, form: names.Form) -> dict[str, Tensor]:
    """Returns the parameters of a model under their names in another form, in its layout."""
    tensors = {}
    for ours, array in named_parameters(model).items():
        name, layout = names.name_in(form, ours, model.config.joint.dropout > 0)
        tensors[name] = in_their_layout(array, layout)
    return tensors


def in_their_layout(array: Any, layout: names.Layout) -> Tensor:
    """Returns one of our arrays in another layout; it is transposed when it is read."""
    return Tensor(
        names.their_shape(array.shape, layout), np.dtype(array.dtype), lambda: layout.to_theirs(np.asarray(array))
    )


def preserved(origin: Any, form: names.Form) -> dict[str, Any]:
    """Returns what origin.json preserves for conversion back to the form that the checkpoint came from."""
    if isinstance(origin, dict) and origin.get("format") == form and isinstance(origin.get(PRESERVED), dict):
        return dict(origin[PRESERVED])
    return {}


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    file = open_file(path)
    while piece := file.read(1 << 22):
        digest.update(piece)
    return digest.hexdigest()


def provenance(form: names.Form, files: Mapping[str, Path], **to_preserve: Any) -> dict[str, Any]:
    """Returns the contents of origin.json: the form, the SHA-256 of each file by name (no paths), and versions.

    Args:
      to_preserve: what only conversion back to the same form needs.
    """
    return {
        "format": form,
        "files": {name: sha256(path) for name, path in files.items()},
        "versions": {"nemojax": nemojax.__version__, "jax": version("jax"), "numpy": np.__version__},
        PRESERVED: to_preserve,
    }


class Native(NamedTuple):
    """A checkpoint of ours."""

    model: Transducer
    config: ModelConfig
    tokenizer: bytes  # a SentencePiece model
    origin: dict[str, Any]  # contents of origin.json

    @property
    def nbytes(self) -> int:
        """Size of the parameters."""
        return sum(array.nbytes for array in named_parameters(self.model).values())


def read_native(directory: str | Path, dtype: Any = None) -> Native:
    """Reads a native checkpoint in order to convert it; see `checkpoint.load`.

    Raises:
      CheckpointError: the directory is not a checkpoint.
      ConvertError: its weights are in int8, which no other form can express.
    """
    native = Native(*checkpoint.load(directory, dtype))
    if quantization.is_quantized(native.model):
        raise ConvertError(f"{directory} has weights in int8; convert the checkpoint that it was made from instead")
    return native
