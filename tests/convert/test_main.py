import json
import logging
import os
import signal
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from convert import __main__ as command
from convert import hub, huggingface, nemo, onnx_step, output, push
from convert.errors import ConvertError
from nemojax import checkpoint
from nemojax.kernels import quantization
from nemojax.model.parameters import fill, named_parameters
from tests.convert.samples import CONFIG, arrays, converted, nemo_members, settings

COUNT = sum(array.size for array in arrays(CONFIG).values())


@pytest.fixture
def run(capsys):
    """Runs a command line; returns its exit code, standard output and standard error."""

    def run(*arguments) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            command.main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
        assert signal.getsignal(signal.SIGTERM) is before
        output = capsys.readouterr()
        return code, output.out, output.err

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def names(directory) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_conversion_in_all_directions(run, nemo_file, tmp_path, monkeypatch):
    bars = []
    monkeypatch.setattr(command, "tqdm", lambda items, **shown: bars.append(shown) or items)
    for arguments in (
        ("nemo", nemo_file(), tmp_path / "one"),
        ("to-hf", tmp_path / "one", tmp_path / "there"),
        ("hf", tmp_path / "there", tmp_path / "two"),
        ("to-nemo", tmp_path / "two", tmp_path / "back.nemo"),
    ):
        code, out, err = run(*arguments)
        assert code == 0 and err == ""
        assert out == f"{arguments[-1]}: {COUNT:,} parameters in {len(arrays(CONFIG))} tensors, 40 pieces\n"
    assert [bar.pop("desc") for bar in bars] == ["converting", "writing", "converting", "writing"]
    assert all(bar == {"unit": " tensors", "leave": False, "disable": None} for bar in bars)  # on a terminal only
    assert logging.getLogger("absl").level == logging.CRITICAL
    assert names(tmp_path) == {"model.nemo", "one", "there", "two", "back.nemo"}
    model, config, _, origin = checkpoint.load(tmp_path / "two")
    assert config == converted(CONFIG) and origin["format"] == "huggingface"
    for name, array in arrays(CONFIG).items():
        np.testing.assert_array_equal(named_parameters(model)[name], array)


