import socket
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants, errors

import convert.hub
from convert import huggingface, nemo
from convert.errors import ConvertError
from convert.hub import locate, upload
from tests.convert.samples import CONFIG, converted, nemo_members, tar

NAME = "nvidia/nemotron-speech-streaming-en-0.6b"


@pytest.fixture
def archive() -> bytes:
    return tar(nemo_members(CONFIG))


def test_the_form_of_a_repository_that_has_both(hub, huggingface_directory, archive):
    files = {file.name: file.read_bytes() for file in huggingface_directory().iterdir()}
    hub.add(NAME, files | {"model.nemo": archive, "README.md": b"x", "model.gguf": b"x"})
    directory = locate(NAME, "huggingface")
    assert huggingface.read(directory).config == converted(CONFIG)
    assert hub.downloaded() == files.keys()  # and nothing that is not read
    assert locate(NAME, "nemo").name == "model.nemo" and "model.nemo" in hub.downloaded()


@pytest.mark.parametrize("prefer", ["huggingface", "nemo"])
def test_a_repository_with_an_archive_alone(hub, archive, prefer):
    hub.add(NAME, {"model.nemo": archive, ".gitattributes": b"x"})
    hub.add(NAME, {"january.nemo": archive + bytes(512)}, "refs/pr/1")
    assert nemo.read(locate(NAME, prefer)).config == converted(CONFIG)
    assert locate(NAME, prefer, "refs/pr/1").name == "january.nemo"
    assert hub.downloaded() == {"model.nemo", "january.nemo"}


def test_what_was_downloaded_is_used_where_the_hub_is_not_reached(hub, archive, monkeypatch):
    hub.add(NAME, {"model.nemo": archive})
    asked, ask = [], HfApi.model_info

    def model_info(*arguments, timeout, **more):
        asked.append(timeout)
        return ask(*arguments, timeout=timeout, **more)

    monkeypatch.setattr(HfApi, "model_info", model_info)
    path = locate(NAME, "huggingface")
    locate(NAME, "huggingface")
    # seconds: with a copy here, the hub is asked for news alone
    assert [timeout for timeout in asked if timeout] == [10, 3]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(NAME, "huggingface") == locate(NAME, "nemo") == path
    with pytest.raises(
        ConvertError,
        match=r"^owner/other is not a local directory, and can't be downloaded from the hub: .*offline mode is enabled",
    ):
        locate("owner/other", "huggingface")


@pytest.mark.slow
def test_a_hub_that_does_not_answer(hub, archive, monkeypatch):
    hub.add(NAME, {"model.nemo": archive})
    path = locate(NAME, "huggingface")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there; the client tries again
    assert locate(NAME, "nemo") == path


@pytest.mark.parametrize(
    "name,revision,why", [("owner/none", None, "it is not there, or"), (NAME, "v2", "it has no revision v2")]
)
def test_names_that_the_hub_does_not_have(hub, archive, name, revision, why):
    hub.add(NAME, {"model.nemo": archive})
    locate(NAME, "nemo")
    expected = f"^{name} is not a local directory, and can't be downloaded from the hub: {why}"
    with pytest.raises(ConvertError, match=expected) as caught:
        locate(name, "huggingface", revision)
    assert "\n" not in str(caught.value)
    del hub.repositories[NAME]  # a copy is here, but the hub refuses it
    with pytest.raises(ConvertError, match=f"^{NAME} is not a local directory.* hub: it is not there, or"):
        locate(NAME, "nemo")


@pytest.mark.parametrize(
    "files,message",
    [
        ({}, "has neither config.json, of a Hugging Face checkpoint, nor a .nemo archive"),
        ({"pytorch_model.bin": b"x"}, "has neither config.json"),
        ({"b.nemo": b"x", "a.nemo": b"x"}, "has several archives: 'a.nemo', 'b.nemo'; name the file of one"),
    ],
)
def test_places_without_a_checkpoint(hub, tmp_path, files, message):
    hub.add(NAME, files)
    (tmp_path / "folder").mkdir()
    for name, content in files.items():
        (tmp_path / "folder" / name).write_bytes(content)
    for place in (NAME, str(tmp_path / "folder")):
        with pytest.raises(ConvertError, match=f"^{place} {message}"):
            locate(place, "huggingface")


def test_folders_and_files(tmp_path, huggingface_directory, nemo_file):
    directory, archive = huggingface_directory(), nemo_file()
    assert locate(str(archive), "nemo") == locate(str(archive), "huggingface") == archive
    assert locate(str(tmp_path), "huggingface") == locate(str(tmp_path), "nemo") == archive
    assert locate(str(directory), "huggingface") == locate(str(directory), "nemo") == directory
    (directory / "model.nemo").write_bytes(b"x")
    (directory / "._model.nemo").write_bytes(b"x")
    assert locate(str(directory), "huggingface") == directory
    assert locate(str(directory), "nemo") == directory / "model.nemo"


