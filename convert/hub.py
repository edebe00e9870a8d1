"""The model hub: reads models from it, and writes models to it.

A repository holds a Hugging Face checkpoint, a NeMo archive, or both. The client honors HF_ENDPOINT, HF_HOME and
HF_HUB_OFFLINE; what it has downloaded once is used again, also where the hub can't be reached.
"""

import re
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from convert.errors import ConvertError, reason, short
from convert.huggingface.checkpoint import FILES
from convert.huggingface.settings import FILE
from convert.names import Form

# The client is imported where it is used: that takes half a second.

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
ARCHIVE = ".nemo"
TIMEOUT_S, NEWS_TIMEOUT_S = 10.0, 3.0  # for an answer of the hub; the second where an older copy would do


def locate(name: str, prefer: Form, revision: str | None = None) -> Path:
    """Returns the NeMo archive or the Hugging Face directory of a model; downloads it if it is not here.

    Args:
      name: a file, a directory, or a name on the hub.
      prefer: the form to take from a place that has both.
      revision: branch, tag or commit on the hub.

    Raises:
      ConvertError: there is no such file, directory or name, the hub can't be reached, or the place has neither form.
    """
    path = Path(name)
    if name and path.is_dir():
        return _form_in(path, prefer)
    if name.endswith(ARCHIVE):
        return path
    if path.exists() or not NAME.fullmatch(name):
        raise ConvertError(
            f"{name} is neither a directory, nor a {ARCHIVE} archive, nor a name on the hub (owner/model)"
        )
    return _download(name, prefer, revision)


def upload(folder: Path, name: str, revision: str | None = None, private: bool = False) -> str:
    """Writes the files of a folder to a repository of the hub as one commit; returns the address of the commit.

    Args:
      name: the repository, which is created if there is none.
      revision: the branch, which is created if there is none; by default the repository's main one.
      private: whether a new repository is private.

    Raises:
      ConvertError: the hub can't be reached, or refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    hub = huggingface_hub.HfApi()
    try:
        with suppress(RepositoryNotFoundError):
            hub.model_info(name, timeout=TIMEOUT_S)  # what follows would wait for ever where the hub answers nothing
        hub.create_repo(name, private=private, exist_ok=True)
        if revision is not None:
            hub.create_branch(name, branch=revision, exist_ok=True)
        done = hub.upload_folder(
            repo_id=name, folder_path=folder, revision=revision, commit_message="Checkpoint and model card"
        )
    except Exception as error:  # the hub client, its HTTP library and the system have no common type
        raise ConvertError(f"{name} can't be written to the hub: {reason(error)}") from None
    return str(done.commit_url)


def _form_in(folder: Path, prefer: Form) -> Path:
    """Returns the archive in a folder, or the folder itself for its Hugging Face checkpoint."""
    archive = _archive([file.name for file in folder.iterdir()], prefer, str(folder))
    return folder if archive is None else folder / archive


def _archive(files: list[str], prefer: Form, place: str) -> str | None:
    """Returns the archive to take from a place with these files, None for its Hugging Face checkpoint.

    Raises:
      ConvertError: the place has neither form, or several archives.
    """
    archives = sorted(file for file in files if file.endswith(ARCHIVE) and not file.startswith("."))
    if FILE in files and (prefer == "huggingface" or not archives):
        return None
    if not archives:
        raise ConvertError(f"{place} has neither {FILE}, of a Hugging Face checkpoint, nor a {ARCHIVE} archive")
    if len(archives) > 1:
        names = ", ".join(map(short, archives))
        raise ConvertError(
            f"{place} has several archives: {names}; name the file of one, downloaded if it is on the hub"
        )
    return archives[0]


def _download(name: str, prefer: Form, revision: str | None) -> Path:
    """Returns the archive or the directory of a repository in the client's cache, and downloads what it lacks."""
    import huggingface_hub

    downloaded = _downloaded(name, prefer, revision)
    # with a copy here, the hub is asked for news alone
    timeout_s = TIMEOUT_S if downloaded is None else NEWS_TIMEOUT_S
    try:
        listed = huggingface_hub.HfApi().model_info(name, revision=revision, timeout=timeout_s).siblings or []
        files = [file.rfilename for file in listed]
        archive = _archive(files, prefer, name)
        wanted = [file for file in files if file == archive or (archive is None and _is_read(file))]
        # one by one: the client's download of a whole repository waits for ever where the hub stops to answer. The
        # file that shows the form comes last, so that a download which was interrupted does not look complete.
        for file in sorted(wanted, key=FILE.__eq__):
            path = huggingface_hub.hf_hub_download(name, file, revision=revision, etag_timeout=timeout_s)
        return Path(path).parent if archive is None else Path(path)
    except ConvertError:
        raise
    except Exception as error:  # the hub client, its HTTP library and the system have no common type
        refused = _refusal(error, revision)
        if refused or downloaded is None:
            why = f"is not a local directory, and can't be downloaded from the hub: {refused or reason(error)}"
            raise ConvertError(f"{name} {why}") from None
    return downloaded


def _is_read(file: str) -> bool:
    """Returns whether a file of a repository is of its Hugging Face checkpoint."""
    return "/" not in file and any(fnmatchcase(file, pattern) for pattern in FILES)


def _refusal(error: Exception, revision: str | None) -> str | None:
    """Returns why the hub refuses a repository; None if it can't be reached, or fails itself."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "accept its terms on the hub, and log in with the hub's client"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision}"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
        return "it is not there, or it is private and needs a login with the hub's client"
    return None


def _downloaded(name: str, prefer: Form, revision: str | None) -> Path | None:
    """Returns the archive or the directory of a repository in the client's cache, None if neither is there complete.

    It asks no hub. The client tells whether the files of one form are complete, not which form was downloaded.
    """
    import huggingface_hub

    for patterns in sorted([FILES, [f"*{ARCHIVE}"]], key=len, reverse=prefer == "huggingface"):
        try:
            folder = huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=patterns, local_files_only=True
            )
            return _form_in(Path(folder), prefer)
        except Exception:  # this form is not there; the caller reports why the hub can't be reached
            continue
    return None
