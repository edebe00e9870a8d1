"""Converts Hugging Face checkpoints (directories) to our form, and back.

A round trip returns the same tensors and settings, bit for bit. A checkpoint that came from Hugging Face also gets its
training settings back; any other gets the defaults of transformers' class. The tokenizer is written twice: as
tokenizer.json, for transformers, and as tokenizer.model, for conversion back.
"""

import dataclasses
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from convert.errors import ConvertError, short
from convert.files import open_file
from convert.huggingface import safetensors_file, settings, tokenizer_json
from convert.huggingface.settings import EXTRACTOR_FILE, FILE, PROCESSOR_FILE
from convert.output import Progress, new_directory
from convert.pieces import MAX_MODEL_BYTES, pieces
from convert.sections import MAX_SETTINGS_BYTES, Everything, read_json
from convert.source import (
    Native,
    Source,
    Tensor,
    match_parameters,
    name_parameters,
    preserved,
    provenance,
    read_native,
    text_settings,
)
from nemojax import safetensors_format
from nemojax.config import ModelConfig

WEIGHTS, INDEX, TOKENIZER = "model.safetensors", "model.safetensors.index.json", "tokenizer.model"
ADAPTER = "adapter_config.json"
TOKENIZER_CONFIG, GENERATION = "tokenizer_config.json", "generation_config.json"
MAX_SHARDS = 256
# what `read` needs of a repository
FILES = [FILE, PROCESSOR_FILE, EXTRACTOR_FILE, "*.safetensors", INDEX, TOKENIZER, tokenizer_json.FILE, ADAPTER]


def read(directory: str | Path, skipped: Container[str] = ()) -> Source:
    """Reads a checkpoint's directory; tensors are read from the files when they are used.

    Args:
      skipped: unknown settings, by full name, that the user knows to have no effect on the output.

    Raises:
      ConvertError: says what is wrong, and where.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ConvertError(f"{directory} is not a directory")
    try:
        return _read(directory, skipped)
    except ConvertError as error:
        raise ConvertError(f"{directory}: {error}") from None


def _read(directory: Path, skipped: Container[str]) -> Source:
    if (directory / ADAPTER).exists():
        raise ConvertError(f"has an adapter ({ADAPTER}), which nemojax does not run; merge it into the weights first")
    text = _file(directory, FILE)
    if text is None:
        raise ConvertError(f"has no {FILE}")
    processor, extractor = _json(directory, PROCESSOR_FILE), _json(directory, EXTRACTOR_FILE)
    config, notes = settings.read(read_json(text, FILE), processor, extractor, skipped)
    if processor is None:
        notes.append(f"no {PROCESSOR_FILE}: look-aheads {', '.join(map(str, config.encoder.lookaheads))} are assumed")
    if processor is None and extractor is None:
        notes.append("no settings of the feature extractor: transformers' defaults are assumed")
    tokenizer, tokenizer_notes = _tokenizer(directory, config.vocabulary)
    config = dataclasses.replace(config, text=text_settings(pieces(tokenizer, TOKENIZER)))
    shards = _shards(directory)
    tensors = {name: tensor for shard in shards.values() for name, tensor in shard.items()}
    parameters = match_parameters(config, tensors, "huggingface")
    origin = provenance("huggingface", {name: directory / name for name in shards}, settings=text.decode())
    return Source(config, parameters, tokenizer, origin, notes + tokenizer_notes)


def _file(directory: Path, name: str, limit: int = MAX_SETTINGS_BYTES) -> bytes | None:
    """Returns the bytes of a file of limited size, or None if there is none."""
    if not (directory / name).exists():
        return None
    file = open_file(directory / name)
    if file.size > limit:
        raise ConvertError(f"{name} is larger than {limit >> 20} MB")
    return file.read()


def _json(directory: Path, name: str) -> Any:
    text = _file(directory, name)
    return None if text is None else read_json(text, name)


def _tokenizer(directory: Path, vocabulary: int) -> tuple[bytes, list[str]]:
    """Returns tokenizer.model, or a SentencePiece model made from tokenizer.json, and notes for the user."""
    model = _file(directory, TOKENIZER, MAX_MODEL_BYTES)
    notes: list[str] = []
    if model is None:
        values = _json(directory, tokenizer_json.FILE)
        if values is None:
            raise ConvertError(f"has neither {TOKENIZER} nor {tokenizer_json.FILE}")
        model, notes = tokenizer_json.from_json(values, vocabulary)
    count = len(pieces(model, TOKENIZER))
    if count != vocabulary:
        raise ConvertError(f"the tokenizer has {count} pieces, {FILE} requires {vocabulary} and blank")
    return model, notes


def _shards(directory: Path) -> dict[str, dict[str, Tensor]]:
    """Returns the tensors of each weights file, by the file's name."""
    index = _json(directory, INDEX)
    if index is None:
        if not (directory / WEIGHTS).exists():
            raise ConvertError(f"has neither {WEIGHTS} nor {INDEX}; other formats of weights are not supported")
        return {WEIGHTS: _weights(directory, WEIGHTS)}
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise ConvertError(f"{INDEX} has no weight_map of files")
    files = sorted(set(weight_map.values()))
    for file in files:
        if file in ("", ".", "..") or any(character in file for character in "/\\\0"):
            raise ConvertError(f"{INDEX} names {short(file)}, which is not a file in this directory; refused")
    opened = [open_file(directory / file) for file in files[:MAX_SHARDS]]
    headers = sum(min(one.size, safetensors_file.header_bytes(one)) for one in opened)
    if len(files) > MAX_SHARDS or headers > safetensors_format.MAX_HEADER_BYTES:
        limits = f"at most {MAX_SHARDS} files and {safetensors_format.MAX_HEADER_BYTES >> 20} MB of headers"
        raise ConvertError(f"{INDEX} names {len(files)} files with {headers >> 20} MB of headers; {limits} are read")
    shards = {file: _weights(directory, file) for file in files}
    found = {name: file for file, shard in shards.items() for name in shard}
    if sum(map(len, shards.values())) != len(found) or found != weight_map:
        wrong = sorted(name for name in found.keys() | weight_map.keys() if found.get(name) != weight_map.get(name))
        what = ", ".join(map(short, wrong[:5])) or "a tensor that is in two files"
        raise ConvertError(f"{INDEX} and its files differ in {what}")
    return shards