def test_notes_are_printed(run, huggingface_directory, tmp_path):
    code, out, _ = run("hf", huggingface_directory(**{"processor_config.json": None}), tmp_path / "out")
    assert code == 0 and out.startswith("no processor_config.json: look-aheads 13, 6, 1, 0 are assumed\n")


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("nemo", "none.nemo", "out"), "error: none.nemo can't be read: No such file or directory\n"),
        (("nemo", ".", "out"), "error: . has neither config.json, of a Hugging Face checkpoint, nor a .nemo archive\n"),
        (("hf", "none", "out"), "error: none is neither a directory, nor a .nemo archive, nor a name on the hub"),
        (("hf", ".", "out"), "error: . has neither config.json, of a Hugging Face checkpoint, nor a .nemo archive\n"),
        (("to-nemo", "none", "out.nemo"), "error: none is not a directory: there is none of this name\n"),
        (("to-hf", "none", "out"), "error: none is not a directory: there is none of this name\n"),
        (("to-hf", ".", "out"), "error: . is not a nemojax checkpoint: it has no config.json, tokenizer.model,"),
    ],
)
def test_errors_are_one_sentence(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert code == 2 and out == "" and err.startswith(message) and err.count("\n") == 1
    assert names(tmp_path) == set()


def test_errors_of_the_package_are_one_sentence(run, native, tmp_path):
    code, out, err = run("stablehlo", native(), tmp_path / "out", "--lookaheads", "2")
    assert code == 2 and out == "" and err.startswith("error: lookahead 2 does not fit") and err.count("\n") == 1


@pytest.mark.parametrize(
    "error,message",
    [(MemoryError(), "MemoryError"), (MemoryError("2 GB"), "2 GB"), (OSError(5, "gone"), "[Errno 5] gone")],
)
def test_errors_of_the_system_are_one_sentence(run, tmp_path, monkeypatch, error, message):
    def locate(*_):
        raise error

    monkeypatch.setattr(hub, "locate", locate)
    assert run("nemo", "model.nemo", tmp_path / "out") == (2, "", f"error: {message}\n")


def test_int8(run, native, tmp_path, monkeypatch):
    code, out, _ = run("int8", native(origin={"format": "nemo"}), tmp_path / "out")
    assert code == 0 and out.startswith(f"{tmp_path / 'out'}: {COUNT:,} parameters in ")
    model, config, _, origin = checkpoint.load(tmp_path / "out")
    assert quantization.is_quantized(model) and config == CONFIG and origin == {"format": "nemo", "int8": True}
    expected = named_parameters(quantization.quantize(fill(CONFIG, arrays(CONFIG))))
    for name, array in named_parameters(model).items():
        np.testing.assert_array_equal(array, expected[name], strict=True)
    monkeypatch.setattr(onnx_step, "_imported", lambda name: None)
    for name in ("int8", "to-hf", "to-nemo", "stablehlo", "onnx"):
        code, _, err = run(name, tmp_path / "out", tmp_path / "again")
        assert code == 2 and "has weights in int8; convert the checkpoint that it was made from instead" in err


def test_arguments_are_passed_on(run, huggingface_directory, nemo_file, tmp_path, monkeypatch):
    config = huggingface.settings.to_settings(CONFIG, "float32", 0)
    config["encoder_config"]["novelty"] = 1
    directory = huggingface_directory(**{"config.json": json.dumps(config)})
    places = {("owner/model", "huggingface", "v1"): directory, ("owner/model", "nemo", "v2"): nemo_file(name="v2.nemo")}
    monkeypatch.setattr(hub, "_download", lambda *asked: places[asked])
    code, _, err = run("hf", "owner/model", tmp_path / "out", "--revision", "v1")
    assert code == 2 and "encoder_config.novelty is an unknown setting" in err
    skip = ("--skip-setting", "encoder_config.novelty")
    assert run("hf", "owner/model", tmp_path / "out", "--revision", "v1", *skip)[0] == 0
    assert run("nemo", "owner/model", tmp_path / "archived", "--revision", "v2")[0] == 0
    scratch = []

    def read(path, directory, skipped):
        scratch.append(directory)
        sys.exit(3)

    monkeypatch.setattr(nemo, "read", read)
    assert run("nemo", nemo_file(), tmp_path / "other")[0] == 3
    assert run("nemo", nemo_file(), tmp_path / "deep" / "other")[0] == 3
    assert scratch == [tmp_path, None]


def test_every_flag_of_push_is_passed_on(run, monkeypatch):
    asked = []

    def write(*arguments):
        *rest, _progress = arguments
        asked.append(rest)
        raise ConvertError("enough")

    monkeypatch.setattr(push, "write", write)
    flags = ["--form", "nemo", "--license", "mit", "--language", "en", "--revision", "second", "--private"]
    for more in ([], flags):
        assert run("push", "model", "owner/model", *more) == (2, "", "error: enough\n")
    assert asked == [
        [Path("model"), "owner/model", "huggingface", None, None, None, False],
        [Path("model"), "owner/model", "nemo", "mit", "en", "second", True],
    ]


def test_push(run, native, tmp_path):
    code, out, _ = run("push", native(), tmp_path / "pushed", "--form", "nemo", "--license", "cc-by-4.0")
    assert code == 0 and out.startswith(f"{tmp_path / 'pushed'}: {COUNT:,} parameters")
    assert names(tmp_path / "pushed") == {"README.md", "pushed.nemo"}
    assert "license: cc-by-4.0\n" in (tmp_path / "pushed" / "README.md").read_text()


@pytest.mark.parametrize("arguments", [(), ("nemo",), ("nemo", "a"), ("convert", "a", "b"), ("nemo", "a", "b", "c")])
def test_wrong_usage(run, arguments):
    assert run(*arguments)[0] == 2


def test_existing_output_is_not_overwritten(run, nemo_file, native, tmp_path, monkeypatch):
    model, directory = nemo_file(), native()
    for name in ("file", "directory"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("x")
    (tmp_path / "made.nemo").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = names(tmp_path)
    monkeypatch.setattr(onnx_step, "_imported", lambda name: None)
    for arguments in (
        ("nemo", model, tmp_path / "directory"),
        ("nemo", model, tmp_path / "made.nemo"),
        ("hf", "owner/model", tmp_path / "directory"),
        ("to-nemo", directory, tmp_path / "made.nemo"),
        ("to-nemo", directory, tmp_path / "link"),
        ("to-hf", directory, tmp_path / "directory"),
        ("int8", directory, tmp_path / "directory"),
        ("stablehlo", directory, tmp_path / "directory"),
        ("onnx", directory, tmp_path / "directory"),
    ):
        code, _, err = run(*arguments)
        out = arguments[-1]
        assert code == 2 and err == f"error: {out} exists already; give another name or remove it first\n"
    assert names(tmp_path) == before and (tmp_path / "made.nemo").read_text() == "x"


def test_an_empty_directory_may_be_filled(run, nemo_file, native, tmp_path):
    for name, arguments in {"a": ("nemo", nemo_file()), "b": ("to-hf", native())}.items():
        (tmp_path / name).mkdir()
        assert run(*arguments, tmp_path / name)[0] == 0


def test_bad_weights_leave_nothing(run, nemo_file, tmp_path):
    members = nemo_members(CONFIG)
    weights = bytearray(members["model_weights.ckpt"])
    weights[len(weights) // 2] ^= 0x10
    code, _, err = run("nemo", nemo_file(members | {"model_weights.ckpt": bytes(weights)}), tmp_path / "out")
    # from within a write, but not as a failure to write
    assert code == 2 and err.startswith("error: is damaged in its entry ") and names(tmp_path) == {"model.nemo"}


def test_unknown_settings_can_be_skipped(run, nemo_file, tmp_path):
    made = settings(CONFIG) | {"novelty": 1}
    made["encoder"]["flash"] = True
    model = nemo_file(settings=made)
    code, _, err = run("nemo", model, tmp_path / "out")
    assert code == 2 and "encoder.flash is an unknown setting (--skip-setting encoder.flash ignores it)" in err
    assert run("nemo", model, tmp_path / "out", "--skip-setting", "encoder.flash", "novelty")[0] == 0
    assert run("to-nemo", tmp_path / "out", tmp_path / "back.nemo")[0] == 0
    assert nemo.read(tmp_path / "back.nemo", skipped=("encoder.flash", "novelty")).config == converted(CONFIG)


COMMANDS = [("nemo", "out"), ("to-nemo", "out.nemo"), ("to-hf", "out")]


@pytest.fixture
def inputs(nemo_file, native):
    return {"nemo": nemo_file(), "to-nemo": native(), "to-hf": native("native2")}


@pytest.mark.parametrize("name,out", COMMANDS)
@pytest.mark.parametrize("which,code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_interrupted_halfway(run, inputs, tmp_path, monkeypatch, name, out, which, code):
    def bar(description):
        def progress(items):
            for i, item in enumerate(items):
                if i == 20:
                    os.kill(os.getpid(), which)
                yield item

        return progress

    monkeypatch.setattr(command, "_bar", bar)
    before = names(tmp_path)
    # background jobs of a shell ignore SIGINT, and their child processes inherit that
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run(name, inputs[name], tmp_path / out)[0] == code
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert names(tmp_path) == before


@pytest.mark.parametrize("name,out", COMMANDS)
def test_too_little_room(run, inputs, tmp_path, monkeypatch, name, out):
    size = 4 * COUNT if name != "to-nemo" else 8 * (COUNT + 400 + 128 * 257)  # with window and filters, twice
    room = namedtuple("room", "total used free")(10**9, 10**9 - size + 1, size - 1)
    monkeypatch.setattr(output.shutil, "disk_usage", lambda path: room)
    before = names(tmp_path)
    code, _, err = run(name, inputs[name], tmp_path / out)
    megabytes = f"{size / 1e6:,.0f}"
    expected = f"error: {tmp_path / out} needs {megabytes} MB, but only {megabytes} MB are free in {tmp_path}\n"
    assert code == 2 and err == expected and names(tmp_path) == before


@pytest.mark.parametrize("name,out", COMMANDS[1:])
def test_a_disk_that_fills_up(run, inputs, tmp_path, monkeypatch, name, out):
    def progress(items):
        yield next(iter(items))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "_bar", lambda description: progress)
    before = names(tmp_path)
    code, _, err = run(name, inputs[name], tmp_path / out)
    assert code == 2 and err == f"error: {tmp_path / out} can't be written: No space left on device\n"
    assert names(tmp_path) == before


def test_output_that_can_not_be_written(run, inputs, tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("nemo", "to-nemo", "to-hf"):
        code, _, err = run(name, inputs[name], tmp_path / "file" / "out")
        assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_torch_is_not_needed(run, nemo_file, tmp_path, monkeypatch):
    for module in ("torch", "nemo", "transformers", "safetensors", "tokenizers"):
        monkeypatch.setitem(sys.modules, module, None)
    assert run("nemo", nemo_file(), tmp_path / "one")[0] == 0
    assert run("to-hf", tmp_path / "one", tmp_path / "there")[0] == 0
    assert run("hf", tmp_path / "there", tmp_path / "two")[0] == 0
    assert run("to-nemo", tmp_path / "two", tmp_path / "back.nemo")[0] == 0


def test_nothing_is_written_if_nothing_was_read(run, tmp_path):
    assert run("nemo", tmp_path / "none.nemo", tmp_path / "deep" / "er" / "out")[0] == 2
    assert names(tmp_path) == set()


def test_a_name_of_an_output_that_is_not_text(nemo_file, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(["nemo", str(nemo_file()), str(tmp_path / "a\udcff")])
    assert r"a\udcff can't be written: its name is not UTF-8" in capsys.readouterr().err
