"""A .nemo file to our form, and back.

Tensors and settings that go there and back are the same to the bit. A checkpoint that came from a .nemo file
also gets back its settings for training, and the two constants of the front end that NeMo keeps among the
weights; any other gets the family's, and constants within float32's rounding of NeMo's. The auxiliary CTC
decoder of hybrid models is left out, and so does not come back.
"""

import base64
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import librosa
import numpy as np

from convert import names
from convert.errors import ConvertError, reason, short
from convert.files import Window
from convert.nemo import recipe as nemo_recipe
from convert.nemo import settings as nemo_settings
from convert.nemo import torch_format
from convert.nemo.archive import open_nemo
from convert.output import new_file
from convert.pieces import MODEL_BYTES, pieces
from convert.sections import SETTINGS_BYTES, Everything
from convert.source import Source, Tensor, account, given, kept, origin, read_native
from nemojax import checkpoint
from nemojax.config import FeatureConfig, ModelConfig
from nemojax.model.parameters import named_parameters

WEIGHTS = "model_weights.ckpt"
WINDOW, FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"
CONSTANT_TOLERANCE = 1e-6  # absolute; both are at most 1, and differ by 1e-7 between libraries


def read(path: str | Path, scratch: str | Path | None = None, skipped: Container[str] = ()) -> Source:
    """A .nemo file under our names; tensors are read when asked for.

    Args:
      scratch: a directory for what a compressed archive inflates to.
      skipped: full names of unknown settings that are known to change nothing.

    Raises:
      ConvertError: says what is wrong with it, and where.
    """
    path = Path(path)
    members = open_nemo(path, scratch)
    try:
        return _read(path, members, skipped)
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None


def _read(path: Path, members: Mapping[str, Window], skipped: Container[str]) -> Source:
    text = _member(members, nemo_settings.FILE, SETTINGS_BYTES)
    settings = nemo_settings.parse(text)
    name = nemo_settings.tokenizer_member(settings)
    tokenizer = _member(members, name, MODEL_BYTES)
    config = nemo_settings.to_config(settings, len(pieces(tokenizer, name)), skipped)

    weights = [name for name in members if name.endswith(".ckpt")]
    if weights != [WEIGHTS]:
        found = ", ".join(map(short, weights)) or "none"
        raise ConvertError(f"must have {WEIGHTS} and no other weights, has {found}")
    try:
        tensors = torch_format.read(members[WEIGHTS])
    except ConvertError as error:
        raise ConvertError(f"{WEIGHTS} {error}") from None
    constants = _constants(tensors, config.features)
    auxiliary = [name for name in tensors if name.startswith("ctc_decoder.")]
    rest = {name: tensor for name, tensor in tensors.items() if name not in (WINDOW, FILTERS, *auxiliary)}
    notes = [f"left out the auxiliary CTC decoder: {', '.join(map(short, auxiliary))}"] if auxiliary else []
    note = origin("nemo", {path.name: path}, kept={"settings": text.decode(), "constants": constants})
    return Source(config, account(config, rest, "nemo"), tokenizer, note, notes)


def _member(members: Mapping[str, Window], name: str, limit: int) -> bytes:
    if name not in members:
        raise ConvertError(f"has no {short(name)}")
    if members[name].size > limit:
        raise ConvertError(f"has a {short(name)} of more than {limit >> 20} MB")
    return members[name].read()


def front_end(features: FeatureConfig) -> dict[str, np.ndarray]:
    """The constants that NeMo keeps among the weights: its window, and its mel filters as librosa makes them."""
    filters = librosa.filters.mel(
        sr=features.sample_rate_hz,
        n_fft=features.fft_samples,
        n_mels=features.mel_bins,
        fmin=0,
        fmax=features.sample_rate_hz / 2,
        norm="slaney",
    )
    return {WINDOW: np.hanning(features.window_samples).astype(np.float32), FILTERS: filters[None].astype(np.float32)}


