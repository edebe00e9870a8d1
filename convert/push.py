"""Writes a native checkpoint as a repository of the model hub, with a model card."""

import tempfile
from pathlib import Path

from convert import hub, huggingface, model_card, nemo
from convert.names import Form
from convert.output import Progress, check_room, new_directory
from convert.source import Native, read_native

ARCHIVE_COPIES = {"huggingface": 1, "nemo": 2}  # an archive is written by way of a temporary file


def write(
    directory: str | Path,
    target: str,
    form: Form = "huggingface",
    license: str | None = None,
    language: str | None = None,
    revision: str | None = None,
    private: bool = False,
    progress: Progress = iter,
) -> tuple[Native, str]:
    """Writes the repository, to the hub or to a new folder; returns the checkpoint and the repository's address.

    Args:
      target: a name on the hub (owner/model); or a path, which begins with "/" or ".".
      form: of the checkpoint in the repository.
      license: its identifier on the hub, for the model card.
      language: its code, for the model card.
      revision: branch on the hub.
      private: whether a new repository is private.
      progress: wraps the tensors as they are written.

    Raises:
      CheckpointError: `directory` is not a checkpoint.
      ConvertError: `target` exists or can't be written, or the form can't express the model.
    """
    local = not hub.NAME.fullmatch(target)
    name = Path(target).name if local else target
    native = read_native(directory)
    card = model_card.write(native, name, form, license, language)
    size = ARCHIVE_COPIES[form] * native.nbytes
    if local:
        with new_directory(target, size) as folder:
            _write_files(native, directory, folder, name, form, card, progress)
        return native, target
    with tempfile.TemporaryDirectory(prefix="nemojax-push-") as temporary:
        folder = Path(temporary)
        check_room(folder / "model", size)
        _write_files(native, directory, folder, name.rpartition("/")[2], form, card, progress)
        return native, hub.upload(folder, target, revision, private)


def _write_files(
    native: Native, directory: str | Path, folder: Path, name: str, form: Form, card: str, progress: Progress
) -> None:
    """Writes the checkpoint and the model card into an empty folder."""
    if form == "huggingface":
        huggingface.checkpoint.write_files(native, folder, progress)
    else:
        nemo.write(directory, folder / f"{name}{hub.ARCHIVE}", progress)
    (folder / model_card.FILE).write_text(card)
