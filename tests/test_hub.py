"""Names of models on the hub: converted once, then as quick as a directory."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import nemojax
from nemojax import checkpoint, hub
from nemojax.bundled import SMALL
from nemojax.errors import CheckpointError
from tests.convert.samples import CONFIG, nemo_members, tar
from tests.helpers.hub import serve

NAME = "nvidia/nemotron-speech-streaming-en-0.6b"
ROOT = Path(__file__).parents[1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "nemojax" / "models"


@pytest.fixture
def commands(monkeypatch, checkpoint_directory):
    """Replaces the converters by a link to a checkpoint; returns their command lines."""
    run, paths = [], [str(ROOT), "mine"]
    monkeypatch.setenv("PYTHONPATH", "mine")

    def convert(command, **options):
        assert options.pop("env") == os.environ | {"PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"}
        assert options == {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        run.append(command)
        Path(command[6]).symlink_to(checkpoint_directory)
        return subprocess.CompletedProcess(command, 0, "a note\nOUT: 3 parameters\n", "progress")

    monkeypatch.setattr(subprocess, "run", convert)
    return run


def test_a_name_is_converted_once(cache, commands, capsys):
    directory = cache / NAME / "main"
    assert hub.resolve(NAME) == hub.resolve(Path(NAME)) == directory and len(commands) == 1
    assert commands[0] == [sys.executable, "-P", "-m", "convert", "hf", NAME, str(directory)]
    said = capsys.readouterr()
    line = f"{NAME} is downloaded, and converted once into {directory}\n"
    assert said.out == "" and said.err == line + "a note\n"
    assert checkpoint.read_settings(NAME)[0] == checkpoint.read_settings(directory)[0]
    assert nemojax.load(NAME).config == checkpoint.load(NAME)[1]
    assert len(commands) == 1 and capsys.readouterr().err == ""


def test_a_model_that_another_process_has_converted_meanwhile_is_taken(cache, commands, monkeypatch, capsys):
    @contextmanager
    def after_the_other(lock):
        (cache / NAME / "main").mkdir()
        yield

    monkeypatch.setattr(hub, "FileLock", after_the_other)
    assert hub.resolve(NAME) == cache / NAME / "main"
    assert commands == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("revision,folder", [("january", "january"), ("refs/pr/17", "refs--pr--17")])
def test_a_revision(cache, commands, revision, folder):
    assert hub.resolve(f"{NAME}@{revision}") == cache / NAME / folder
    assert commands[0][-4:] == [NAME, str(cache / NAME / folder), "--revision", revision]


@pytest.mark.parametrize("path", ["model", "a/b/c", "/a/b", "./a/b", "../a", "a/..", "a/b@../x", "", "a/b@", "a/@b"])
def test_paths_are_no_names(cache, commands, path):
    assert hub.resolve(path) == Path(path) and commands == []


def test_a_directory_comes_before_a_name(cache, commands, tmp_path):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert hub.resolve("owner/model") == Path("owner/model") and commands == []


def test_a_mistyped_directory_is_not_looked_for_on_the_hub(cache, commands, tmp_path):
    """But a model of that name that was converted before is found."""
    (tmp_path / "nvidia").mkdir()
    with pytest.raises(CheckpointError, match=f"there is no directory {NAME}@january, .*nemojax-convert hf {NAME} OUT"):
        hub.resolve(f"{NAME}@january")
    assert commands == [] and hub.resolve("nvidia/none.nemo") == Path("nvidia/none.nemo")
    (cache / NAME / "main").mkdir(parents=True)
    assert hub.resolve(NAME) == cache / NAME / "main"


@pytest.mark.parametrize(
    "code,error,message",
    [
        (2, "tqdm\nerror: owner/model is not on the hub\n", "^owner/model is not on the hub$"),
        (-9, "", r"^the converter ended with exit code -9$"),
    ],
)
def test_a_conversion_that_fails(cache, monkeypatch, code, error, message):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, "", error))
    for _ in range(2):  # nothing is left that a second try would find
        with pytest.raises(CheckpointError, match=message):
            hub.resolve("owner/model")


def test_what_a_killed_conversion_left_is_removed(cache, commands):
    left = cache / "owner" / "model" / ".main.x1y2"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    hub.resolve("owner/model")
    assert not left.exists()


def test_a_cache_that_can_not_be_written(cache, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("not a directory")
    expected = (
        r"^the cache of models can't be used: .*; set XDG_CACHE_HOME to a directory that can be written, or convert "
        r"owner/model with nemojax-convert$"
    )
    with pytest.raises(CheckpointError, match=expected):
        hub.resolve("owner/model")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert hub.models_directory() == tmp_path / "home" / ".cache" / "nemojax" / "models"


@pytest.mark.slow
def test_from_a_hub_to_labels(tmp_path):
    """As a user would: a name for `--model`, then again while the hub is gone."""
    audio = ROOT / "nemojax" / "small" / "example.ogg"
    command = [sys.executable, "-m", "nemojax.cli", "transcribe", str(audio), "--model", f"{NAME}@january", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub")}
    run = lambda **more: subprocess.run(command, env=environment | more, cwd=ROOT, capture_output=True, text=True)
    with serve() as served:
        served.add(NAME, {"model.nemo": tar(nemo_members(CONFIG))}, "january")
        first = run(HF_ENDPOINT=served.address)
        assert first.returncode == 0 and first.stderr.count(NAME) == 2  # the name, and in the path
        unknown = run(HF_ENDPOINT=served.address, XDG_CACHE_HOME=str(tmp_path / "other"), HF_HUB_OFFLINE="1")
        assert unknown.returncode == 0  # the client has the archive
        asked = len(served.requests)
        second = run(HF_ENDPOINT=served.address)
        assert (second.stdout, second.stderr, len(served.requests)) == (first.stdout, "", asked)
    command[command.index(f"{NAME}@january")] = "owner/none"
    offline = run(HF_HUB_OFFLINE="1")
    assert offline.returncode == 2 and offline.stderr.splitlines()[-1].startswith(
        "error: owner/none is not a local dir"
    )


def test_small_is_the_model_of_the_package_unless_there_is_such_a_directory(cache, tmp_path):
    for name in ("small", Path("small")):
        assert hub.resolve(name) == SMALL and hub.is_here(name)
    assert hub.resolve("./small") == Path("small")  # a path
    assert checkpoint.read_settings("small")[0] == checkpoint.read_settings(SMALL)[0]
    (tmp_path / "small").mkdir()
    assert hub.resolve("small") == Path("small")