def test_neither_a_place_nor_a_name(tmp_path, monkeypatch):
    (tmp_path / "model.zip").write_bytes(b"x")
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "file").write_bytes(b"x")  # a file that has the form of a name on the hub
    monkeypatch.chdir(tmp_path)
    for name in ("nothing", "owner/file", "a/b/c", "../up/x", "", "owner/mo del", str(tmp_path / "model.zip")):
        with pytest.raises(ConvertError, match=r"is neither a directory, nor a .nemo archive, nor a name on the hub"):
            locate(name, "huggingface")


def test_writing_to_the_hub(hub, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    address = upload(tmp_path / "model", "owner/model")
    assert address.startswith(f"{hub.address}/owner/model/commit/")
    assert hub.repositories["owner/model"]["main"] == {"config.json": b"{}"}
    created, create = [], HfApi.create_repo
    monkeypatch.setattr(HfApi, "create_repo", lambda self, *a, **more: created.append(more) or create(self, *a, **more))
    for private in (True, False):
        upload(tmp_path / "model", "owner/model", "second", private)
    assert hub.repositories["owner/model"]["second"] == {"config.json": b"{}"}
    assert created == [{"private": private, "exist_ok": True} for private in (True, False)]


def test_a_hub_that_can_not_be_written_to(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConvertError, match=r"^owner/model can't be written to the hub: ") as caught:
        upload(tmp_path, "owner/model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind,status,found",
    [
        (errors.GatedRepoError, 403, "accept its terms on the hub"),
        (errors.RevisionNotFoundError, 404, "it has no revision v2"),
        (errors.RepositoryNotFoundError, 404, "it is not there, or it is private"),
        (errors.HfHubHTTPError, 401, "it is not there, or it is private"),
        (errors.HfHubHTTPError, 403, "it is not there, or it is private"),
        (errors.HfHubHTTPError, 500, None),
        (OSError, None, None),
    ],
)
def test_why_a_repository_is_refused(kind, status, found):
    error = kind.__new__(kind)
    error.response = SimpleNamespace(status_code=status)
    refused = convert.hub._refusal(error, "v2")
    assert refused is None if found is None else refused.startswith(found)


@pytest.mark.parametrize("prefer", ["huggingface", "nemo"])
@pytest.mark.parametrize("downloaded", ["huggingface", "nemo"])
def test_one_form_of_a_repository_that_has_both_is_used_offline(
    hub, huggingface_directory, archive, monkeypatch, prefer, downloaded
):
    """The client itself takes a repository for incomplete of which files that are not read are missing."""
    files = {file.name: file.read_bytes() for file in huggingface_directory().iterdir()}
    hub.add(NAME, files | {"model.nemo": archive, "generation_config.json": b"{}", "README.md": b"x"})
    path = locate(NAME, downloaded)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate(NAME, prefer) == path


def test_a_download_that_was_interrupted_is_not_used_offline(hub, huggingface_directory, monkeypatch):
    # config.json is the first that the hub lists, and must not be the first that is here
    files = {file.name: file.read_bytes() for file in sorted(huggingface_directory().iterdir())}
    hub.add(NAME, files)
    download, names = huggingface_hub.hf_hub_download, []

    def interrupted(name, file, **options):
        names.append(file)
        if len(names) == len(files):
            raise OSError("Network is unreachable")
        return download(name, file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "hf_hub_download", interrupted)
        with pytest.raises(ConvertError, match="can't be downloaded from the hub: Network is unreachable"):
            locate(NAME, "huggingface")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConvertError, match="can't be downloaded from the hub"):
        locate(NAME, "huggingface")


@pytest.fixture
def silent_hub(hub, archive, monkeypatch):
    """A hub that accepts connections and sends nothing, after one from which a repository was downloaded."""
    hub.add(NAME, {"model.nemo": archive})
    path = locate(NAME, "huggingface")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(convert.hub, "TIMEOUT_S", 0.2)
        monkeypatch.setattr(convert.hub, "NEWS_TIMEOUT_S", 0.1)
        yield path


def test_a_hub_that_sends_nothing(silent_hub, tmp_path):
    assert locate(NAME, "nemo") == silent_hub
    with pytest.raises(ConvertError, match="owner/other is not a local directory, and can't be downloaded from the"):
        locate("owner/other", "nemo")
    with pytest.raises(ConvertError, match="owner/model can't be written to the hub: "):
        upload(tmp_path, "owner/model")
