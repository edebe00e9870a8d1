import json
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nemojax import checkpoint, safetensors_format
from nemojax.errors import CheckpointError, ConfigError
from nemojax.kernels.quantization import quantize
from nemojax.model.parameters import fill, named_parameters
from tests.helpers.messages import ending, whole

ORIGIN = {"source": "made.nemo", "sha256": "0" * 64}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_model):
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    checkpoint.save(directory, tiny_model, b"pieces", ORIGIN)
    return directory


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), a, b)))


def test_there_and_back(saved, tiny_model, tiny_config):
    model, config, tokenizer, origin = checkpoint.load(saved)
    assert same(model, tiny_model) and config == tiny_config and tokenizer == b"pieces" and origin == ORIGIN


def test_a_path_may_go_up(saved, tiny_model, tmp_path, monkeypatch):
    """Tensorstore accepts no `..` in a path."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    checkpoint.save("../copy", tiny_model, b"pieces", ORIGIN)
    model, *_ = checkpoint.load("../work/../copy")
    assert same(model, tiny_model)


def test_the_directory_has_the_usual_mode(saved):
    """Others may read it: mkdtemp makes directories for their owner alone."""
    assert saved.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "origin.json", "tokenizer.model", "weights"]
    assert [path.name for path in saved.parent.iterdir()] == ["tiny"]


def test_bfloat16_rounds_every_parameter(saved, tiny_model):
    model, *_ = checkpoint.load(saved, jnp.bfloat16)
    assert same(model, jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model))


def test_types_are_kept(tmp_path, tiny_model):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny_model)
    checkpoint.save(tmp_path / "half", half, b"", ORIGIN)
    assert same(checkpoint.load(tmp_path / "half")[0], half)


def test_parameters_may_be_views_read_one_at_a_time(tmp_path, tiny_model):
    read = []

    class Lazy:
        def __init__(self, name, array):
            self.name, self.array, self.shape = name, np.asarray(array), array.shape

        def __array__(self, dtype=None, copy=None):
            read.append(self.name)
            return np.asfortranarray(self.array)

    arrays = {name: Lazy(name, array) for name, array in named_parameters(tiny_model).items()}
    model = fill(tiny_model.config, arrays)
    assert read == []
    checkpoint.save(tmp_path / "lazy", model, b"", ORIGIN)
    assert sorted(read) == sorted(arrays)
    assert same(checkpoint.load(tmp_path / "lazy")[0], tiny_model)


def test_names_are_paths_in_the_model(tiny_model):
    names = named_parameters(tiny_model)
    assert names["encoder.blocks.1.attention.query.kernel"] is tiny_model.encoder.blocks[1].attention.query.kernel[...]
    assert names["prediction.lstm.1.hidden_bias"].shape == (96,) and len(names) == len(jax.tree.leaves(tiny_model))


def test_fill_accounts_for_every_array(tiny_model, tiny_config):
    arrays = named_parameters(tiny_model)
    assert same(fill(tiny_config, arrays), tiny_model)
    name = "joint.output.bias"
    without = {n: a for n, a in arrays.items() if n != name}
    with pytest.raises(
        CheckpointError, match=whole("the weights do not fit the settings: joint.output.bias is missing")
    ):
        fill(tiny_config, without)
    with pytest.raises(
        CheckpointError, match=whole("the weights do not fit the settings: extra is not a parameter of this model")
    ):
        fill(tiny_config, {**arrays, "extra": jnp.zeros(1)})
    with pytest.raises(
        CheckpointError,
        match=whole("the weights do not fit the settings: joint.output.bias has the shape [3], not [65]"),
    ):
        fill(tiny_config, {**arrays, name: jnp.zeros(3)})
    with pytest.raises(
        CheckpointError,
        match=whole(
            "the weights do not fit the settings: encoder.blocks.0.attention.content_bias is missing; "
            "encoder.blocks.0.attention.key.kernel is missing; "
            "encoder.blocks.0.attention.output.kernel is missing; "
            "encoder.blocks.0.attention.position.kernel is missing; "
            "encoder.blocks.0.attention.position_bias is missing; and 74 more"
        ),
    ):
        fill(tiny_config, {})


def test_existing_files_are_never_overwritten(saved, tiny_model, tmp_path):
    with pytest.raises(CheckpointError, match=ending(" exists already; name a new directory or remove it first")):
        checkpoint.save(saved, tiny_model, b"", {})
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match=ending(" exists already; name a new directory or remove it first")):
        checkpoint.save(tmp_path / "file", tiny_model, b"", {})
    with pytest.raises(CheckpointError, match=ending(" can't be written: File exists")):
        checkpoint.save(tmp_path / "file" / "below", tiny_model, b"", {})


def test_a_checkpoint_is_saved_to_no_address(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="gs://bucket/model is an address, and nemojax writes to directories"):
        checkpoint.save("gs://bucket/model", tiny_model, b"", {})
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_nothing(tmp_path, tiny_model):
    def fail(parameters):
        yield next(iter(parameters))
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=ending(" can't be written: No space left on device")):
        checkpoint.save(tmp_path / "half", tiny_model, b"", ORIGIN, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_what_threads_write_while_it_is_removed_goes_too(tmp_path, tiny_model, monkeypatch):
    late, remove = [], shutil.rmtree

    def remove_once(path, **how):
        remove(path, **how)
        if not late:
            path.mkdir()
            late.append(path / "written late")
            late[0].touch()

    def fail(parameters):
        monkeypatch.setattr(shutil, "rmtree", remove_once)
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match=ending(" can't be written: No space left on device")):
        checkpoint.save(tmp_path / "half", tiny_model, b"", ORIGIN, progress=fail)
    assert late and list(tmp_path.iterdir()) == []


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("part", ["config.json", "tokenizer.model", "origin.json", "weights"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part) if part == "weights" else (copy / part).unlink()
    with pytest.raises(CheckpointError, match=rf"is not a nemojax checkpoint: it has no {part}"):
        checkpoint.load(copy)


def test_not_a_directory(tmp_path):
    with pytest.raises(CheckpointError, match=ending(" is not a directory: there is none of this name")):
        checkpoint.load(tmp_path / "nowhere")
    (tmp_path / "model.nemo").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=ending(" is not a directory; convert a .nemo archive with nemojax-convert first")
    ):
        checkpoint.load(tmp_path / "model.nemo")


def test_a_directory_that_may_not_be_read(copy, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(CheckpointError, match=r"copy can't be read: Permission denied"):
        checkpoint.read_settings(copy)


def test_settings_that_the_weights_do_not_fit(copy):
    settings = json.loads((copy / "config.json").read_text())
    settings["joint"]["width"] = 8
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        CheckpointError,
        match=ending(
            ": the weights do not fit the settings: joint.encoder.bias has the shape [16], not [8]; "
            "joint.encoder.kernel has the shape [32, 16], not [32, 8]; joint.output.kernel has the "
            "shape [16, 65], not [8, 65]; joint.prediction.bias has the shape [16], not [8]; "
            "joint.prediction.kernel has the shape [24, 16], not [24, 8]"
        ),
    ):
        checkpoint.load(copy)
    settings["joint"]["color"] = "red"
    (copy / "config.json").write_text(json.dumps(settings))
    with pytest.raises(
        CheckpointError, match=ending(": unknown settings: joint.color; the settings here are width, dropout")
    ):
        checkpoint.load(copy)


def test_damaged_weights(copy):
    largest = max((p for p in (copy / "weights").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"^the weights in {copy / 'weights'} can't be read: "):
        checkpoint.load(copy)


def test_weights_of_other_types_are_refused(tmp_path, tiny_model):
    """One kernel in int8 makes the model one of int8, and every kernel must be."""
    checkpoint.save(tmp_path / "int8", quantize(tiny_model), b"", ORIGIN)
    file = tmp_path / "int8" / "weights.safetensors"
    right = {name: np.asarray(array) for name, array in named_parameters(checkpoint.load(file.parent)[0]).items()}
    kernel, bias = "encoder.blocks.0.attention.key.kernel", "joint.encoder.bias"
    cases = {
        (kernel, "float32"): "int8, as other kernels are",
        (bias, "int32"): "a floating type",
        (bias, "int8"): "a floating type",
        (f"{kernel}_scale", "int8"): "a floating type",
    }
    for (name, wrong), wanted in cases.items():
        arrays = {**right, name: right[name].astype(wrong)}
        with open(file, "wb") as target:
            safetensors_format.write(target, arrays.items(), arrays)
        message = f": the weights are damaged: {name} has the type {wrong}, not {wanted}"
        with pytest.raises(CheckpointError, match=ending(message)):
            checkpoint.load(file.parent)


@pytest.mark.parametrize("name", ["config.json", "origin.json", "tokenizer.model", "weights.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused(copy, name):
    shutil.rmtree(copy / "weights")
    (copy / "weights.safetensors").write_bytes(b"")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(CheckpointError, match=ending(f"{name} is not a file; copy the checkpoint again")):
        checkpoint.read_settings(copy)


def test_weights_in_both_forms_are_refused(copy):
    (copy / "weights.safetensors").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=ending("copy has both weights and weights.safetensors; remove one of them")
    ):
        checkpoint.load(copy)


HOSTILE = {
    "layers": ({"encoder": {"layers": 10**9}}, r"encoder\.layers must be at most 128"),
    "width": ({"joint": {"width": 10**12}}, r"joint\.width must be at most"),
    "digits": ({"vocabulary": int("1" * 4000)}, r"vocabulary must be at most \d+, not 1+ \.\.\. 1+$"),
    "a number too large for a float": ({"features": {"preemphasis": int("1" * 4000)}}, "preemphasis must be a number"),
    "not a number": ({"features": {"log_guard": float("nan")}}, r"log_guard must be 0 to 1, not nan"),
    "no hop": ({"features": {"hop_samples": 0}}, r"hop_samples must be at least 1"),
    "filters": ({"features": {"mel_bins": 10**5, "fft_samples": 2**16}}, "more than 4194304 filter values"),
    "a window of many hops": ({"features": {"window_samples": 3000, "fft_samples": 4096}}, "at most 2560, 16 hops"),
    "a name of two lines": ({"a\nb": 1}, r"unknown settings: a\\nb;"),
    "many events": (
        {"text": {"events": ["x"] * 2000, "join_punctuation": False}},
        "text.events must list at most 1000",
    ),
}


@pytest.mark.parametrize("changes,message", HOSTILE.values(), ids=HOSTILE)
def test_settings_that_no_model_has_are_refused(copy, changes, message):
    values = json.loads((copy / "config.json").read_text())
    for name, value in changes.items():
        values[name] = values[name] | value if isinstance(value, dict) and name in values else value
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read_settings(copy)
    assert len(str(caught.value)) < 1000 and str(copy / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    "file,content,message",
    [
        ("config.json", "[" * 100_000, r"config\.json is nested too deeply"),
        ("config.json", '{"vocabulary": ' + "1" * 5000 + "}", "a number of thousands of digits"),
        ("config.json", " " * (9 << 20), r"config\.json is larger than 8 MB"),
        ("origin.json", "[" * 100_000, r"origin\.json is nested too deeply"),
        ("origin.json", "[1]", r"origin\.json: it must be an object"),
        ("tokenizer.model", " " * (17 << 20), r"tokenizer\.model is larger than 16 MB"),
    ],
)
def test_files_that_no_checkpoint_has_are_refused(copy, file, content, message):
    (copy / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_settings(copy)


def test_weights_that_their_files_cannot_hold_are_refused(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_EXTRA_BYTES", -(1 << 30))
    with pytest.raises(
        CheckpointError,
        match=r": its weights are of 208,804 bytes, and its files hold [\d,]+; it is not complete$",
    ):
        checkpoint.load(copy)
