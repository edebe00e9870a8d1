"""Checkpoints of several safetensors files, and their index."""

import json

import pytest

from convert import huggingface
from convert.errors import ConvertError
from nemojax import safetensors_format
from tests.convert.nemo.test_checkpoint import same
from tests.convert.samples import CONFIG, arrays, theirs
from tests.helpers.messages import ending


def sharded(directory, tensors, shards: int = 3) -> dict[str, str]:
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for i in range(shards):
        part = {name: array for n, (name, array) in enumerate(tensors.items()) if n % shards == i}
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        with open(directory / file, "wb") as target:
            safetensors_format.write(target, part.items(), part)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_shards(huggingface_directory):
    directory = huggingface_directory()
    sharded(directory, theirs(CONFIG, "huggingface"))
    source = huggingface.read(directory)
    assert same(source.arrays, arrays(CONFIG)) and len(source.origin["files"]) == 3


@pytest.mark.parametrize(
    "change,message",
    [
        (
            lambda m: m.update({"joint.head.bias": "/etc/passwd"}),
            "model.safetensors.index.json names '/etc/passwd', which is not a file in this directory; refused",
        ),
        (
            lambda m: m.update({"joint.head.bias": "../model.safetensors"}),
            (
                "model.safetensors.index.json names '../model.safetensors', which is not a file in this "
                "directory; refused"
            ),
        ),
        (
            lambda m: m.update({"joint.head.bias": ".."}),
            "model.safetensors.index.json names '..', which is not a file in this directory; refused",
        ),
        (
            lambda m: m.update({"joint.head.bias": "a\\b"}),
            "model.safetensors.index.json names 'a\\\\b', which is not a file in this directory; refused",
        ),
        (lambda m: m.update({"joint.head.bias": 3}), "model.safetensors.index.json has no weight_map of files"),
        (
            lambda m: m.update({"joint.head.bias": "none.safetensors"}),
            "none.safetensors can't be read: No such file or directory",
        ),
        (
            lambda m: m.update({"joint.head.bias": "config.json"}),
            "config.json is not a safetensors file, or is cut short in its header",
        ),
        (lambda m: m.pop("joint.head.bias"), "model.safetensors.index.json and its files differ in 'joint.head.bias'"),
        (
            lambda m: m.update({"more": m["joint.head.bias"]}),
            "model.safetensors.index.json and its files differ in 'more'",
        ),
        (lambda m: m.clear(), "the settings name 4 layers, but there are only 0 tensors"),
    ],
)
def test_an_index_that_is_wrong(huggingface_directory, change, message):
    directory = huggingface_directory()
    weight_map = sharded(directory, theirs(CONFIG, "huggingface"))
    change(weight_map)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConvertError) as caught:
        huggingface.read(directory)
    where = f"{directory}/" if message.startswith("none") else ""
    assert str(caught.value) == f"{directory}: {where}{message}"


def test_a_tensor_in_two_shards(huggingface_directory):
    """This is an error even if the index names one of them."""
    directory, tensors = huggingface_directory(), theirs(CONFIG, "huggingface")
    weight_map = sharded(directory, tensors)
    again = {"joint.head.bias": tensors["joint.head.bias"] + 1}
    with open(directory / "z.safetensors", "wb") as target:
        safetensors_format.write(target, again.items(), again)
    weight_map["joint.head.bias"] = "z.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        ConvertError,
        match=ending(": model.safetensors.index.json and its files differ in a tensor that is in two files"),
    ):
        huggingface.read(directory)


def test_headers_of_all_shards_have_one_limit(huggingface_directory, monkeypatch):
    directory = huggingface_directory()
    (directory / "large").write_bytes((5 << 20).to_bytes(8, "little") + bytes(6 << 20))
    weight_map = dict.fromkeys(theirs(CONFIG, "huggingface"), "model.safetensors") | {"x": "large"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        ConvertError,
        match=ending(
            ": model.safetensors.index.json names 2 files with 5 MB of headers; at most 256 files and "
            "4 MB of headers are read"
        ),
    ):
        huggingface.read(directory)
    weight_map = {f"t{i}": f"f{i}" for i in range(300)}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ConvertError, match=ending(" can't be read: No such file or directory")):
        huggingface.read(directory)
    for file in weight_map.values():
        (directory / file).write_bytes(b"")
    with pytest.raises(
        ConvertError,
        match=ending(
            ": model.safetensors.index.json names 300 files with 0 MB of headers; at most 256 files "
            "and 4 MB of headers are read"
        ),
    ):
        huggingface.read(directory)
    monkeypatch.setattr(huggingface.checkpoint, "MAX_SHARDS", 2)
    tensors = theirs(CONFIG, "huggingface")
    (directory / "model.safetensors").write_bytes(b"")
    sharded(directory, tensors, 2)
    assert len(huggingface.read(directory).origin["files"]) == 2
    (directory / "model.safetensors").write_bytes(b"")
    sharded(directory, tensors, 3)
    with pytest.raises(
        ConvertError,
        match=ending(
            ": model.safetensors.index.json names 3 files with 0 MB of headers; at most 2 files and 4 "
            "MB of headers are read"
        ),
    ):
        huggingface.read(directory)
