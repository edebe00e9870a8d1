"""Converts .nemo files to our form, and back.

A round trip returns the same tensors and settings, bit for bit. A checkpoint that came from a .nemo file also gets its
training settings back, and the two constants of the preprocessor that NeMo stores with the weights. Any other gets the
family's settings, and constants that equal NeMo's up to rounding in float32. The auxiliary CTC decoder of hybrid models
is dropped, and a round trip does not restore it.
"""

import base64
import dataclasses
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Container, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from convert import names
from convert.errors import ConvertError, listed, reason, short
from convert.files import FilePart
from convert.nemo import recipe, settings, torch_format
from convert.nemo.archive import open_nemo
from convert.nemo.kinds import ADAPTER
from convert.output import Progress, new_file
from convert.pieces import MAX_MODEL_BYTES, pieces
from convert.sections import MAX_SETTINGS_BYTES, Everything
from convert.source import (
    Source,
    Tensor,
    in_their_layout,
    match_parameters,
    name_parameters,
    preserved,
    provenance,
    read_native,
    text_settings,
)
from nemojax.checkpoint import ORIGIN
from nemojax.config import FeatureConfig, ModelConfig
from nemojax.model.features import mel_triangles

WEIGHTS = "model_weights.ckpt"
WINDOW, FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"
CONSTANT_TOLERANCE = 1e-6  # absolute; values are at most 1, and libraries differ by 1e-7


def read(path: str | Path, scratch: str | Path | None = None, skipped: Container[str] = ()) -> Source:
    """Reads a .nemo file; tensors are read from the file when they are used.

    Args:
      scratch: directory in which a compressed archive is decompressed; the system's by default.
      skipped: unknown settings, by full name, that the user knows to have no effect on the output.

    Raises:
      ConvertError: says what is wrong, and where.
    """
    path = Path(path)
    members = open_nemo(path, scratch)
    try:
        return _read(path, members, skipped)
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None


def _read(path: Path, members: Mapping[str, FilePart], skipped: Container[str]) -> Source:
    text = _member(members, settings.FILE, MAX_SETTINGS_BYTES)
    parsed = settings.parse(text)
    settings.refuse_other_kinds(parsed)  # first: what follows would name a part of it
    tokenizer_name = settings.tokenizer_member(parsed)
    tokenizer = _member(members, tokenizer_name, MAX_MODEL_BYTES)
    vocabulary = pieces(tokenizer, tokenizer_name)
    config, notes = settings.read(parsed, len(vocabulary), skipped)
    config = dataclasses.replace(config, text=text_settings(vocabulary))

    weights = [name for name in members if name.endswith(".ckpt")]
    if weights != [WEIGHTS]:
        found = ", ".join(map(short, weights)) or "none"
        raise ConvertError(f"must have {WEIGHTS} and no other weights, but has {found}")
    try:
        tensors = torch_format.read(members[WEIGHTS])
    except ConvertError as error:
        raise ConvertError(f"{WEIGHTS} {error}") from None
    if adapters := [name for name in tensors if ADAPTER in name]:
        found = listed([short(name) for name in adapters], ", ")
        raise ConvertError(f"is a model with adapters, which nemojax does not run: {found}")
    _check_labels(tensors, config)
    constants = _constants(tensors, config.features)
    rounded = {
        str(tensors[name].dtype) for name in (WINDOW, FILTERS) if name in tensors and not _is_exact(tensors[name])
    }
    if rounded:
        notes.append(
            f"the preprocessor's window and filters are rounded to {' and '.join(sorted(rounded))}; "
            "nemojax computes its own in float32"
        )
    auxiliary = [name for name in tensors if name.startswith("ctc_decoder.")]
    rest = {name: tensor for name, tensor in tensors.items() if name not in (WINDOW, FILTERS, *auxiliary)}
    if auxiliary:
        notes.append(f"the auxiliary CTC decoder is left out: {', '.join(map(short, auxiliary))}")
    if any(tensor.dtype == np.float64 for tensor in rest.values()):
        notes.append("weights in float64 are rounded to float32, as NeMo does when it restores them")
        rest = {name: _in_float32(tensor) for name, tensor in rest.items()}
    parameters = match_parameters(config, rest, "nemo")
    origin = provenance("nemo", {path.name: path}, settings=text.decode(), constants=constants)
    return Source(config, parameters, tokenizer, origin, notes)