def _constants(tensors: Mapping[str, Tensor], features: FeatureConfig) -> dict[str, str]:
    """Constants in the file that are not exactly those of `front_end`, packed.

    Raises:
      ConvertError: a constant is another than what the settings stand for.
    """
    shapes = {WINDOW: (features.window_samples,), FILTERS: (1, features.mel_bins, features.fft_samples // 2 + 1)}
    present = [name for name in shapes if name in tensors]
    packed = {}
    # their shapes first: what is computed is then no larger than the file
    fit = all(tensors[name].shape == shapes[name] for name in present)
    ours = front_end(features) if present and fit else {}
    for name in present:
        stored = np.asarray(tensors[name]).astype(np.float32) if ours else None
        if stored is None or not _close(stored, ours[name]):
            raise ConvertError(f"{name} is not what the settings of the preprocessor stand for; not supported")
        if not np.array_equal(stored, ours[name]):
            packed[name] = base64.b64encode(zlib.compress(stored.tobytes())).decode()
    return packed


def _close(stored: np.ndarray, expected: np.ndarray) -> bool:
    return np.allclose(stored, expected, rtol=0, atol=CONSTANT_TOLERANCE)


def _unpack(packed: Any, expected: np.ndarray) -> np.ndarray:
    """A packed constant. Raises ConvertError where it is damaged."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(packed), expected.nbytes)
        stored = np.frombuffer(data, np.float32).reshape(expected.shape)
    except (TypeError, ValueError, zlib.error) as error:
        raise ConvertError(f"{checkpoint.ORIGIN} has a damaged constant: {reason(error)}") from None
    if not _close(stored, expected):
        raise ConvertError(f"{checkpoint.ORIGIN} has a constant that does not fit the settings")
    return stored


def write(directory: str | Path, path: str | Path, progress: Callable[[Iterable], Iterable] = iter) -> ModelConfig:
    """Writes a checkpoint of ours as a .nemo file that NeMo's `restore_from` loads.

    Args:
      progress: wraps the tensors as they are written.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConvertError: `path` exists or can't be written, or NeMo can't express the model.
    """
    model, config, tokenizer, origin = read_native(directory)
    listed = pieces(tokenizer)
    listing = "".join(f"{piece.text}\t{piece.score:g}\n" for piece in listed)
    files = {
        "model_path": ("tokenizer.model", tokenizer),
        "vocab_path": ("vocab.txt", "".join(f"{piece.text}\n" for piece in listed).encode()),
        "spe_tokenizer_vocab": ("tokenizer.vocab", listing.encode()),
    }
    artifacts = {key: f"{hashlib.sha256(data).hexdigest()[:32]}_{name}" for key, (name, data) in files.items()}
    settings = _settings(config, [piece.text for piece in listed], artifacts, origin)
    tensors = _tensors(config, named_parameters(model), origin)
    size = sum(tensor.nbytes for tensor in tensors.values())
    # twice: the weights' size, which comes before them in the tar, is known when they are written
    with new_file(path, 2 * size) as partial, tempfile.TemporaryFile(dir=partial.parent) as weights:
        torch_format.write(weights, progress(tensors.items()), tensors)
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
            _add(tar, nemo_settings.FILE, io.BytesIO(nemo_recipe.dump(settings)))
            for key, (_, data) in files.items():
                _add(tar, artifacts[key], io.BytesIO(data))
            _add(tar, WEIGHTS, weights)
    return config


def _add(tar: tarfile.TarFile, name: str, data) -> None:
    info = tarfile.TarInfo(f"./{name}")
    info.size, info.mode = data.seek(0, io.SEEK_END), 0o644
    data.seek(0)
    tar.addfile(info, data)


def _tensors(config: ModelConfig, parameters: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Tensor]:
    """NeMo's state dict."""
    packed = kept(origin, "nemo").get("constants", {})
    tensors = {}
    for name, expected in front_end(config.features).items():
        tensors[name] = given(_unpack(packed[name], expected) if name in packed else expected, names.SAME)
    for ours, leaf in parameters.items():
        name, layout = names.theirs(ours, "nemo", config.joint.dropout > 0)
        tensors[name] = given(leaf, layout)
    return tensors


def _settings(
    config: ModelConfig, pieces: list[str], artifacts: Mapping[str, str], origin: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that came with the weights, where they still stand for this model; else new ones."""
    settings = nemo_recipe.to_settings(config, pieces, artifacts)
    try:
        before = nemo_settings.parse(str(kept(origin, "nemo")["settings"]).encode())
        if nemo_settings.to_config(before, len(pieces), skipped=Everything()) != config:
            return settings
    except (KeyError, ConvertError):
        return settings
    before.pop("aux_ctc", None)
    return before | {key: settings[key] for key in ("tokenizer", "target", "labels")}
