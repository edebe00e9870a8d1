"""A Hugging Face checkpoint (a directory, or a name on the hub) to our form, and back.

Tensors and settings that go there and back are the same to the bit. A checkpoint that came from Hugging Face
also gets back its settings for training; any other gets the class's defaults. The tokenizer is written as
tokenizer.json, for transformers, and as tokenizer.model, for the way back.
"""

import json
import re
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from convert import names
from convert.errors import ConvertError, reason, short
from convert.files import open_file
from convert.huggingface import safetensors_format, tokenizer_json
from convert.huggingface import settings as huggingface_settings
from convert.huggingface.settings import EXTRACTOR_FILE, FILE, PROCESSOR_FILE
from convert.output import new_directory
from convert.pieces import pieces
from convert.sections import SETTINGS_BYTES, Everything, read_json
from convert.source import Source, Tensor, account, given, kept, origin, read_native
from nemojax.config import ModelConfig
from nemojax.model.parameters import named_parameters

WEIGHTS, INDEX, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "tokenizer.model"
TOKENIZER_CONFIG, GENERATION = "tokenizer_config.json", "generation_config.json"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = [FILE, PROCESSOR_FILE, EXTRACTOR_FILE, "*.safetensors", INDEX, TOKENIZER, tokenizer_json.FILE]


def fetch(name: str, revision: str | None = None) -> Path:
    """The directory of that name, or what is needed of the hub's repository of that name.

    Raises:
      ConvertError: it is neither, or the hub can't be reached or does not have it.
    """
    if name and Path(name).is_dir():
        return Path(name)
    if Path(name).exists() or not HUB_NAME.fullmatch(name):
        hint = "; `nemo` converts .nemo archives" if name.endswith(".nemo") else ""
        raise ConvertError(f"{name} is neither a directory nor a name on the hub (owner/model){hint}")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except Exception as error:  # the hub client's own, its HTTP library's, and the system's
        why = reason(error)
        raise ConvertError(f"{name} is not a directory here, and the hub does not give it: {why}") from None


def read(directory: str | Path, skipped: Container[str] = ()) -> Source:
    """A checkpoint's directory under our names; tensors are read when asked for.

    Args:
      skipped: full names of unknown settings that are known to change nothing.

    Raises:
      ConvertError: says what is wrong with it, and where.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ConvertError(f"{directory} is not a directory")
    try:
        return _read(directory, skipped)
    except ConvertError as error:
        raise ConvertError(f"{directory}: {error}") from None


def _read(directory: Path, skipped: Container[str]) -> Source:
    text = _file(directory, FILE)
    if text is None:
        raise ConvertError(f"has no {FILE}")
    processor, extractor = _json(directory, PROCESSOR_FILE), _json(directory, EXTRACTOR_FILE)
    config = huggingface_settings.to_config(read_json(text, FILE), processor, extractor, skipped)
    notes = []
    if processor is None:
        notes.append(f"no {PROCESSOR_FILE}: look-aheads {', '.join(map(str, config.encoder.lookaheads))} are assumed")
    if processor is None and extractor is None:
        notes.append("no settings of the front end: transformers' defaults are assumed")
    tokenizer, more = _tokenizer(directory, config.vocabulary)
    shards = _shards(directory)
    tensors = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    parameters = account(config, tensors, "huggingface")
    files = {name: directory / name for name in shards}
    return Source(
        config, parameters, tokenizer, origin("huggingface", files, kept={"settings": text.decode()}), notes + more
    )


def _file(directory: Path, name: str, limit: int = SETTINGS_BYTES) -> bytes | None:
    if not (directory / name).exists():
        return None
    window = open_file(directory / name)
    if window.size > limit:
        raise ConvertError(f"{name} is larger than {limit >> 20} MB")
    return window.read()


def _json(directory: Path, name: str) -> Any:
    text = _file(directory, name)
    return None if text is None else read_json(text, name)


def _tokenizer(directory: Path, vocabulary: int) -> tuple[bytes, list[str]]:
    """A SentencePiece model, as it lies there or made from tokenizer.json; and notes."""
    model = _file(directory, TOKENIZER)
    notes: list[str] = []
    if model is None:
        values = _json(directory, tokenizer_json.FILE)
        if values is None:
            raise ConvertError(f"has neither {TOKENIZER} nor {tokenizer_json.FILE}")
        model, notes = tokenizer_json.from_json(values, vocabulary)
    count = len(pieces(model, TOKENIZER))
    if count != vocabulary:
        raise ConvertError(f"the tokenizer has {count} pieces, {FILE} says {vocabulary} and blank")
    return model, notes


def _shards(directory: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of each file of weights."""
    index = _json(directory, INDEX)
    if index is None:
        if not (directory / WEIGHTS).exists():
            raise ConvertError(f"has neither {WEIGHTS} nor {INDEX}; other forms of weights are not read")
        return {WEIGHTS: _weights(directory, WEIGHTS)}
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ConvertError(f"{INDEX} has no weight_map of files")
    files = sorted(set(weight_map.values()))
    for file in files:
        if file in ("", ".", "..") or any(character in file for character in "/\\\0"):
            raise ConvertError(f"{INDEX} names {short(file)}, which is not a file in this directory; refused")
    shards = {file: _weights(directory, file) for file in files}
    found = {name: file for file, shard in shards.items() for name in shard}
    if sum(map(len, shards.values())) != len(found) or found != weight_map:
        odd = sorted(name for name in found.keys() | weight_map.keys() if found.get(name) != weight_map.get(name))
        raise ConvertError(
            f"{INDEX} and its files differ in {', '.join(map(short, odd[:5])) or 'a tensor there twice'}"
        )
    return shards