def _check_labels(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Raises ConvertError if the weights are of another number of labels than the tokenizer's pieces and blank."""
    embedding = tensors.get("decoder.prediction.embed.weight")
    if embedding is not None and embedding.shape[:1] != (config.labels,):
        rows = embedding.shape[0] if embedding.shape else 0
        raise ConvertError(
            f"the tokenizer has {config.vocabulary} pieces, the weights have {max(0, rows - 1)} and blank; "
            "the archive holds a tokenizer of another model"
        )


def _in_float32(tensor: Tensor) -> Tensor:
    """Returns a tensor that is rounded to float32 when it is read, if it is float64."""
    if tensor.dtype != np.float64:
        return tensor

    def load() -> np.ndarray:
        with np.errstate(over="ignore"):  # what is too large becomes infinity, which is refused
            return np.asarray(tensor).astype(np.float32)

    return Tensor(tensor.shape, np.dtype(np.float32), load)


def _member(members: Mapping[str, FilePart], name: str, limit: int) -> bytes:
    """Returns the bytes of a member of limited size."""
    if name not in members:
        raise ConvertError(f"has no {short(name)}")
    if members[name].size > limit:
        raise ConvertError(f"has a {short(name)} of more than {limit >> 20} MB")
    return members[name].read()


def preprocessor_constants(features: FeatureConfig) -> dict[str, np.ndarray]:
    """Computes the constants that NeMo stores with the weights: its window, and its mel filters.

    NeMo has the filters from librosa, which rounds to float32 before it scales them to equal area, and once more after.
    """
    triangle, scale = mel_triangles(features)
    filters: np.ndarray = (triangle.T.astype(np.float32) * scale[:, None]).astype(np.float32)
    return {WINDOW: np.hanning(features.window_samples).astype(np.float32), FILTERS: filters[None]}


def _constants(tensors: Mapping[str, Tensor], features: FeatureConfig) -> dict[str, str]:
    """Returns the stored constants that are not exactly those of `preprocessor_constants`, packed as text.

    A model that was saved in a type of 16 bits has them rounded to it. nemojax computes with its own, in float32.

    Raises:
      ConvertError: a constant contradicts the settings.
    """
    shapes = {WINDOW: (features.window_samples,), FILTERS: (1, features.mel_bins, features.fft_samples // 2 + 1)}
    present = [name for name in shapes if name in tensors]
    packed = {}
    # shapes are checked first, so that the computed constants are no larger than the file
    fit = all(tensors[name].shape == shapes[name] for name in present)
    computed = preprocessor_constants(features) if present and fit else {}
    for name in present:
        dtype = tensors[name].dtype
        stored = np.asarray(tensors[name]).astype(np.float32) if computed and dtype.kind in "fV" else None
        if stored is None or not _close(stored, computed[name].astype(dtype).astype(np.float32), dtype):
            raise ConvertError(f"{name} differs from what the preprocessor's settings give; not supported")
        if _is_exact(tensors[name]) and not np.array_equal(stored, computed[name]):
            packed[name] = base64.b64encode(zlib.compress(stored.tobytes())).decode()
    return packed


def _is_exact(tensor: Tensor) -> bool:
    """Returns whether the type of a tensor has the precision of float32."""
    return tensor.dtype.itemsize >= 4


def _close(stored: np.ndarray, expected: np.ndarray, dtype: Any = np.float32) -> bool:
    """Returns whether values are equal up to rounding: to float32 by another library, and to the stored type."""
    step = float(ml_dtypes.finfo(dtype).eps)  # values that differ by rounding may be neighbors in the stored type
    return np.allclose(stored, expected, rtol=2 * step, atol=CONSTANT_TOLERANCE)


def _unpack(packed: Any, expected: np.ndarray) -> np.ndarray:
    """Returns a packed constant. Raises ConvertError if it is damaged."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed), expected.nbytes)
        stored = np.frombuffer(data, np.float32).reshape(expected.shape)
    except (TypeError, ValueError, zlib.error) as error:
        raise ConvertError(f"{ORIGIN} has a damaged constant: {reason(error)}") from None
    if not _close(stored, expected):
        raise ConvertError(f"{ORIGIN} has a constant that does not fit the settings")
    return stored


def write(directory: str | Path, path: str | Path, progress: Progress = iter) -> ModelConfig:
    """Writes a native checkpoint as a .nemo file that NeMo's `restore_from` loads.

    Args:
      progress: wraps the tensors as they are written.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConvertError: `path` exists or can't be written, or NeMo can't express the model.
    """
    model, config, tokenizer, origin = read_native(directory)
    vocabulary = pieces(tokenizer)
    listing = "".join(f"{piece.text}\t{piece.score:g}\n" for piece in vocabulary)
    files = {
        "model_path": ("tokenizer.model", tokenizer),
        "vocab_path": ("vocab.txt", "".join(f"{piece.text}\n" for piece in vocabulary).encode()),
        "spe_tokenizer_vocab": ("tokenizer.vocab", listing.encode()),
    }
    artifacts = {key: f"{hashlib.sha256(data).hexdigest()[:32]}_{name}" for key, (name, data) in files.items()}
    written = _settings(config, [piece.text for piece in vocabulary], artifacts, origin)
    tensors = _constant_tensors(config.features, origin) | name_parameters(model, "nemo")
    size = sum(tensor.nbytes for tensor in tensors.values())
    # Twice the space: tar needs the size of the weights before their bytes, so they are first written to a file.
    with new_file(path, 2 * size) as partial, tempfile.TemporaryFile(dir=partial.parent) as weights:
        torch_format.write(weights, progress(tensors.items()), tensors)
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, settings.FILE, io.BytesIO(recipe.dump(written)))
            for key, (_, data) in files.items():
                _add(tar, artifacts[key], io.BytesIO(data))
            _add(tar, WEIGHTS, weights)
    return config


def _add(tar: tarfile.TarFile, name: str, data: IO[bytes]) -> None:
    """Adds a member with a file's content; nothing in its header depends on the time or the user."""
    info = tarfile.TarInfo(f"./{name}")
    info.size, info.mode = data.seek(0, io.SEEK_END), 0o644
    data.seek(0)
    tar.addfile(info, data)


def _constant_tensors(features: FeatureConfig, origin: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns the preprocessor's constants, as they came with the weights or as computed."""
    packed = preserved(origin, "nemo").get("constants", {})
    return {
        name: in_their_layout(_unpack(packed[name], computed) if name in packed else computed, names.SAME)
        for name, computed in preprocessor_constants(features).items()
    }


def _settings(
    config: ModelConfig, pieces: list[str], artifacts: Mapping[str, str], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the settings that came with the weights, if they still describe this model; else new ones."""
    new = recipe.to_settings(config, pieces, artifacts)
    try:
        original = settings.parse(str(preserved(origin, "nemo")["settings"]).encode())
        described = settings.to_config(original, len(pieces), skipped=Everything())
        if dataclasses.replace(described, text=config.text) != config:
            return new
    except (KeyError, ConvertError):
        return new
    original.pop("aux_ctc", None)
    if not isinstance(original.get("validation_ds"), dict):  # NeMo's `transcribe` needs it
        original["validation_ds"] = new["validation_ds"]
    original["decoding"] = original.get("decoding") or new["decoding"]
    recipe.remove_files(original["decoding"])
    return original | {key: new[key] for key in ("tokenizer", "target", "labels")}
