import json

import pytest
from huggingface_hub import constants

from convert import huggingface
from convert.huggingface import tokenizer_json
from nemojax import checkpoint, safetensors_format
from nemojax.model.parameters import fill
from tests.convert.samples import CONFIG, arrays, nemo_members, tar, theirs, tokenizer
from tests.helpers.hub import serve


@pytest.fixture
def nemo_file(tmp_path):
    """Writes a .nemo archive, by default a valid one."""

    def write(members=None, name: str = "model.nemo", mode: str = "w", **changes):
        path = tmp_path / name
        path.write_bytes(
            tar(nemo_members(changes.pop("config", CONFIG), **changes) if members is None else members, mode)
        )
        return path

    return write


@pytest.fixture
def huggingface_directory(tmp_path):
    """Writes a Hugging Face checkpoint; a keyword replaces the content of a file, None leaves the file out."""

    def write(name: str = "model", tensors=None, **files):
        directory = tmp_path / name
        directory.mkdir()
        tensors = theirs(CONFIG, "huggingface") if tensors is None else tensors
        with open(directory / "model.safetensors", "wb") as file:
            safetensors_format.write(file, tensors.items(), tensors)
        contents = {
            "config.json": json.dumps(huggingface.settings.to_settings(CONFIG, "float32", 0)),
            "processor_config.json": json.dumps(huggingface.settings.to_processor(CONFIG)),
            "tokenizer.json": json.dumps(tokenizer_json.to_json(tokenizer(CONFIG.vocabulary))),
        }
        for file, content in (contents | files).items():
            if content is None:
                (directory / file).unlink(missing_ok=True)
            else:
                (directory / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return directory

    return write


@pytest.fixture
def native(tmp_path):
    """Writes a native checkpoint."""

    def write(name: str = "native", config=CONFIG, origin=None, dtype="float32", model=None):
        directory = tmp_path / name
        made = fill(config, arrays(config, dtype=dtype))
        checkpoint.save(directory, made, model or tokenizer(config.vocabulary), origin or {})
        return directory

    return write


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that the client uses, with an empty cache."""
    with serve() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.address)
        template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "of no one")
        yield made