def _weights(directory: Path, name: str) -> dict[str, Tensor]:
    """Returns the tensors of one weights file."""
    try:
        return safetensors_file.read(open_file(directory / name))
    except ConvertError as error:
        where = "" if str(directory / name) in str(error) else f"{name} "
        raise ConvertError(f"{where}{error}") from None


def write(directory: str | Path, path: str | Path, progress: Progress = iter) -> ModelConfig:
    """Writes a native checkpoint as a directory that transformers' `from_pretrained` loads.

    Args:
      progress: wraps the tensors as they are written.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConvertError: `path` exists or can't be written, or transformers can't express the model.
    """
    native = read_native(directory)
    with new_directory(path, native.nbytes) as partial:
        write_files(native, partial, progress)
    return native.config


def write_files(native: Native, folder: Path, progress: Progress = iter) -> None:
    """Writes the files of a checkpoint for transformers into an empty folder; see `write`."""
    tensors = name_parameters(native.model, "huggingface")
    dtype = max(tensors.values(), key=lambda tensor: tensor.size).dtype.name  # of the largest, if they differ
    for name, values in _settings_files(native.config, native.tokenizer, dtype, native.origin).items():
        (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    (folder / TOKENIZER).write_bytes(native.tokenizer)
    with open(folder / WEIGHTS, "wb") as file:
        safetensors_format.write(file, progress(tensors.items()), tensors)


def _settings_files(config: ModelConfig, tokenizer: bytes, dtype: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contents of each JSON file by name."""
    vocabulary = tokenizer_json.to_json(tokenizer)
    pad = vocabulary["model"]["vocab"].get(tokenizer_json.PAD, 0)
    model, processor = settings.to_settings(config, dtype, pad), settings.to_processor(config)
    try:
        # the settings that came with the weights, if they still describe this model
        original = read_json(str(preserved(origin, "huggingface")["settings"]).encode(), FILE)
        described = settings.to_config(original, processor, None, Everything())
        if dataclasses.replace(described, text=config.text) == config:
            model = original | {"dtype": dtype}
    except (KeyError, ConvertError):
        pass
    return {
        FILE: model,
        PROCESSOR_FILE: processor,
        GENERATION: {"decoder_start_token_id": config.blank, "pad_token_id": model.get("pad_token_id", pad)},
        tokenizer_json.FILE: vocabulary,
        TOKENIZER_CONFIG: tokenizer_json.to_tokenizer_config(vocabulary["model"]["unk_token"]),
    }