def _weights(directory: Path, name: str) -> dict[str, Tensor]:
    try:
        return safetensors_format.read(open_file(directory / name))
    except ConvertError as error:
        where = "" if str(directory / name) in str(error) else f"{name} "
        raise ConvertError(f"{where}{error}") from None


def write(directory: str | Path, path: str | Path, progress: Callable[[Iterable], Iterable] = iter) -> ModelConfig:
    """Writes a checkpoint of ours as a directory that transformers' `from_pretrained` loads.

    Args:
      progress: wraps the tensors as they are written.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConvertError: `path` exists or can't be written, or transformers can't express the model.
    """
    model, config, tokenizer, origin = read_native(directory)
    tensors = {}
    for ours, leaf in named_parameters(model).items():
        name, layout = names.theirs(ours, "huggingface")
        tensors[name] = given(leaf, layout)
    files = _settings(config, tokenizer, max(tensors.values(), key=lambda tensor: tensor.size).dtype.name, origin)
    with new_directory(path, sum(tensor.nbytes for tensor in tensors.values())) as partial:
        for name, values in files.items():
            (partial / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        (partial / TOKENIZER).write_bytes(tokenizer)
        with open(partial / WEIGHTS, "wb") as file:
            safetensors_format.write(file, progress(tensors.items()), tensors)
    return config


def _settings(config: ModelConfig, tokenizer: bytes, dtype: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Files of settings by name."""
    vocabulary = tokenizer_json.to_json(tokenizer)
    pieces = vocabulary["model"]["vocab"]
    pad = pieces.get(tokenizer_json.PAD, 0)
    settings = huggingface_settings.to_settings(config, dtype, pad)
    processor = huggingface_settings.to_processor(config)
    try:
        # those that came with the weights, where they still stand for this model
        before = read_json(str(kept(origin, "huggingface")["settings"]).encode(), FILE)
        if huggingface_settings.to_config(before, processor, None, Everything()) == config:
            settings = before | {"dtype": dtype}
    except (KeyError, ConvertError):
        pass
    return {
        FILE: settings,
        PROCESSOR_FILE: processor,
        GENERATION: {"decoder_start_token_id": config.blank, "pad_token_id": settings.get("pad_token_id", pad)},
        tokenizer_json.FILE: vocabulary,
        TOKENIZER_CONFIG: tokenizer_json.to_tokenizer_config(vocabulary["model"]["unk_token"]),
    }
